//! The room `postgres`, made for a test, and facts to feed it with.

use std::sync::Arc;
use std::time::Duration;

use gatepost::clock::SystemClock;
use gatepost::entropy::SeededEntropy;
use gatepost::metrics::Metrics;
use gatepost::model::fact::{
    Counter, Counts, Lane, QuotaFact, QuotaKey, Revocation, RevocationKind, StateFact, UsageFact,
};
use gatepost::model::{Client, Digest, Key, Timestamp, api_key};
use gatepost::postgres::sink::StreamRange;
use gatepost::postgres::{Config, DatabaseUrl, Postgres, Sink};
use uuid::Uuid;

/// A configuration that leads to `url`.
pub fn config(url: &str) -> Config {
    Config { url: Some(DatabaseUrl::new(url)), ..Config::default() }
}

/// The room with default settings.
pub fn at(url: &str) -> Postgres {
    with(config(url))
}

pub fn with(config: Config) -> Postgres {
    let entropy = Arc::new(SeededEntropy::new(7));
    let clock = Arc::new(SystemClock::new());
    Postgres::new(config, clock, entropy, Arc::new(Metrics::new())).expect("the URL is good")
}

pub fn sink(url: &str, node: &str) -> Sink {
    at(url).sink(node.into(), Duration::from_secs(20))
}

/// An id that is the same in every run.
pub fn id(number: u128) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(
        1_700_000_000_000,
        &number.to_be_bytes()[6..].try_into().expect("ten bytes"),
    )
    .into_uuid()
}

pub fn range(stream: Uuid, lane: Lane, from: u64, to: u64) -> StreamRange {
    StreamRange { stream, lane, from, to, closed: None }
}

pub fn digest(key: &str) -> Digest {
    api_key::digest(key)
}

pub fn client(name: &str) -> Client {
    Client { name: name.into(), policy: None, enabled: true }
}

/// A key whose text is `text`.
pub fn key(number: u128, text: &str, client: &str) -> Key {
    Key {
        id: id(number),
        digest: digest(text),
        prefix: "gp_live_".into(),
        last4: "0000".into(),
        client: client.into(),
        policy: None,
        scopes: vec!["orders.read".into()],
        enabled: true,
        expires_at: None,
        created_at: Timestamp(1_700_000_000_000_000),
    }
}

pub fn revoked(id: Uuid, at: Timestamp) -> StateFact {
    let id = id.to_string().into();
    StateFact::Revoked(Revocation { kind: RevocationKind::Key, id, at })
}

/// `requests` successful requests of one counter.
pub fn usage(client: &str, key: u128, table: &str, requests: u64) -> UsageFact {
    let counter = Counter {
        client: client.into(),
        key_id: id(key),
        table: table.into(),
        operation: "read".into(),
        hour: 472_222,
    };
    let last_seen = Timestamp(1_700_000_000_000_000);
    UsageFact {
        counter,
        counts: Counts { requests, succeeded: requests, last_seen, ..Counts::ZERO },
    }
}

/// What was used of a quota by `scope`, in a period that is not over.
pub fn quota(scope: &str, used: u64) -> QuotaFact {
    let key = QuotaKey {
        quota: "default/yearly".into(),
        scope: scope.into(),
        period: Timestamp(1_700_000_000_000_000),
        until: Timestamp(4_000_000_000_000_000),
    };
    QuotaFact { key, used }
}
