//! Sessions that stand in Postgres, and the tokens that go with them.

use std::sync::Arc;

use anyhow::Result;
use gatepost::clock::{Clock, SystemClock};
use gatepost::entropy::{SharedEntropy, SystemEntropy};
use gatepost::tokens::{Config, KeySet, Keys};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Rows of one `INSERT`.
const PAGE: usize = 50_000;

/// The keys of a deployment, which the gateway gets handed too.
pub struct Deployment {
    pub document: SecretString,
    keys: Keys,
}

impl Deployment {
    pub fn new() -> Result<Self> {
        let entropy: SharedEntropy = Arc::new(SystemEntropy::new());
        let now = SystemClock::new().now();
        let document = KeySet::generate(&entropy, now).to_json();
        let config = Config { keys: Some(document.clone()), ..Config::default() };
        let keys = Keys::open(std::path::Path::new("."), &config, &entropy, now)?;
        Ok(Self { document, keys })
    }

    /// The first refresh token of a session.
    pub fn token(&self, number: usize) -> String {
        let now = SystemClock::new().now();
        self.keys.mint(id_of(number), 0, now).expose_secret().to_owned()
    }

    /// The key set's document.
    pub fn document(&self) -> &str {
        self.document.expose_secret()
    }
}

pub fn id_of(number: usize) -> Uuid {
    let random = (number as u128).to_be_bytes();
    let random = random[6..].try_into().expect("ten bytes");
    uuid::Builder::from_unix_timestamp_millis(1_700_000_000_000, &random).into_uuid()
}

/// Inserts the sessions below `count` of the gateway `bench`, and the client that they are for.
pub async fn into_postgres(url: &str, count: usize) -> Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    sqlx::query("INSERT INTO gatepost.clients (name) VALUES ('web') ON CONFLICT DO NOTHING")
        .execute(&mut conn)
        .await?;
    let mut from = 0;
    while from < count {
        let numbers = from..(from + PAGE).min(count);
        from = numbers.end;
        let ids: Vec<Uuid> = numbers.map(id_of).collect();
        sqlx::query(
            "INSERT INTO gatepost.sessions (id, node_id, subject, client_name, scopes, expires_at) \
             SELECT id, 'bench', 'user-' || n, 'web', '{orders.read}', now() + interval '30 days' \
             FROM unnest($1::uuid[]) WITH ORDINALITY AS given (id, n)",
        )
        .bind(ids)
        .execute(&mut conn)
        .await?;
    }
    Ok(conn.close().await?)
}
