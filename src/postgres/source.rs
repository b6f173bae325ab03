//! Lookups on a miss: one statement, one deadline over waiting and asking, and a breaker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Execute, Executor, PgConnection};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::pool::Pool;
use super::rows::KeyColumns;
use super::{Config, PostgresError, sessions};
use crate::breaker::Breaker;
use crate::cache::{Asked, AskedSession, ClientRow, Found, Lookup, PolicyRow, Source, SourceError};
use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::policy::Mode;
use crate::model::{Client, Digest, Name, Policy, Timestamp};

/// The cache's [`Source`].
pub struct KeySource {
    pool: Arc<Pool>,
    /// Half of the pool: a flood of misses leaves the other half alone.
    seats: Semaphore,
    breaker: Mutex<Breaker>,
    deadline: Duration,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl KeySource {
    pub(super) fn new(
        config: &Config,
        pool: Arc<Pool>,
        clock: SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            seats: Semaphore::new((pool.max() as usize).div_ceil(2)),
            pool,
            breaker: Mutex::new(Breaker::new(config.breaker_failures, config.breaker_open_for.0)),
            deadline: config.lookup_deadline.0,
            clock,
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether lookups are paused, for `status`.
    pub fn breaker_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// Asks on a connection of the pool: seat, wait, question and answer under one deadline.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, PostgresError>,
    ) -> Result<T, SourceError> {
        if !self.breaker().allow(self.clock.monotonic()) {
            return Err(SourceError::BreakerOpen);
        }
        let mut seated = false;
        let asked = tokio::time::timeout(self.deadline, self.seat_and_ask(question, &mut seated));
        let answer = match asked.await {
            Err(_) => Err(SourceError::Deadline),
            Ok(Err(PostgresError::Deadline(_))) => Err(SourceError::Deadline),
            Ok(Err(error)) => Err(SourceError::Unavailable(error.to_string())),
            Ok(Ok(found)) => Ok(found),
        };
        // Whoever found no seat learnt nothing about Postgres.
        if seated {
            self.report(&answer);
        }
        answer
    }

    async fn seat_and_ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, PostgresError>,
        seated: &mut bool,
    ) -> Result<T, PostgresError> {
        let seat = self.seats.acquire().await;
        let _seat = seat.map_err(|_| PostgresError::Unavailable("shutting down".into()))?;
        *seated = true;
        let mut checkout = self.pool.acquire().await?;
        let found = question(checkout.conn()).await?;
        checkout.give_back();
        Ok(found)
    }

    fn report<T>(&self, answer: &Result<T, SourceError>) {
        let mut breaker = self.breaker();
        let was_open = breaker.is_open();
        match answer {
            Ok(_) => breaker.succeeded(),
            Err(_) => {
                breaker.failed(self.clock.monotonic());
                self.metrics.postgres.lookup_failures.inc();
            }
        }
        let is_open = breaker.is_open();
        drop(breaker);
        if was_open != is_open {
            self.metrics.postgres.breaker_open.set(i64::from(is_open));
            match answer {
                Ok(_) => tracing::info!("Postgres answers lookups again"),
                Err(error) => tracing::warn!(%error, "lookups pause"),
            }
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for KeySource {
    fn lookup(&self, digest: Digest) -> Asked<'_> {
        Box::pin(self.ask(async move |conn| look_up(conn, digest).await))
    }

    fn session(&self, id: Uuid) -> AskedSession<'_> {
        Box::pin(self.ask(async move |conn| sessions::find(conn, id).await))
    }
}

/// What is asked on a miss. One statement is one snapshot: the counter that it reads is the one
/// that its rows belong to. (`LIMIT` tells the planner what it cannot know of a table this small:
/// that there is one row.)
macro_rules! lookup {
    ($digest:expr) => {
        sqlx::query!(
            r#"
        SELECT n.revision AS "counter!", k.id AS "id?", coalesce(k.prefix, '') AS "prefix!",
               coalesce(k.last4, '') AS "last4!", coalesce(k.client_name, '') AS "client_name!",
               k.policy AS "policy?", coalesce(k.scopes, '{}') AS "scopes!",
               coalesce(k.enabled, false) AS "enabled!",
               gatepost.to_micros(k.expires_at) AS expires_at,
               coalesce(gatepost.to_micros(k.created_at), 0) AS "created_at!",
               coalesce(k.revision, 0) AS "revision!",
               c.name AS "owner?", c.policy AS "owner_policy?",
               coalesce(c.enabled, false) AS "owner_enabled!", c.mode AS "owner_mode?",
               coalesce(c.revision, 0) AS "owner_revision!",
               gatepost.to_micros(r.at) AS revoked_at,
               kp.name AS "key_policy_name?", kp.spec::text AS key_policy_spec,
               coalesce(kp.revision, 0) AS "key_policy_revision!",
               cp.name AS "client_policy_name?", cp.spec::text AS client_policy_spec,
               coalesce(cp.revision, 0) AS "client_policy_revision!"
        FROM (SELECT revision FROM gatepost.change_counter LIMIT 1) AS n
        LEFT JOIN gatepost.api_keys AS k ON k.digest = $1
        LEFT JOIN gatepost.clients AS c ON c.name = k.client_name
        LEFT JOIN gatepost.revocations AS r ON r.kind = 'key' AND r.id = k.id::text
        LEFT JOIN gatepost.policies AS kp ON kp.name = k.policy
        LEFT JOIN gatepost.policies AS cp ON cp.name = coalesce(c.policy, 'default')
        "#,
            $digest
        )
    };
}

/// Has a connection prepare what lookups ask. Costs nothing where it has.
pub(super) async fn prepare(conn: &mut PgConnection) -> Result<(), PostgresError> {
    conn.prepare(lookup!(&[][..]).sql()).await?;
    Ok(())
}

async fn look_up(conn: &mut PgConnection, digest: Digest) -> Result<Lookup, PostgresError> {
    let row = lookup!(&digest.0[..]).fetch_one(conn).await?;
    let revision = row.counter;
    let Some(id) = row.id else { return Ok(Lookup { revision, found: None }) };

    let columns = KeyColumns {
        id,
        digest: digest.0.to_vec(),
        prefix: row.prefix,
        last4: row.last4,
        client_name: row.client_name,
        policy: row.policy,
        scopes: row.scopes,
        enabled: row.enabled,
        expires_at: row.expires_at,
        created_at: row.created_at,
        revision: row.revision,
    };
    let Some(key) = columns.into_row() else { return Ok(Lookup { revision, found: None }) };
    let owner = row.owner.map(|name| Client {
        name: name.into(),
        policy: row.owner_policy.map(Name::from),
        enabled: row.owner_enabled,
    });
    let mode = row.owner_mode.as_deref().and_then(Mode::parse);
    let policies = [
        policy(row.key_policy_name, row.key_policy_spec, row.key_policy_revision),
        policy(row.client_policy_name, row.client_policy_spec, row.client_policy_revision),
    ];
    let revocation = row.revoked_at.map(|at| Revocation {
        kind: RevocationKind::Key,
        id: id.to_string().into(),
        at: Timestamp(at),
    });
    let found = Found {
        key,
        client: owner.map(|client| ClientRow { client, mode, revision: row.owner_revision }),
        policies: policies.into_iter().flatten().collect(),
        revocation,
    };
    Ok(Lookup { revision, found: Some(found) })
}

fn policy(name: Option<String>, spec: Option<String>, revision: i64) -> Option<PolicyRow> {
    Some(PolicyRow { policy: Policy { name: name?.into(), spec: spec? }, revision })
}
