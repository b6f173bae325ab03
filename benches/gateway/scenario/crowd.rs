//! Several gateways on one Postgres, all with the same counters; and a gateway on a slow disk.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::effort::Effort;
use crate::load::keyed::Keyed;
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::product::support::shim::Shim;
use crate::report::Report;
use crate::report::chart::Chart;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::Rounds;
use crate::stock::keys;

const KEYS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// How much longer a sync takes on the slow disk.
const SLOWER_MS: u64 = 50;

/// Each gateway counts for the same keys; then all of it must be in Postgres, once.
pub fn gateways(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, KEYS, None))?;
    let dir = tempfile::tempdir()?;
    let keys = keys::texts(KEYS);
    let mut gateways = Vec::new();
    for number in 0..effort.gateways {
        let name = format!("bench-{number}");
        progress(&format!("gateway {} of {}", number + 1, effort.gateways));
        let settings = Settings {
            database_url: Some(&database.url),
            node: Some(&name),
            ..Settings::default()
        };
        let gateway = Gateway::start(&dir.path().join(&name), settings)?;
        gateway.wait_for("gatepost_cache_revision", 1.0)?;
        gateways.push(gateway);
    }
    let mut counted = 0;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let loads = gateways.iter().map(|gateway| {
            let load = Keyed::forward_auth(gateway.address, keys.clone());
            // Every key once, so that each has the same counters.
            scope.spawn(move || load.touch(8))
        });
        let loads: Vec<_> = loads.collect();
        loads.into_iter().try_for_each(|load| load.join().expect("no panic"))
    })?;
    counted += (gateways.len() * KEYS) as i64;
    let asked = began.elapsed();
    let settled = loop {
        let sum = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.key_totals";
        let applied = runtime.block_on(database.number(sum));
        ensure!(applied <= counted, "{applied} applied, {counted} issued");
        if applied == counted {
            break began.elapsed() - asked;
        }
        ensure!(began.elapsed() < PATIENCE, "{applied} applied of {counted}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let all = gateways.len();
    let figure = |what: &str| format!("{all} gateways, {KEYS} counters each the same: {what}");
    report.once(&figure("requests"), "/s", counted as f64 / asked.as_secs_f64(), None);
    report.once(&figure("settled after the last"), "s", settled.as_secs_f64(), Goal::at_most(10.0));
    let mut failures = 0.0;
    for gateway in gateways {
        failures += gateway.metric("gatepost_drain_failures_total")?;
        gateway.stop()?;
    }
    report.once(&figure("failed transactions"), "", failures, Goal::at_most(0.0));
    report.note(format!("{counted} requests issued, as many in Postgres"));
    Ok(())
}

/// Requests on a schedule while every sync takes 50 ms longer, in both modes.
pub fn slow_disk(effort: Effort, report: &mut Report) -> Result<()> {
    const PER_SECOND: u32 = 2_000;
    let dir = tempfile::tempdir()?;
    let keys = keys::texts(KEYS);
    let open = effort.open(PER_SECOND, 256, effort.refresh_span);
    let mut lines = Vec::new();
    for commit in ["interval", "before_reply"] {
        let mut gateways = Vec::new();
        for slow in [false, true] {
            let data = dir.path().join(format!("{commit}-{slow}"));
            std::fs::create_dir(&data)?;
            keys::into_journal(&data, KEYS)?;
            let shim =
                if slow { Shim::below(&data).map(|shim| shim.slow(SLOWER_MS)) } else { None };
            if slow && shim.is_none() {
                report.note("not measured: there is no C compiler for the shim");
                return Ok(());
            }
            let settings =
                Settings { commit: Some(commit), shim: shim.as_ref(), ..Settings::default() };
            let gateway = Gateway::start(&data, settings)?;
            let load = Keyed::forward_auth(gateway.address, keys.clone());
            load.touch(256)?;
            gateways.push((gateway, load, shim));
        }
        let open = open.bearable(&gateways[0].1)?;
        let (mut rounds, mut failed) = (Rounds::default(), 0);
        for round in 1..=effort.rounds {
            progress(&format!("{commit}, round {round}/{}", effort.rounds));
            let fast = open.run(&gateways[0].1)?.whole();
            let slow = open.run(&gateways[1].1)?.whole();
            failed += fast.failed + slow.failed;
            rounds.push(slow.latency.at(99.0), fast.latency.at(99.0));
            if round == effort.rounds {
                lines.push((format!("{commit}, this disk"), fast.latency));
                lines.push((format!("{commit}, {SLOWER_MS} ms slower"), slow.latency));
            }
        }
        let figure = format!("p99 under {commit}, syncs {SLOWER_MS} ms slower");
        // Under `before_reply` an answer waits for the disk: for the commit under way, and its own.
        let goal = if commit == "interval" { Goal::at_most(2.0) } else { None };
        report.ratio(&figure, "µs", "this disk", &rounds, goal);
        let figure = format!("failed under {commit} on the slow disk");
        report.once(&figure, "", failed as f64, Goal::at_most(0.0));
        for (gateway, _, _) in gateways {
            gateway.stop()?;
        }
    }
    let lines = lines.iter().map(|(name, latency)| (name.as_str(), latency));
    report.chart(Chart::latencies("requests on a schedule", lines));
    Ok(())
}
