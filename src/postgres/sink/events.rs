//! Events: each is written once, by its id.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{made_at, rows_in};
use crate::model::fact::{AdmissionEvent, AuditEntry, AuthAttempt, Event, Happened, RequestLine};
use crate::postgres::rows::bigint;

pub(super) async fn write_audit(
    conn: &mut PgConnection,
    node: &str,
    events: &[AuditEntry],
) -> Result<u64, sqlx::Error> {
    if events.is_empty() {
        return Ok(0);
    }
    let mut events: Vec<&AuditEntry> = events.iter().collect();
    events.sort_by_key(|event| event.event_id);
    let ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    let at: Vec<i64> = ids.iter().map(|id| made_at(*id).0).collect();
    let actors: Vec<&str> = events.iter().map(|event| &*event.actor).collect();
    let actions: Vec<&str> = events.iter().map(|event| &*event.action).collect();
    let subjects: Vec<&str> = events.iter().map(|event| &*event.subject).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.audit_log (event_id, at, node_id, actor, action, subject)
        SELECT u.id, gatepost.from_micros(u.at), $6, u.actor, u.action, u.subject
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[])
          AS u (id, at, actor, action, subject)
        ORDER BY u.id
        ON CONFLICT (event_id, at) DO NOTHING
        "#,
        &ids,
        &at,
        &actors as _,
        &actions as _,
        &subjects as _,
        node
    )
    .execute(conn)
    .await?;
    Ok(rows_in(events.len()))
}

/// What happened, each kind into its table.
pub(super) async fn write_happened(
    conn: &mut PgConnection,
    node: &str,
    events: &[Event],
) -> Result<u64, sqlx::Error> {
    let (mut attempts, mut admissions, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        let (id, at) = (event.event_id, made_at(event.event_id).0);
        match &event.what {
            Happened::AuthAttempt(attempt) => attempts.push((id, at, attempt)),
            Happened::Admission(admission) => admissions.push((id, at, admission)),
            Happened::Request(line) => requests.push((id, at, line)),
        }
    }
    attempts.sort_by_key(|event| event.0);
    admissions.sort_by_key(|event| event.0);
    requests.sort_by_key(|event| event.0);
    write_attempts(&mut *conn, node, &attempts).await?;
    write_admissions(&mut *conn, node, &admissions).await?;
    write_requests(conn, node, &requests).await?;
    Ok(rows_in(events.len()))
}

type Rows<'a, T> = [(Uuid, i64, &'a T)];

fn ids<T>(rows: &Rows<'_, T>) -> (Vec<Uuid>, Vec<i64>) {
    rows.iter().map(|(id, at, _)| (*id, *at)).unzip()
}

async fn write_attempts(
    conn: &mut PgConnection,
    node: &str,
    rows: &Rows<'_, AuthAttempt>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let (ids, at) = ids(rows);
    let of = || rows.iter().map(|(_, _, attempt)| *attempt);
    let clients: Vec<Option<&str>> = of().map(|attempt| attempt.client.as_deref()).collect();
    let keys: Vec<Option<Uuid>> = of().map(|attempt| attempt.key_id).collect();
    let addresses: Vec<Option<String>> = of().map(|a| a.ip.map(|ip| ip.to_string())).collect();
    let codes: Vec<&str> = of().map(|attempt| &*attempt.code).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.auth_attempts
          (event_id, at, node_id, client_name, key_id, client_ip, code)
        SELECT u.id, gatepost.from_micros(u.at), $7, u.client, u.key_id, u.ip::inet, u.code
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::text[])
          AS u (id, at, client, key_id, ip, code)
        ORDER BY u.id
        ON CONFLICT (event_id, at) DO NOTHING
        "#,
        &ids,
        &at,
        &clients as _,
        &keys as &[Option<Uuid>],
        &addresses as &[Option<String>],
        &codes as _,
        node
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_admissions(
    conn: &mut PgConnection,
    node: &str,
    rows: &Rows<'_, AdmissionEvent>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let (ids, at) = ids(rows);
    let of = || rows.iter().map(|(_, _, event)| *event);
    let clients: Vec<&str> = of().map(|event| &*event.client).collect();
    let keys: Vec<Option<Uuid>> = of().map(|event| event.key_id).collect();
    let policies: Vec<Option<&str>> = of().map(|event| event.policy.as_deref()).collect();
    let codes: Vec<&str> = of().map(|event| &*event.code).collect();
    let observed: Vec<bool> = of().map(|event| event.observed).collect();
    let limits: Vec<Option<&str>> = of().map(|event| event.limit.as_deref()).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.admission_events
          (event_id, at, node_id, client_name, key_id, policy, code, observed, limit_name)
        SELECT u.id, gatepost.from_micros(u.at), $9, u.client, u.key_id, u.policy, u.code,
               u.observed, u.limited
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::text[],
                    $7::boolean[], $8::text[])
          AS u (id, at, client, key_id, policy, code, observed, limited)
        ORDER BY u.id
        ON CONFLICT (event_id, at) DO NOTHING
        "#,
        &ids,
        &at,
        &clients as _,
        &keys as &[Option<Uuid>],
        &policies as _,
        &codes as _,
        &observed,
        &limits as _,
        node
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_requests(
    conn: &mut PgConnection,
    node: &str,
    rows: &Rows<'_, RequestLine>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let (ids, at) = ids(rows);
    let of = || rows.iter().map(|(_, _, line)| *line);
    let requests: Vec<&str> = of().map(|line| &*line.request_id).collect();
    let clients: Vec<&str> = of().map(|line| &*line.client).collect();
    let keys: Vec<Option<Uuid>> = of().map(|line| line.key_id).collect();
    let methods: Vec<&str> = of().map(|line| &*line.method).collect();
    let hosts: Vec<&str> = of().map(|line| &*line.host).collect();
    let paths: Vec<&str> = of().map(|line| &*line.path).collect();
    let statuses: Vec<i32> = of().map(|line| i32::from(line.status)).collect();
    let bytes_in: Vec<i64> = of().map(|line| bigint(line.bytes_in)).collect();
    let bytes_out: Vec<i64> = of().map(|line| bigint(line.bytes_out)).collect();
    let durations: Vec<i64> = of().map(|line| bigint(line.duration_us)).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.request_log (event_id, at, node_id, request_id, client_name, key_id,
          method, host, path, status, bytes_in, bytes_out, duration_us)
        SELECT u.id, gatepost.from_micros(u.at), $13, u.request_id, u.client, u.key_id, u.method,
               u.host, u.path, u.status, u.bytes_in, u.bytes_out, u.duration_us
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[],
                    $7::text[], $8::text[], $9::integer[], $10::bigint[], $11::bigint[],
                    $12::bigint[])
          AS u (id, at, request_id, client, key_id, method, host, path, status, bytes_in, bytes_out,
                duration_us)
        ORDER BY u.id
        ON CONFLICT (event_id, at) DO NOTHING
        "#,
        &ids,
        &at,
        &requests as _,
        &clients as _,
        &keys as &[Option<Uuid>],
        &methods as _,
        &hosts as _,
        &paths as _,
        &statuses,
        &bytes_in,
        &bytes_out,
        &durations,
        node
    )
    .execute(conn)
    .await?;
    Ok(())
}
