//! API keys: known ones, and strings that only look like them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use gatepost::clock::SystemClock;
use gatepost::entropy::{Entropy, SeededEntropy, SystemEntropy};
use gatepost::journal::{self, Journal};
use gatepost::metrics::Metrics;
use gatepost::model::api_key::{ApiKey, SEED_BYTES};
use gatepost::model::fact::StateFact;
use gatepost::model::{Client, Key, Timestamp};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// The length of `gp_live_` and what follows.
pub const KEY_LEN: usize = 44;
/// Keys of the throughput scenarios.
pub const KEYS: usize = 100_000;
/// Texts of keys.
pub type Keys = Arc<[[u8; KEY_LEN]]>;

/// The keys are spread over so many clients.
const CLIENTS: usize = 100;
/// Rows of one `INSERT`.
const PAGE: usize = 50_000;

/// The texts of the keys with the numbers below `count`.
pub fn texts(count: usize) -> Keys {
    numbered(0..count)
}

/// The texts of the keys with these numbers.
pub fn numbered(numbers: Range<usize>) -> Keys {
    numbers
        .map(|number| {
            let key = make(number);
            let text = key.reveal().as_bytes();
            text.try_into().expect("the environment is `live`")
        })
        .collect()
}

fn make(number: usize) -> ApiKey {
    let entropy = SeededEntropy::new((number as u64).wrapping_mul(0x2545_F491_4F6C_DD1D));
    let mut seed = [0; SEED_BYTES];
    loop {
        entropy.fill(&mut seed);
        if let Some(key) = ApiKey::make("live", &seed) {
            return key;
        }
    }
}

fn client_of(number: usize) -> String {
    format!("client-{}", number % CLIENTS)
}

fn id_of(number: usize) -> Uuid {
    let random = (number as u128).to_be_bytes();
    let random = random[6..].try_into().expect("ten bytes");
    uuid::Builder::from_unix_timestamp_millis(1_700_000_000_000, &random).into_uuid()
}

/// Leaves the keys below `count` in the journal of a gateway that has not started yet, as if they
/// had been created on it.
pub fn into_journal(data: &Path, count: usize) -> Result<()> {
    let clock = Arc::new(SystemClock::new());
    let entropy = Arc::new(SystemEntropy::new());
    let metrics = Arc::new(Metrics::new());
    let (journal, _) = Journal::open(data, journal::Config::default(), clock, entropy, metrics)?;
    let clients = (0..CLIENTS).map(|number| {
        let name = client_of(number).into();
        StateFact::ClientCreated(Client { name, policy: None, enabled: true })
    });
    let keys = (0..count).map(|number| StateFact::KeyCreated(key(number)));
    journal.append(clients.chain(keys).collect()).context("the journal takes them")?;
    Ok(journal.shutdown()?)
}

fn key(number: usize) -> Key {
    let key = make(number);
    Key {
        id: id_of(number),
        digest: key.digest(),
        prefix: key.prefix().into(),
        last4: key.last4().into(),
        client: client_of(number).into(),
        policy: None,
        scopes: Vec::new(),
        enabled: true,
        expires_at: None,
        created_at: Timestamp(1_700_000_000_000_000),
    }
}

/// Inserts the keys below `count`, page by page; all of one client where `client` names it.
pub async fn into_postgres(url: &str, count: usize, client: Option<&str>) -> Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    let mut from = 0;
    while from < count {
        let numbers = from..(from + PAGE).min(count);
        from = numbers.end;
        let ids: Vec<Uuid> = numbers.clone().map(id_of).collect();
        let digests: Vec<Vec<u8>> =
            numbers.clone().map(|number| make(number).digest().0.to_vec()).collect();
        let clients: Vec<String> =
            numbers.map(|number| client.map_or_else(|| client_of(number), Into::into)).collect();
        sqlx::query(
            "INSERT INTO gatepost.clients (name) SELECT DISTINCT unnest($1::text[]) \
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(&clients)
        .execute(&mut conn)
        .await?;
        sqlx::query(
            "INSERT INTO gatepost.api_keys (id, digest, prefix, last4, client_name) \
             SELECT id, digest, 'gp_live_', '0000', client \
             FROM unnest($1::uuid[], $2::bytea[], $3::text[]) AS given (id, digest, client)",
        )
        .bind(ids)
        .bind(digests)
        .bind(clients)
        .execute(&mut conn)
        .await?;
    }
    Ok(conn.close().await?)
}
