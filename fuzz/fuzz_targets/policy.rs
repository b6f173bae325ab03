//! The reader of policies. `cargo fuzz run policy -- -malloc_limit_mb=1`

#![no_main]

#[path = "../inputs/policy.rs"]
mod input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| input::read(data));
