//! Requests a second and bytes a second, in turns with nginx.

use anyhow::Result;

use crate::client::Load;
use crate::nginx::Nginx;
use crate::report::{Goal, Report, Rounds, progress};
use crate::upstream::Upstream;
use crate::{Effort, before};

const MIB: usize = 1 << 20;

/// Small answers: what is measured is the work per request.
pub fn small(effort: Effort, report: &mut Report) -> Result<()> {
    in_turns("small requests, 64 connections", 64, 64, Goal::AtLeast(0.85), effort, report)
}

/// 1 MiB each: what is measured is the moving of bytes.
pub fn large(effort: Effort, report: &mut Report) -> Result<()> {
    in_turns("1 MiB answers, 16 connections", MIB, 16, Goal::AtLeast(0.90), effort, report)
}

fn in_turns(
    figure: &str,
    bytes: usize,
    connections: usize,
    goal: Goal,
    effort: Effort,
    report: &mut Report,
) -> Result<()> {
    let upstream = Upstream::start()?;
    let nginx = Nginx::before(upstream.address)?;
    let dir = tempfile::tempdir()?;
    let gateway = before(&dir.path().join("data"), upstream.address)?;
    let load = Load::new(bytes, connections, effort.span);
    let mut rounds = Rounds::default();
    for round in 1..=effort.rounds {
        let ours = load.run(gateway.address)?;
        let other = load.run(nginx.address)?;
        progress(&format!(
            "round {round}: {:.0}/s (p99 {:.0} µs), nginx {:.0}/s (p99 {:.0} µs)",
            ours.per_second, ours.p99_micros, other.per_second, other.p99_micros
        ));
        rounds.push(ours.per_second, other.per_second);
    }
    report.ratio(&format!("{figure}, against nginx as a plain proxy"), "/s", &rounds, goal);
    gateway.stop()
}
