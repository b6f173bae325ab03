//! Usage: the hours as they come, and the lifetime totals summed from them. One row per key and
//! transaction, sorted: unsorted writers lose most of their batches to deadlocks.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::rows_in;
use crate::model::Timestamp;
use crate::model::fact::{Counter, Counts, UsageFact};
use crate::postgres::rows::bigint;

/// Adds every counter to its hour and to the totals of its client, table and key.
pub(super) async fn write(
    conn: &mut PgConnection,
    node: &str,
    facts: &[UsageFact],
) -> Result<u64, sqlx::Error> {
    if facts.is_empty() {
        return Ok(0);
    }
    let mut clients: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut tables: BTreeMap<(&str, &str, &str), Counts> = BTreeMap::new();
    let mut keys: BTreeMap<Uuid, Counts> = BTreeMap::new();
    for UsageFact { counter, counts } in facts {
        let table = (&*counter.client, &*counter.table, &*counter.operation);
        clients.entry(&counter.client).or_insert(Counts::ZERO).merge(counts);
        tables.entry(table).or_insert(Counts::ZERO).merge(counts);
        // What came with a session came with no key.
        if !counter.key_id.is_nil() {
            keys.entry(counter.key_id).or_insert(Counts::ZERO).merge(counts);
        }
    }
    write_clients(conn, node, &clients).await?;
    write_tables(conn, node, &tables).await?;
    write_keys(conn, node, &keys).await?;
    write_hours(conn, node, facts).await?;
    Ok(rows_in(clients.len() + tables.len() + keys.len() + facts.len()))
}

/// One column of counts.
fn column<'a>(
    counts: impl IntoIterator<Item = &'a Counts>,
    field: impl Fn(&Counts) -> u64,
) -> Vec<i64> {
    counts.into_iter().map(|counts| bigint(field(counts))).collect()
}

fn last_seen<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> Vec<i64> {
    counts.into_iter().map(|counts| counts.last_seen.0).collect()
}

async fn write_clients(
    conn: &mut PgConnection,
    node: &str,
    clients: &BTreeMap<&str, Counts>,
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = clients.keys().copied().collect();
    // A gateway whose clock is ahead must not set a moment that no later request can pass.
    sqlx::query!(
        r#"
        INSERT INTO gatepost.client_totals AS t (client_name, node_id, total_requests,
          successful_requests, failed_requests, denied_requests, last_seen_at)
        SELECT u.name, $1, u.total, u.successful, u.failed, u.denied,
               least(gatepost.from_micros(u.seen), now() + interval '5 s')
        FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                    $7::bigint[])
          AS u (name, total, successful, failed, denied, seen)
        ORDER BY u.name COLLATE "C"
        ON CONFLICT (client_name, node_id) DO UPDATE SET
          total_requests = t.total_requests + excluded.total_requests,
          successful_requests = t.successful_requests + excluded.successful_requests,
          failed_requests = t.failed_requests + excluded.failed_requests,
          denied_requests = t.denied_requests + excluded.denied_requests,
          last_seen_at = greatest(t.last_seen_at, excluded.last_seen_at)
        "#,
        node,
        &names as _,
        &column(clients.values(), |counts| counts.requests),
        &column(clients.values(), |counts| counts.succeeded),
        &column(clients.values(), |counts| counts.failed),
        &column(clients.values(), |counts| counts.denied),
        &last_seen(clients.values())
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_tables(
    conn: &mut PgConnection,
    node: &str,
    tables: &BTreeMap<(&str, &str, &str), Counts>,
) -> Result<(), sqlx::Error> {
    let clients: Vec<&str> = tables.keys().map(|key| key.0).collect();
    let names: Vec<&str> = tables.keys().map(|key| key.1).collect();
    let operations: Vec<&str> = tables.keys().map(|key| key.2).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.client_table_totals AS t (client_name, table_name, operation, node_id,
          total_operations, error_operations, last_operation_at)
        SELECT u.client, u.name, u.operation, $1, u.total, u.errors,
               least(gatepost.from_micros(u.seen), now() + interval '5 s')
        FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
          AS u (client, name, operation, total, errors, seen)
        ORDER BY u.client COLLATE "C", u.name COLLATE "C", u.operation COLLATE "C"
        ON CONFLICT (client_name, table_name, operation, node_id) DO UPDATE SET
          total_operations = t.total_operations + excluded.total_operations,
          error_operations = t.error_operations + excluded.error_operations,
          last_operation_at = greatest(t.last_operation_at, excluded.last_operation_at)
        "#,
        node,
        &clients as _,
        &names as _,
        &operations as _,
        &column(tables.values(), |counts| counts.requests),
        &column(tables.values(), |counts| counts.failed),
        &last_seen(tables.values())
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_keys(
    conn: &mut PgConnection,
    node: &str,
    keys: &BTreeMap<Uuid, Counts>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = keys.keys().copied().collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.key_totals AS t (key_id, node_id, requests, last_used_at)
        SELECT u.id, $1, u.requests, least(gatepost.from_micros(u.seen), now() + interval '5 s')
        FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS u (id, requests, seen)
        ORDER BY u.id
        ON CONFLICT (key_id, node_id) DO UPDATE SET
          requests = t.requests + excluded.requests,
          last_used_at = greatest(t.last_used_at, excluded.last_used_at)
        "#,
        node,
        &ids,
        &column(keys.values(), |counts| counts.requests),
        &last_seen(keys.values())
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_hours(
    conn: &mut PgConnection,
    node: &str,
    facts: &[UsageFact],
) -> Result<(), sqlx::Error> {
    let of_an_hour = |fact: &&UsageFact| fact.counter.hour != Counter::NO_HOUR;
    let mut facts: Vec<&UsageFact> = facts.iter().filter(of_an_hour).collect();
    facts.sort_unstable_by(|a, b| {
        let key = |fact: &UsageFact| (fact.counter.hour, fact.counter.key_id);
        key(a).cmp(&key(b)).then_with(|| a.counter.cmp(&b.counter))
    });
    let counters = || facts.iter().map(|fact| &fact.counter);
    let counts = || facts.iter().map(|fact| &fact.counts);
    let hours: Vec<i64> = counters().map(|c| Timestamp::from_hour(c.hour).0).collect();
    let keys: Vec<Uuid> = counters().map(|counter| counter.key_id).collect();
    let clients: Vec<&str> = counters().map(|counter| &*counter.client).collect();
    let tables: Vec<&str> = counters().map(|counter| &*counter.table).collect();
    let operations: Vec<&str> = counters().map(|counter| &*counter.operation).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.hourly_totals AS t (hour, key_id, client_name, table_name, operation,
          node_id, requests, succeeded, denied, errors, bytes_in, bytes_out, duration_us)
        SELECT gatepost.from_micros(u.hour), u.key_id, u.client, u.name, u.operation, $1,
               u.requests, u.succeeded, u.denied, u.errors, u.bytes_in, u.bytes_out, u.duration_us
        FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
                    $13::bigint[])
          AS u (hour, key_id, client, name, operation, requests, succeeded, denied, errors,
                bytes_in, bytes_out, duration_us)
        ORDER BY u.hour, u.key_id, u.client COLLATE "C", u.name COLLATE "C",
                 u.operation COLLATE "C"
        ON CONFLICT (hour, key_id, client_name, table_name, operation, node_id) DO UPDATE SET
          requests = t.requests + excluded.requests,
          succeeded = t.succeeded + excluded.succeeded,
          denied = t.denied + excluded.denied,
          errors = t.errors + excluded.errors,
          bytes_in = t.bytes_in + excluded.bytes_in,
          bytes_out = t.bytes_out + excluded.bytes_out,
          duration_us = t.duration_us + excluded.duration_us
        "#,
        node,
        &hours,
        &keys,
        &clients as _,
        &tables as _,
        &operations as _,
        &column(counts(), |counts| counts.requests),
        &column(counts(), |counts| counts.succeeded),
        &column(counts(), |counts| counts.denied),
        &column(counts(), |counts| counts.failed),
        &column(counts(), |counts| counts.bytes_in),
        &column(counts(), |counts| counts.bytes_out),
        &column(counts(), |counts| counts.duration_us)
    )
    .execute(conn)
    .await?;
    Ok(())
}
