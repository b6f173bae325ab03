//! State facts: idempotent, applied whatever the ledger says.
//!
//! The four tables of truth take the change counter with every statement, also with one that
//! changes nothing. So each write is preceded by a question which rows are missing: a batch that is
//! applied again moves nothing, and gateways are not woken for it.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{rows_in, sessions};
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::{Client, Key, Session, Timestamp};

/// Clients, keys and revocations, each by its law. Returns how many rows were sent.
pub(super) async fn write(
    conn: &mut PgConnection,
    facts: &[StateFact],
) -> Result<u64, sqlx::Error> {
    let mut clients: BTreeMap<&str, &Client> = BTreeMap::new();
    let mut keys: BTreeMap<Uuid, &Key> = BTreeMap::new();
    let mut revocations = Revocations::new();
    let mut sessions: BTreeMap<Uuid, Session> = BTreeMap::new();
    for fact in facts {
        match fact {
            StateFact::ClientCreated(client) => {
                clients.entry(&client.name).or_insert(client);
            }
            StateFact::KeyCreated(key) => {
                keys.entry(key.id).or_insert(key);
            }
            StateFact::Revoked(Revocation { kind, id, at }) => {
                let known = revocations.entry((*kind, id)).or_insert(*at);
                *known = kind.merge(*known, *at);
            }
            StateFact::Session(session) => {
                let merged = sessions.entry(session.id).or_insert_with(|| session.clone());
                merged.merge(session);
            }
        }
    }
    write_clients(conn, &mut clients).await?;
    write_keys(conn, &mut keys).await?;
    write_revocations(conn, &mut revocations).await?;
    sessions::write(conn, &sessions).await?;
    Ok(rows_in(clients.len() + keys.len() + revocations.len() + sessions.len()))
}

async fn write_clients(
    conn: &mut PgConnection,
    clients: &mut BTreeMap<&str, &Client>,
) -> Result<(), sqlx::Error> {
    if clients.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = clients.keys().copied().collect();
    let known = sqlx::query_scalar!(
        r#"SELECT name AS "name!: String" FROM gatepost.clients WHERE name = ANY($1::text[])"#,
        &names as _
    );
    let known: HashSet<String> = known.fetch_all(&mut *conn).await?.into_iter().collect();
    clients.retain(|name, _| !known.contains(*name));
    if clients.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = clients.keys().copied().collect();
    let policies: Vec<Option<&str>> = clients.values().map(|c| c.policy.as_deref()).collect();
    let enabled: Vec<bool> = clients.values().map(|client| client.enabled).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.clients (name, policy, enabled)
        SELECT u.name, u.policy, u.enabled
        FROM unnest($1::text[], $2::text[], $3::bool[]) AS u (name, policy, enabled)
        ORDER BY u.name COLLATE "C"
        ON CONFLICT (name) DO NOTHING
        "#,
        &names as _,
        &policies as _,
        &enabled
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_keys(
    conn: &mut PgConnection,
    keys: &mut BTreeMap<Uuid, &Key>,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = keys.keys().copied().collect();
    let known = sqlx::query_scalar!("SELECT id FROM gatepost.api_keys WHERE id = ANY($1)", &ids);
    for id in known.fetch_all(&mut *conn).await? {
        keys.remove(&id);
    }
    // Arrays of arrays cannot be unnested, so keys go singly: they are made by hand, a few at once.
    for key in keys.values() {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| &**scope).collect();
        sqlx::query!(
            r#"
            INSERT INTO gatepost.api_keys (id, digest, prefix, last4, client_name, policy, scopes,
                                           enabled, expires_at, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, gatepost.from_micros($9),
                    gatepost.from_micros($10))
            ON CONFLICT (id) DO NOTHING
            "#,
            key.id,
            &key.digest.0[..],
            key.prefix,
            key.last4,
            &*key.client,
            key.policy.as_deref(),
            &scopes as _,
            key.enabled,
            key.expires_at.map(|at| at.0),
            key.created_at.0
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

async fn write_revocations(
    conn: &mut PgConnection,
    revocations: &mut Revocations<'_>,
) -> Result<(), sqlx::Error> {
    if revocations.is_empty() {
        return Ok(());
    }
    let (kinds, ids, at) = columns(revocations);
    // Those that stand there already, and say as much.
    let known = sqlx::query!(
        r#"
        SELECT r.kind, r.id FROM gatepost.revocations AS r
        JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS u (kind, id, at)
          ON r.kind = u.kind AND r.id = u.id
             AND CASE WHEN r.kind = 'key' THEN r.at <= gatepost.from_micros(u.at)
                      ELSE r.at >= gatepost.from_micros(u.at) END
        "#,
        &kinds as _,
        &ids as _,
        &at
    );
    for row in known.fetch_all(&mut *conn).await? {
        revocations.retain(|(kind, id), _| (kind.as_str(), *id) != (&*row.kind, &*row.id));
    }
    if revocations.is_empty() {
        return Ok(());
    }
    let (kinds, ids, at) = columns(revocations);
    sqlx::query!(
        r#"
        INSERT INTO gatepost.revocations AS r (kind, id, at)
        SELECT u.kind, u.id, gatepost.from_micros(u.at)
        FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (kind, id, at)
        ORDER BY u.kind COLLATE "C", u.id COLLATE "C"
        ON CONFLICT (kind, id) DO UPDATE SET
          at = CASE WHEN r.kind = 'key' THEN least(r.at, excluded.at)
                    ELSE greatest(r.at, excluded.at) END
        WHERE r.at <> excluded.at AND (r.kind = 'key') = (r.at > excluded.at)
        "#,
        &kinds as _,
        &ids as _,
        &at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Moments by kind and id.
type Revocations<'a> = BTreeMap<(RevocationKind, &'a str), Timestamp>;

fn columns<'a>(revocations: &Revocations<'a>) -> (Vec<&'static str>, Vec<&'a str>, Vec<i64>) {
    let (kinds, ids) = revocations.keys().map(|(kind, id)| (kind.as_str(), *id)).unzip();
    (kinds, ids, revocations.values().map(|at| at.0).collect())
}
