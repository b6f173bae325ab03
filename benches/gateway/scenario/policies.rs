//! What a full policy costs, what one hot key costs under it, and a million live limits in memory.

use anyhow::Result;

use super::field::{Contestant, Field, embedded, rates};
use crate::effort::Effort;
use crate::load::keyed::Keyed;
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::Rounds;
use crate::stock::keys::{self, KEYS};

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
    const NONE: &str = "no policy";
    const ENFORCED: &str = "full policy";
    const INSTRUCTIONS: &str = "two buckets and a place per key that are seldom in the processor's \
        cache, a quota's fact, and two headers of which one is written anew for each answer";
    let (dir, many) = (tempfile::tempdir()?, keys::texts(KEYS));
    let mut field = Field::default();
    for (name, more) in [(NONE, None), (ENFORCED, Some(FULL))] {
        let settings = Settings { more, ..Settings::default() };
        let gateway = embedded(&dir.path().join(name), KEYS, settings)?;
        Keyed::forward_auth(gateway.address, many.clone()).touch(64)?;
        field.add(Contestant::gateway(name, gateway));
    }
    let closed = effort.closed(64);
    let turns =
        field.turns(effort.rounds, closed, |one| Keyed::forward_auth(one.address, many.clone()))?;
    report.contest("forward-auth, 64 connections", "/s", &turns);
    if let Some(rounds) = rates(&turns, ENFORCED, NONE) {
        let goal = Goal::at_least(0.90).and_then(|goal| goal.bound_by(INSTRUCTIONS));
        report.ratio("full policy, random keys, against none", "/s", NONE, &rounds, goal);
    }
    let address = field.0[1].address;
    let mut hammered = Rounds::default();
    for round in 1..=effort.rounds {
        progress(&format!("one key, round {round}/{}", effort.rounds));
        let one = closed.run(&Keyed::forward_auth(address, keys::texts(1)))?.whole()?;
        let random = closed.run(&Keyed::forward_auth(address, many.clone()))?.whole()?;
        hammered.push(one.per_second, random.per_second);
    }
    let figure = "full policy, one key on all connections";
    report.ratio(figure, "/s", "random keys", &hammered, Goal::at_least(0.80));
    Ok(())
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
    Keyed::forward_auth(gateway.address, keys::texts(keys)).touch(64)?;
    let figure = format!("{keys} keys, each with a live limit: resident");
    report.once(&figure, "MiB", gateway.resident_mib()?, Goal::at_most(600.0));
    gateway.stop()
}
