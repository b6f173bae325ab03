//! The harness, measured: what would make its figures lie. Its sums, and its loops against callers
//! whose times are known. (The root of a test of its own, beside that of the harness.)

#![expect(clippy::disallowed_methods, reason = "the harness measures real time")]
#![expect(dead_code, reason = "the harness uses more of itself than is checked")]

mod load;
mod stock;

#[path = "report/goal.rs"]
mod goal;
#[path = "checks/loops.rs"]
mod loops;
#[path = "product/process.rs"]
mod process;
#[path = "report/series.rs"]
mod series;
#[path = "checks/sums.rs"]
mod sums;

/// Where the harness has it.
mod product {
    pub(crate) use crate::process;
}
