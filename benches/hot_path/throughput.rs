//! Forward-auth against a handler that does nothing, in both commit modes.

use anyhow::{Result, ensure};

use crate::Effort;
use crate::gateway::{Gateway, Settings};
use crate::keys::{self, KEYS};
use crate::load::Load;
use crate::report::{Goal, Report, Rounds, Series, progress};
use crate::rivals::Rival;

/// The default: answers leave at once.
pub fn interval(effort: Effort, report: &mut Report) -> Result<()> {
    compare("interval", Goal::AtLeast(0.80), effort, report)
}

/// Answers wait for the disk.
pub fn before_reply(effort: Effort, report: &mut Report) -> Result<()> {
    compare("before_reply", Goal::AtLeast(0.55), effort, report)
}

fn compare(commit: &str, goal: Goal, effort: Effort, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    keys::into_journal(&data, KEYS)?;
    let gateway = Gateway::start(&data, Settings { commit: Some(commit), ..Settings::default() })?;
    let bare = Rival::bare()?;
    let texts = keys::texts(KEYS);
    for connections in [64, 256] {
        let load = Load::new(texts.clone(), connections, effort);
        load.touch(gateway.address)?;
        let mut rounds = Rounds::default();
        let (mut our_cost, mut their_cost) = <(Series, Series)>::default();
        for round in 1..=effort.rounds {
            let one = load.run_measured(gateway.address, gateway.pid())?;
            let other = load.run_measured(bare.address, bare.pid())?;
            ensure!(one.refused == 0, "{} requests were refused: {:?}", one.refused, one.refusal);
            progress(&format!(
                "round {round}, {connections} connections: {:.0}/s, bare {:.0}/s, p99 {} and {} µs",
                one.per_second, other.per_second, one.p99_micros, other.p99_micros
            ));
            rounds.push(one.per_second, other.per_second);
            our_cost.push(one.cpu_micros);
            their_cost.push(other.cpu_micros);
        }
        progress(&format!("processor time per request: {our_cost} µs, bare {their_cost} µs"));
        let figure = format!("forward-auth, {commit}, {connections} connections");
        report.ratio(&figure, "/s", &rounds, goal);
    }
    let hits = gateway.metric("gatepost_cache_hot_hits_total")?;
    let loads = gateway.metric("gatepost_cache_disk_hits_total")?;
    progress(&format!("{:.2} % answered from the hot tier", 100.0 * hits / (hits + loads)));
    gateway.stop()
}
