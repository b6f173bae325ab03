//! What a configuration must keep to beyond its types. Every message names the key.

use std::collections::HashSet;
use std::time::Duration;

use super::{Config, Problem};
use crate::journal::{Commit, OnFull};
use crate::model::network::mapped;
use crate::model::policy::{PolicySpec, check_scope};
use crate::model::units::Span;
use crate::model::{
    DEFAULT_POLICY, Digest, NAME_MAX, SCOPES_BYTES_MAX, SCOPES_MAX, are_scopes, is_name,
};
use crate::postgres::DatabaseUrl;
use crate::server::{RouteError, RouteTable};

/// The most that a crash of the machine may cost, whatever is configured.
const JOURNAL_INTERVAL_MAX: Span = Span::secs(10);
/// Distinct counters that one drain transaction may carry.
const BATCH_ROWS_MAX: usize = 100_000;
/// A node's name stands in every row that it drains.
const NODE_MAX: usize = 64;

/// The upstream that `server.echo` brings with it.
const ECHO: &str = "echo";

/// Everything that is wrong. `origin` tells which file or variable set a key.
pub(super) fn problems(config: &Config, origin: impl Fn(&str) -> String) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    listeners(config, &mut found);
    cache(config, &mut found);
    journal(config, &mut found);
    found.at_least_one(config.admission.max_buckets, "admission.max_buckets");
    found.at_least_one(config.admission.max_quotas, "admission.max_quotas");
    let share = (0.0..=1.0).contains(&config.events.requests);
    found.unless(share, "events.requests", "must lie between 0 and 1");
    drain(config, &mut found);
    spans(config, cfg!(feature = "otlp"), &mut found);
    routing(config, &mut found);
    declared(config, &mut found);
    let problems = found.0.into_iter();
    problems.map(|(key, message)| Problem { origin: origin(&key), key, message }).collect()
}

struct Found(Vec<(String, String)>);

impl Found {
    fn unless(&mut self, holds: bool, key: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.0.push((key.into(), message.into()));
        }
    }

    /// Whether anything is wrong in the list `list`.
    fn about(&self, list: &str) -> bool {
        self.0.iter().any(|(key, _)| key.starts_with(list))
    }

    fn positive(&mut self, span: Span, key: &str) {
        self.unless(span.0 > Duration::ZERO, key, "must be more than zero");
    }

    fn at_least_one(&mut self, count: usize, key: &str) {
        self.unless(count > 0, key, "must be at least 1");
    }

    fn name(&mut self, name: &str, key: impl Into<String>) {
        let rule = format!("must have 1 to {NAME_MAX} bytes and no control characters");
        self.unless(is_name(name), key, rule);
    }

    /// Checks that the names are names, and each is there once.
    fn names<'a>(&mut self, names: impl Iterator<Item = &'a str>, list: &str) {
        let mut seen = HashSet::new();
        for (at, name) in names.enumerate() {
            self.name(name, format!("{list}[{at}].name"));
            let twice = format!("`{name}` is declared twice");
            self.unless(seen.insert(name), format!("{list}[{at}].name"), twice);
        }
    }
}

fn listeners(config: &Config, found: &mut Found) {
    let admin = &config.admin;
    found.unless(
        admin.listen.ip().is_loopback() || admin.allow_remote,
        "admin.listen",
        format!(
            "{} is not a loopback address, and the admin plane has no TLS; listen on 127.0.0.1, or \
             set `admin.allow_remote = true` behind a network that you trust",
            admin.listen
        ),
    );
    found.unless(
        admin.listen != config.server.listen || admin.listen.port() == 0,
        "admin.listen",
        "is the same as server.listen; give each its own port",
    );
    for (at, network) in config.server.trusted_proxies.iter().enumerate() {
        if let Some(plain) = mapped(network) {
            let rule =
                format!("{network} maps IPv4 addresses, and would match none; write {plain}");
            found.unless(false, format!("server.trusted_proxies[{at}]"), rule);
        }
    }
    if let Err(error) = config.server.check() {
        found.unless(false, "server", error.to_string());
    }
    if let Err(error) = config.tokens.check() {
        found.unless(false, "tokens", error.to_string());
    }
    if let Some(node) = &config.data.node {
        let rule = format!("must have 1 to {NODE_MAX} bytes and no control characters");
        found.unless(is_name(node) && node.len() <= NODE_MAX, "data.node", rule);
    }
    found.unless(!config.data.dir.as_os_str().is_empty(), "data.dir", "must not be empty");
    let filter = config.log.filter.parse::<tracing_subscriber::EnvFilter>();
    if let Err(error) = filter {
        let hint = format!("{error}; write it like \"info\" or \"warn,gatepost=debug\"");
        found.unless(false, "log.filter", hint);
    }
    let bounded = (1..=1_000_000).contains(&config.log.waiting);
    found.unless(bounded, "log.waiting", "must lie between 1 and 1000000");
}

fn cache(config: &Config, found: &mut Found) {
    let cache = &config.cache;
    found.at_least_one(cache.hot_entries, "cache.hot_entries");
    found.positive(cache.max_stale, "cache.max_stale");
    found.at_least_one(cache.absent_entries, "cache.absent_entries");
    found.positive(cache.absent_for, "cache.absent_for");
    found.positive(cache.miss_deadline, "cache.miss_deadline");
    found.at_least_one(cache.max_waiting, "cache.max_waiting");
    let share = (0.0..=1.0).contains(&cache.max_removed_share);
    found.unless(share, "cache.max_removed_share", "must lie between 0 and 1");
}

fn journal(config: &Config, found: &mut Found) {
    let journal = &config.journal;
    found.positive(journal.interval, "journal.interval");
    let rule = format!("must be at most {JOURNAL_INTERVAL_MAX}; a crash loses as much");
    found.unless(journal.interval <= JOURNAL_INTERVAL_MAX, "journal.interval", rule);
    found.positive(journal.segment_max_age, "journal.segment_max_age");
    found.at_least_one(journal.max_pending, "journal.max_pending");
    found.unless(
        journal.segment_max_bytes.0 > 0,
        "journal.segment_max_bytes",
        "must be more than zero",
    );
    let some = journal.events_max_bytes.0 > 0;
    found.unless(some, "journal.events_max_bytes", "must be more than zero");
    found.unless(
        journal.segment_max_bytes <= journal.max_bytes,
        "journal.segment_max_bytes",
        format!(
            "{} is more than journal.max_bytes ({}); a segment must fit into the journal",
            journal.segment_max_bytes, journal.max_bytes
        ),
    );
    found.unless(
        journal.commit == Commit::Interval || journal.on_full == OnFull::Reject,
        "journal.on_full",
        "`drop_and_count` contradicts `commit = \"before_reply\"`; use `reject`",
    );
}

fn drain(config: &Config, found: &mut Found) {
    found.positive(config.drain.interval, "drain.interval");
    found.positive(config.drain.deadline, "drain.deadline");
    let rows = (1..=BATCH_ROWS_MAX).contains(&config.drain.batch_rows);
    let rule = format!("must lie between 1 and {BATCH_ROWS_MAX}");
    found.unless(rows, "drain.batch_rows", rule);
    if let Some(postgres) = &config.postgres {
        let hint = "missing; set it or DATABASE_URL, or remove [postgres] to run embedded";
        found.unless(postgres.url.is_some(), "postgres.url", hint);
        let urls = [("postgres.url", &postgres.url), ("postgres.direct_url", &postgres.direct_url)];
        for (key, url) in urls {
            if let Some(Err(error)) = url.as_ref().map(DatabaseUrl::check) {
                found.unless(false, key, error.to_string());
            }
        }
        let count = usize::try_from(postgres.auth_pool_max).unwrap_or(usize::MAX);
        found.at_least_one(count, "postgres.auth_pool_max");
    }
}

fn spans(config: &Config, can_export: bool, found: &mut Found) {
    let Some(otlp) = &config.otlp else { return };
    let rule = "this program was built without it; build one with `cargo build --release \
                --features otlp`, or remove [otlp]";
    found.unless(can_export, "otlp", rule);
    if let Err(error) = otlp.check() {
        found.unless(false, format!("otlp.{}", error.key), error.rule);
    }
}

fn routing(config: &Config, found: &mut Found) {
    let upstreams = config.upstreams.iter().map(|upstream| upstream.name.as_str());
    found.names(upstreams.clone(), "upstreams");
    // The built-in echo can be routed to like any other.
    let upstreams = upstreams.chain(config.server.echo.then_some(ECHO));
    for (at, upstream) in config.upstreams.iter().enumerate() {
        let key = format!("upstreams[{at}].targets");
        found.unless(!upstream.targets.is_empty(), key, "must name at least one URL");
    }
    for (at, route) in config.routes.iter().enumerate() {
        found.unless(
            route.path.starts_with('/'),
            format!("routes[{at}].path"),
            format!("`{}` must start with `/`", route.path),
        );
        found.unless(
            upstreams.clone().any(|name| name == route.upstream),
            format!("routes[{at}].upstream"),
            missing("upstream", &route.upstream, upstreams.clone()),
        );
    }
    // Only then: it would repeat in other words what is known to be wrong.
    if !found.about("upstreams") && !found.about("routes") {
        let table = RouteTable::build(&config.upstreams, &config.routes, config.server.echo);
        if let Err(error) = table {
            let upstream = matches!(error, RouteError::Upstream(_) | RouteError::TwoUpstreams(_));
            let key = if upstream { "upstreams" } else { "routes" };
            found.unless(false, key, error.to_string());
        }
    }
}

fn declared(config: &Config, found: &mut Found) {
    let clients = config.clients.iter().map(|client| client.name.as_str());
    let policies = config.policies.iter().map(|policy| policy.name.as_str());
    found.names(clients.clone(), "clients");
    found.names(policies.clone(), "policies");
    for (at, policy) in config.policies.iter().enumerate() {
        let spec = serde_json::Value::Object(policy.spec.clone()).to_string();
        for problem in PolicySpec::parse(&spec).err().into_iter().flatten() {
            let dot = if problem.field.is_empty() { "" } else { "." };
            let key = format!("policies[{at}]{dot}{}", problem.field);
            found.unless(false, key, problem.message);
        }
    }
    // With a Postgres, a policy may be stored there.
    let policy = |found: &mut Found, named: Option<&str>, key: String| {
        let Some(named) = named else { return };
        found.name(named, key.as_str());
        let there = config.postgres.is_some()
            || named == DEFAULT_POLICY
            || policies.clone().any(|name| name == named);
        found.unless(there, key, missing("policy", named, policies.clone()));
    };
    for (at, client) in config.clients.iter().enumerate() {
        policy(found, client.policy.as_deref(), format!("clients[{at}].policy"));
    }
    let mut digests = HashSet::new();
    for (at, key) in config.keys.iter().enumerate() {
        policy(found, key.policy.as_deref(), format!("keys[{at}].policy"));
        let place = format!("keys[{at}].client");
        let there = clients.clone().any(|name| name == key.client);
        found.unless(there, place, missing("client", &key.client, clients.clone()));

        let place = format!("keys[{at}].digest");
        let digest = Digest::from_hex(&key.digest);
        let rule = "must be the SHA-256 of the whole key as 64 hexadecimal digits \
                    (printf %s \"$KEY\" | sha256sum)";
        found.unless(digest.is_some(), place.as_str(), rule);
        let once = digest.is_none_or(|digest| digests.insert(digest));
        found.unless(once, place, "is declared twice");

        let rule = format!(
            "at most {SCOPES_MAX} names without whitespace, with {SCOPES_BYTES_MAX} bytes in all"
        );
        found.unless(are_scopes(&key.scopes), format!("keys[{at}].scopes"), rule);
        for (nth, scope) in key.scopes.iter().enumerate() {
            if let Err(error) = check_scope(scope) {
                found.unless(false, format!("keys[{at}].scopes[{nth}]"), error.for_a_scope());
            }
        }
    }
}

/// "There is no …", with what there is.
fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known = known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let known =
        if known.is_empty() { "none is declared".into() } else { format!("known: {known}") };
    format!("there is no {what} named `{name}` ({known})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_export_refuses_the_section() {
        let config = Config { otlp: Some(crate::otlp::Config::default()), ..Config::default() };
        for (can_export, wrong) in [(true, 0), (false, 1)] {
            let mut found = Found(Vec::new());
            spans(&config, can_export, &mut found);
            assert_eq!(found.0.len(), wrong);
            assert!(found.0.iter().all(|(_, said)| said.contains("--features otlp")));
        }
    }
}
