//! What is measured, scenario by scenario.

mod crowd;
mod drain;
mod feed;
mod field;
mod hot;
mod journal_speed;
mod long_outage;
mod million;
mod outage;
mod policies;
mod proxy;
mod refresh;
mod strangers;
mod volume;

use anyhow::Result;

use crate::effort::Effort;
use crate::report::Report;

/// One scenario.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it is run when none is named.
    pub canonical: bool,
    pub run: fn(Effort, &mut Report) -> Result<()>,
}

const fn canonical(
    name: &'static str,
    run: fn(Effort, &mut Report) -> Result<()>,
    about: &'static str,
) -> Scenario {
    Scenario { name, about, canonical: true, run }
}

const fn by_name(
    name: &'static str,
    run: fn(Effort, &mut Report) -> Result<()>,
    about: &'static str,
) -> Scenario {
    Scenario { name, about, canonical: false, run }
}

/// All of them, in the order in which they are run.
pub const ALL: &[Scenario] = &[
    canonical("hot", hot::random, "forward-auth, 100,000 keys at random, beside all rivals"),
    canonical("hot_key", hot::one, "forward-auth, one key on all connections, beside all rivals"),
    canonical(
        "failure",
        hot::failure,
        "one hot client, against a lookup and an upsert per request",
    ),
    canonical("verify", hot::verify, "POST /v1/keys/verify, against a handler that does nothing"),
    canonical("policies", policies::run, "a full policy against none, and one key under it"),
    canonical("small", proxy::small, "small proxied requests, beside nginx and HAProxy"),
    canonical("large", proxy::large, "1 MiB answers streamed, beside nginx and HAProxy"),
    canonical("websocket", proxy::websocket, "WebSocket echo, beside nginx and HAProxy"),
    canonical("refresh", refresh::throughput, "refresh tokens, against FOR UPDATE on a pool"),
    canonical("misses", strangers::storm, "10,000 unknown keys while an empty gateway joins"),
    canonical("flood", strangers::flood, "good callers beside a flood of well-formed junk"),
    canonical(
        "outage",
        outage::run,
        "Postgres stopped, frozen, out of reach, and back, under load",
    ),
    canonical("slow_disk", crowd::slow_disk, "every sync takes 50 ms longer, both modes"),
    canonical("feed", feed::run, "from a COMMIT in Postgres to the first decision by it"),
    canonical("drain", drain::run, "journal to Postgres, beside psql that brings the same"),
    canonical("gateways", crowd::gateways, "8 gateways on one Postgres, the same counters"),
    canonical("wrk", hot::checked, "wrk as a cross-check of the client here"),
    canonical("million", million::run, "1,000,000 keys: fill, memory, start with Postgres stopped"),
    canonical("idle", proxy::idle, "memory with many idle connections"),
    canonical("slow", proxy::slow, "a good client beside many that never finish their head"),
    canonical("body", proxy::body, "memory while 1 GiB goes down, and up"),
    by_name("million_limits", policies::million, "1,000,000 keys, each with a live limit: memory"),
    by_name(
        "refresh_schedule",
        refresh::scheduled,
        "refreshes while Postgres is up, frozen, locked",
    ),
    by_name("million_sessions", refresh::million, "1,000,000 sessions: fill, memory, start"),
    by_name(
        "long_outage",
        long_outage::run,
        "50,000,000 counts on 10,000 counters by the log alone, and settling",
    ),
    by_name("journal_interval", journal_speed::interval, "the log alone, nobody waits"),
    by_name("journal_before_reply", journal_speed::before_reply, "the log alone, everybody waits"),
    by_name("volume", volume::run, "what steady loads write to the disk"),
];
