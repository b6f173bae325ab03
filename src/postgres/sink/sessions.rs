//! Sessions: each as far as it has come, by the laws of [`Session::merge`].

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::model::Session;
use crate::postgres::rows::bigint;

/// One row for each session, in the order of their ids, so that two writers never wait for each
/// other in a circle.
pub(super) async fn write(
    conn: &mut PgConnection,
    sessions: &BTreeMap<Uuid, Session>,
) -> Result<(), sqlx::Error> {
    if sessions.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(
        sessions: &'a BTreeMap<Uuid, Session>,
        of: impl Fn(&'a Session) -> T,
    ) -> Vec<T> {
        sessions.values().map(of).collect()
    }
    let ids: Vec<Uuid> = sessions.keys().copied().collect();
    let nodes = column(sessions, |s| &*s.node);
    let subjects = column(sessions, |s| &*s.subject);
    let clients = column(sessions, |s| &*s.client);
    // Arrays of arrays cannot be unnested. No scope holds a space.
    let scopes = column(sessions, |s| s.scopes.join(" "));
    let generations = column(sessions, |s| bigint(s.advance.generation));
    let advanced = column(sessions, |s| s.advance.at.0);
    let revoked = column(sessions, |s| s.revoked_at.map(|at| at.0));
    let recovered = column(sessions, |s| s.recovered_at.map(|at| at.0));
    let expires = column(sessions, |s| s.expires_at.0);
    let created = column(sessions, |s| s.created_at.0);
    sqlx::query!(
        r#"
        INSERT INTO gatepost.sessions AS s (id, node_id, subject, client_name, scopes, generation,
                                            advanced_at, revoked_at, recovered_at, expires_at,
                                            created_at)
        SELECT u.id, u.node, u.subject, u.client, string_to_array(u.scopes, ' '), u.generation,
               gatepost.from_micros(u.advanced), gatepost.from_micros(u.revoked),
               gatepost.from_micros(u.recovered), gatepost.from_micros(u.expires),
               gatepost.from_micros(u.created)
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                    $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
          AS u (id, node, subject, client, scopes, generation, advanced, revoked, recovered,
                expires, created)
        ORDER BY u.id
        ON CONFLICT (id) DO UPDATE SET
          generation = greatest(s.generation, excluded.generation),
          advanced_at = CASE
            WHEN s.generation = excluded.generation
              THEN greatest(s.advanced_at, excluded.advanced_at)
            WHEN s.generation > excluded.generation THEN s.advanced_at
            ELSE excluded.advanced_at END,
          revoked_at = least(s.revoked_at, excluded.revoked_at),
          recovered_at = least(s.recovered_at, excluded.recovered_at)
        WHERE (s.generation, s.advanced_at) < (excluded.generation, excluded.advanced_at)
           OR coalesce(excluded.revoked_at < s.revoked_at, excluded.revoked_at IS NOT NULL
                                                           AND s.revoked_at IS NULL)
           OR coalesce(excluded.recovered_at < s.recovered_at, excluded.recovered_at IS NOT NULL
                                                               AND s.recovered_at IS NULL)
        "#,
        &ids,
        &nodes as _,
        &subjects as _,
        &clients as _,
        &scopes,
        &generations,
        &advanced,
        &revoked as _,
        &recovered as _,
        &expires,
        &created
    )
    .execute(conn)
    .await?;
    Ok(())
}
