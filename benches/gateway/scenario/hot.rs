//! Forward-auth for known keys, beside everybody who could answer the same question.

use anyhow::Result;

use super::field::{Contestant, Field, embedded, rates};
use crate::effort::Effort;
use crate::load::keyed::Keyed;
use crate::product::gateway::{Gateway, Settings};
use crate::product::support::cluster::Cluster;
use crate::report::Report;
use crate::report::goal::Goal;
use crate::report::progress::progress;
use crate::report::series::{Rounds, Turn};
use crate::rivals::own::Own;
use crate::rivals::{haproxy, nginx, wrk};
use crate::stock::keys::{self, KEYS, Keys};

const BARE: &str = "bare axum";
const INTERVAL: &str = "gatepost, interval";
const BEFORE_REPLY: &str = "gatepost, before_reply";
const LUA: &str = "nginx, Lua";
const HAPROXY: &str = "HAProxy, map";
const FAILING: &str = "lookup and upsert";

const WORK: &str = "what a bare handler does not do costs half as much again as it does: more to \
    parse and to write, a digest, counting, with no place that stands out (docs/evidence.md), on \
    cores that the client needs too";
const SYNC: &str = "with few connections a commit is shared by few, and costs a sync, the log's \
    threads and a wake for each of them, on the cores that the client needs too";

/// Everybody, for the same keys.
struct Everybody {
    field: Field,
    keys: Keys,
    // Behind those who use them.
    _cluster: Cluster,
    _dir: tempfile::TempDir,
}

impl Everybody {
    fn start(report: &mut Report) -> Result<Self> {
        let (dir, keys) = (tempfile::tempdir()?, keys::texts(KEYS));
        let mut field = Field::default();
        field.add(Contestant::own(BARE, Own::bare()?));
        for (name, commit) in [(INTERVAL, "interval"), (BEFORE_REPLY, "before_reply")] {
            progress(&format!("{name} gets its keys"));
            let settings = Settings { commit: Some(commit), ..Settings::default() };
            let gateway = embedded(&dir.path().join(commit), KEYS, settings)?;
            Keyed::forward_auth(gateway.address, keys.clone()).touch(64)?;
            field.add(Contestant::gateway(name, gateway));
        }
        field.program(LUA, nginx::with_lua(&keys), report)?;
        field.program(HAPROXY, haproxy::with_map(&keys), report)?;
        progress("Postgres gets its keys");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // What is counted there must be on disk, or it would not be the failure.
        let cluster = Cluster::with_fsync(true);
        let database = runtime.block_on(cluster.database());
        runtime.block_on(keys::into_postgres(&database.url, KEYS, None))?;
        field.add(Contestant::own(FAILING, Own::upserting(&database.url)?));
        Ok(Self { field, keys, _cluster: cluster, _dir: dir })
    }

    fn turns(&self, keys: &Keys, connections: usize, effort: Effort) -> Result<Vec<Turn>> {
        let load = |one: &Contestant| Keyed::forward_auth(one.address, keys.clone());
        self.field.turns(effort.rounds, effort.closed(connections), load)
    }
}

/// Random keys.
pub fn random(effort: Effort, report: &mut Report) -> Result<()> {
    let everybody = Everybody::start(report)?;
    for connections in [64, 256] {
        let turns = everybody.turns(&everybody.keys, connections, effort)?;
        let title = format!("forward-auth, {connections} connections");
        report.contest(&title, "/s", &turns);
        let mut tell = |ours: &str, other: &str, goal: Option<Goal>| {
            let Some(rounds) = rates(&turns, ours, other) else { return };
            let figure = format!("{ours}, {connections} connections, against {other}");
            report.ratio(&figure, "/s", other, &rounds, goal);
        };
        let goal = |least| Goal::at_least(least).and_then(|goal| goal.bound_by(WORK));
        tell(INTERVAL, BARE, goal(0.90));
        tell(INTERVAL, LUA, goal(1.0));
        tell(INTERVAL, HAPROXY, None);
        // A commit is shared by all who wait: it is worth more with more of them.
        let least = if connections == 256 { 0.70 } else { 0.55 };
        tell(BEFORE_REPLY, BARE, Goal::at_least(least).and_then(|goal| goal.bound_by(SYNC)));
    }
    Ok(())
}

/// All connections with the same key.
pub fn one(effort: Effort, report: &mut Report) -> Result<()> {
    let everybody = Everybody::start(report)?;
    let turns = everybody.turns(&keys::texts(1), 64, effort)?;
    report.contest("forward-auth, one hot key, 64 connections", "/s", &turns);
    for (ours, other, goal) in [
        (INTERVAL, BARE, Goal::at_least(0.90).and_then(|goal| goal.bound_by(WORK))),
        (INTERVAL, LUA, Goal::at_least(1.0).and_then(|goal| goal.bound_by(WORK))),
        (INTERVAL, FAILING, None),
    ] {
        if let Some(rounds) = rates(&turns, ours, other) {
            report.ratio(&format!("{ours}, one key, against {other}"), "/s", other, &rounds, goal);
        }
    }
    Ok(())
}

/// The question of a service that has the key already: `POST /v1/keys/verify`.
pub fn verify(effort: Effort, report: &mut Report) -> Result<()> {
    let (dir, keys) = (tempfile::tempdir()?, keys::texts(KEYS));
    let gateway = embedded(&dir.path().join("data"), KEYS, Settings::default())?;
    Keyed::forward_auth(gateway.address, keys.clone()).touch(64)?;
    let mut field = Field::default();
    field.add(Contestant::own(BARE, Own::bare()?));
    field.add(Contestant::gateway(INTERVAL, gateway));
    let load = |one: &Contestant| Keyed::verify(one.address, keys.clone());
    let turns = field.turns(effort.rounds, effort.closed(64), load)?;
    report.contest("POST /v1/keys/verify, 64 connections", "/s", &turns);
    if let Some(rounds) = rates(&turns, INTERVAL, BARE) {
        let figure = "verify against a handler that reads nothing and says nothing";
        report.ratio(figure, "/s", BARE, &rounds, None);
    }
    Ok(())
}

/// The same measured by `wrk` and by the client here, in turns.
pub fn checked(effort: Effort, report: &mut Report) -> Result<()> {
    let (dir, keys) = (tempfile::tempdir()?, keys::texts(1));
    let gateway = embedded(&dir.path().join("data"), 1, Settings::default())?;
    let bare = Own::bare()?;
    let closed = effort.closed(64);
    let (mut client, mut theirs, mut apart) = <(Rounds, Rounds, Rounds)>::default();
    for round in 1..=effort.rounds {
        progress(&format!("round {round}/{}", effort.rounds));
        let own = |address| closed.run(&Keyed::forward_auth(address, keys.clone()))?.whole();
        let (ours, limit) = (own(gateway.address)?, own(bare.address)?);
        let wrk = |address| wrk::run(address, &keys[0], 64, effort.span);
        let (by_wrk, limit_by_wrk) = match (wrk(gateway.address), wrk(bare.address)) {
            (Ok(ours), Ok(bare)) => (ours, bare),
            (Err(error), _) | (_, Err(error)) => {
                report.note(format!("there is no cross-check; {error}"));
                return Ok(());
            }
        };
        client.push(ours.per_second, by_wrk);
        theirs.push(by_wrk, limit_by_wrk);
        apart.push(ours.per_second, limit.per_second);
    }
    report.ratio("gatepost, by the client here, against", "/s", "by wrk", &client, None);
    report.ratio("gatepost against bare axum, by wrk", "/s", BARE, &theirs, None);
    report.ratio("gatepost against bare axum, by the client here", "/s", BARE, &apart, None);
    Ok(())
}

/// The failure being fixed: a lookup and an upsert per request, all for one hot client.
pub fn failure(effort: Effort, report: &mut Report) -> Result<()> {
    /// The hot client has a few keys, as clients do.
    const HOT_KEYS: usize = 10;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = Cluster::with_fsync(true);
    let database = runtime.block_on(cluster.database());
    runtime.block_on(keys::into_postgres(&database.url, HOT_KEYS, Some("hot")))?;
    let dir = tempfile::tempdir()?;
    let gateway = Gateway::following(&dir.path().join("data"), &database.url)?;
    let mut field = Field::default();
    field.add(Contestant::own(FAILING, Own::upserting(&database.url)?));
    field.add(Contestant::gateway(INTERVAL, gateway));
    let hot = keys::texts(HOT_KEYS);
    let load = |one: &Contestant| Keyed::forward_auth(one.address, hot.clone());
    let turns = field.turns(effort.rounds, effort.closed(64), load)?;
    report.contest("one hot client, 64 connections", "/s", &turns);
    if let Some(rounds) = rates(&turns, INTERVAL, FAILING) {
        const LOOPBACK: &str = "64 callers on a Postgres without a network are its best case";
        let goal = Goal::at_least(30.0).and_then(|goal| goal.bound_by(LOOPBACK));
        let figure = "one hot client, settled into the same Postgres, against lookup and upsert";
        report.ratio(figure, "/s", FAILING, &rounds, goal);
    }
    Ok(())
}
