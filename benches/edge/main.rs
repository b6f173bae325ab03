//! The gateway as a reverse proxy, beside nginx as a plain one before the same upstream; and what
//! many connections and large bodies cost it.
//!
//! `cargo bench --bench edge -- [SCENARIO]… [--quick]`, scenarios as in [`SCENARIOS`], default all.
//! Ratios are measured in turns within this run. nginx must be installed; it neither checks keys
//! nor counts. Nothing here decides a test.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures real time, and its tasks end with their runtime"
)]

#[path = "../common/choice.rs"]
mod choice;
mod client;
mod crowd;
#[path = "../common/gateway.rs"]
mod gateway;
#[expect(dead_code, reason = "the hot path's benchmark asks for more")]
#[path = "../hot_path/keys.rs"]
mod keys;
mod memory;
mod nginx;
#[expect(dead_code, reason = "the journal's benchmark asks for more")]
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;
mod speed;
mod upstream;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::gateway::{Gateway, Settings};
use crate::report::Report;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Alternations between the gateway and nginx.
    pub rounds: usize,
    /// One measurement.
    pub span: Duration,
    /// Idle connections.
    pub idle: usize,
    /// Slow ones.
    pub slow: usize,
    /// MiB of the large body.
    pub body_mib: u64,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 11,
        span: Duration::from_secs(2),
        idle: 10_000,
        slow: 5_000,
        body_mib: 1024,
    };
    const QUICK: Self =
        Self { rounds: 5, span: Duration::from_secs(1), idle: 2_000, slow: 1_000, body_mib: 256 };
}

type Scenario = fn(Effort, &mut Report) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 5] = [
    ("small", speed::small),
    ("large", speed::large),
    ("idle", crowd::idle),
    ("slow", crowd::slow),
    ("body", memory::body),
];

/// A gateway on `data` before `upstream`, with keys.
pub fn before(data: &Path, upstream: SocketAddr) -> Result<Gateway> {
    std::fs::create_dir(data)?;
    keys::into_journal(data, client::KEYS)?;
    let more = format!(
        "[[upstreams]]\nname = \"bench\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"bench\"\n"
    );
    Gateway::start(data, Settings { more: Some(&more), ..Settings::default() })
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|role| role == upstream::ROLE) {
        return upstream::run();
    }
    let (quick, chosen) = choice::chosen(&SCENARIOS)?;
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let mut report = Report::default();
    for (name, scenario) in chosen {
        report::progress(name);
        scenario(effort, &mut report)?;
    }
    println!("{report}");
    Ok(())
}
