//! What a full policy costs, what one hot key costs under it, and a million live limits in memory.

use anyhow::{Result, ensure};

use crate::Effort;
use crate::gateway::{Gateway, Settings};
use crate::keys::{self, KEYS};
use crate::load::Load;
use crate::report::{Goal, Report, Rounds, Series, progress};
use crate::support::cluster::Cluster;

/// Everything that a policy can ask for, and so much of it that nothing is refused.
const FULL: &str = "[[policies]]\nname = \"default\"\nmode = \"enforce\"\n\
    rights = [\"orders.read\", \"*.read\", \"gateway.*\"]\n\
    rate_limits = [{ name = \"burst\", limit = 1000000, window = \"1s\", per = \"key\" },\n\
                   { name = \"steady\", limit = 100000000, window = \"1m\", per = \"client\" }]\n\
    quotas = [{ name = \"monthly\", limit = 1000000000, period = \"month\", per = \"client\" }]\n\
    concurrency = { limit = 100000, per = \"key\" }\n\
    ip_allow = [\"127.0.0.0/8\"]\nip_deny = [\"10.9.0.0/16\"]\nmax_stale = \"24h\"\n";

/// A limit that stays live: what was taken is not back before the end.
const LIVE: &str = "[[policies]]\nname = \"default\"\n\
    rate_limits = [{ name = \"slow\", limit = 10, window = \"24h\", per = \"key\" }]\n";

/// The full policy against none, and one key against many, in turns.
pub fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let start = |name: &str, more| {
        let data = dir.path().join(name);
        std::fs::create_dir(&data)?;
        keys::into_journal(&data, KEYS)?;
        Gateway::start(&data, Settings { more, ..Settings::default() })
    };
    let (full, minimal) = (start("full", Some(FULL))?, start("minimal", None)?);
    let load = Load::new(keys::texts(KEYS), 64, effort);
    load.touch(full.address)?;
    load.touch(minimal.address)?;
    let hot = Load::new(keys::texts(1), 64, effort);
    let (mut cost, mut hammered) = <(Rounds, Rounds)>::default();
    let (mut our_cpu, mut their_cpu) = <(Series, Series)>::default();
    for round in 1..=effort.rounds {
        let ours = load.run_measured(full.address, full.pid())?;
        let theirs = load.run_measured(minimal.address, minimal.pid())?;
        let one = hot.run(full.address)?;
        for outcome in [&ours, &theirs, &one] {
            ensure!(outcome.refused == 0, "refused: {:?}", outcome.refusal);
        }
        progress(&format!(
            "round {round}: full {:.0}/s, minimal {:.0}/s, one key {:.0}/s",
            ours.per_second, theirs.per_second, one.per_second
        ));
        cost.push(ours.per_second, theirs.per_second);
        hammered.push(one.per_second, ours.per_second);
        our_cpu.push(ours.cpu_micros);
        their_cpu.push(theirs.cpu_micros);
    }
    progress(&format!("processor time per request: {our_cpu} µs, minimal {their_cpu} µs"));
    report.ratio("full policy, 64 connections, against none", "/s", &cost, Goal::AtLeast(0.90));
    let figure = "full policy, one key on all connections, against random keys";
    report.ratio(figure, "/s", &hammered, Goal::AtLeast(0.80));
    full.stop()?;
    minimal.stop()
}

/// Every one of a million keys with something taken from its limit.
pub fn million(effort: Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::dedicated();
    let database = runtime.block_on(cluster.database());
    let keys = effort.million;
    progress(&format!("inserting {keys} keys"));
    runtime.block_on(keys::into_postgres(&database.url, keys, None))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let url = Some(database.url.as_str());
    let settings = Settings { database_url: url, more: Some(LIVE), ..Settings::default() };
    let gateway = Gateway::start(&data, settings)?;
    gateway.wait_for("gatepost_cache_revision", 1.0)?;
    gateway.stop()?;
    // The first fill has a figure of its own.
    let gateway = Gateway::start(&data, settings)?;
    Load::new(keys::texts(keys), 64, effort).touch(gateway.address)?;
    let mut resident = Series::default();
    resident.push(gateway.resident_mib()?);
    let figure = format!("{keys} keys, each with a live limit: resident");
    report.figure(&figure, "MiB", &resident, Goal::AtMost(600.0));
    gateway.stop()
}
