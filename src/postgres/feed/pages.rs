//! The questions of a catch-up, page by page: rows above a revision, by `(revision, id)`.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::cache::{Change, ClientRow, Deleted, PolicyRow};
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::policy::Mode;
use crate::model::{Client, Name, Policy, Timestamp};
use crate::postgres::PostgresError;
use crate::postgres::rows::KeyColumns;

/// Rows in one page.
const PAGE: i64 = 10_000;

/// A page and the place to go on from; the place is `None` after the last one.
pub(super) type Page<C> = (Vec<Change>, Option<C>);

/// What `change` makes of the rows; a full page has a next one, beyond the `place` of its last row.
fn page<R, C>(
    rows: Vec<R>,
    place: impl Fn(&R) -> C,
    change: impl FnMut(R) -> Option<Change>,
) -> Page<C> {
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE);
    let next = rows.last().filter(|_| full).map(place);
    (rows.into_iter().filter_map(change).collect(), next)
}

pub(super) async fn policies(
    conn: &mut PgConnection,
    (revision, name): (i64, String),
) -> Result<Page<(i64, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT name AS "name!: String", spec::text AS "spec!", revision FROM gatepost.policies
        WHERE (revision, name) > ($1, $2::text) ORDER BY revision, name LIMIT $3
        "#,
        revision,
        name,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    Ok(page(
        rows,
        |row| (row.revision, row.name.clone()),
        |row| {
            let policy = Policy { name: row.name.into(), spec: row.spec };
            Some(Change::Policy(PolicyRow { policy, revision: row.revision }))
        },
    ))
}

pub(super) async fn clients(
    conn: &mut PgConnection,
    (revision, name): (i64, String),
) -> Result<Page<(i64, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT name AS "name!: String", policy AS "policy?: String", enabled, mode, revision
        FROM gatepost.clients
        WHERE (revision, name) > ($1, $2::text) ORDER BY revision, name LIMIT $3
        "#,
        revision,
        name,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    Ok(page(
        rows,
        |row| (row.revision, row.name.clone()),
        |row| {
            let policy = row.policy.map(Name::from);
            let client = Client { name: row.name.into(), policy, enabled: row.enabled };
            let mode = row.mode.as_deref().and_then(Mode::parse);
            Some(Change::Client(ClientRow { client, mode, revision: row.revision }))
        },
    ))
}

pub(super) async fn revocations(
    conn: &mut PgConnection,
    (revision, kind, id): (i64, String, String),
) -> Result<Page<(i64, String, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT kind, id, gatepost.to_micros(at) AS "at!", revision FROM gatepost.revocations
        WHERE (revision, kind, id) > ($1, $2, $3) ORDER BY revision, kind, id LIMIT $4
        "#,
        revision,
        kind,
        id,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    Ok(page(
        rows,
        |row| (row.revision, row.kind.clone(), row.id.clone()),
        |row| {
            // A kind of a later version means nothing to this one.
            let kind = RevocationKind::parse(&row.kind)?;
            Some(Change::Revocation(Revocation { kind, id: row.id.into(), at: Timestamp(row.at) }))
        },
    ))
}

pub(super) async fn keys(
    conn: &mut PgConnection,
    (revision, id): (i64, Uuid),
) -> Result<Page<(i64, Uuid)>, PostgresError> {
    let rows = sqlx::query_as!(
        KeyColumns,
        r#"
        SELECT id, digest, prefix, last4, client_name AS "client_name!: String",
               policy AS "policy?: String", scopes, enabled,
               gatepost.to_micros(expires_at) AS expires_at,
               gatepost.to_micros(created_at) AS "created_at!", revision
        FROM gatepost.api_keys
        WHERE (revision, id) > ($1, $2) ORDER BY revision, id LIMIT $3
        "#,
        revision,
        id,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    Ok(page(rows, |row| (row.revision, row.id), |row| row.into_row().map(Change::Key)))
}

/// Rows that went away and are not back in this snapshot.
pub(super) async fn tombstones(
    conn: &mut PgConnection,
    (revision, table, id): (i64, String, String),
) -> Result<Page<(i64, String, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT l.revision, l.table_name, l.row_id,
               CASE l.table_name
                 WHEN 'clients' THEN EXISTS (SELECT FROM gatepost.clients WHERE name = l.row_id)
                 WHEN 'policies' THEN EXISTS (SELECT FROM gatepost.policies WHERE name = l.row_id)
                 WHEN 'api_keys' THEN
                   EXISTS (SELECT FROM gatepost.api_keys WHERE id = l.row_id::uuid)
                 ELSE false
               END AS "back!"
        FROM gatepost.change_log AS l
        WHERE (l.revision, l.table_name, l.row_id) > ($1, $2, $3) AND l.table_name <> ''
        ORDER BY l.revision, l.table_name, l.row_id LIMIT $4
        "#,
        revision,
        table,
        id,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    Ok(page(
        rows,
        |row| (row.revision, row.table_name.clone(), row.row_id.clone()),
        |row| {
            let gone = (!row.back).then(|| deleted(&row.table_name, &row.row_id))??;
            Some(Change::Deleted(gone))
        },
    ))
}

fn deleted(table: &str, id: &str) -> Option<Deleted> {
    match table {
        "clients" => Some(Deleted::Client(id.into())),
        "policies" => Some(Deleted::Policy(id.into())),
        "api_keys" => Uuid::parse_str(id).ok().map(Deleted::Key),
        "revocations" => {
            let (kind, id) = id.split_once('/')?;
            Some(Deleted::Revocation(RevocationKind::parse(kind)?, id.into()))
        }
        _ => None,
    }
}
