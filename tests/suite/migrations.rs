//! The schema: applied once by whoever comes first, and told apart from older and newer ones.

use gatepost::model::fact::Lane;
use gatepost::postgres::sink::Batch;
use gatepost::postgres::{Config, MigrationState, PostgresError};
use sqlx::Connection;

use crate::support::cluster::shared;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::postgres::{at, config, id, range, sink, usage, with};

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let db = Database::new().await;
    let postgres = at(&db.url);
    assert_eq!(postgres.migrations().await.unwrap(), MigrationState::Current);
    postgres.migrate().await.unwrap();
    assert_eq!(db.number("SELECT revision FROM gatepost.change_counter").await, 0);
}

#[tokio::test]
async fn several_may_migrate_an_empty_database_at_once() {
    let db = Database::new().await;
    db.execute("DROP SCHEMA gatepost CASCADE").await;
    let postgres = at(&db.url);
    assert!(matches!(postgres.migrations().await.unwrap(), MigrationState::Pending(4..)));
    let others = [at(&db.url), at(&db.url)];
    let all = tokio::join!(postgres.migrate(), others[0].migrate(), others[1].migrate());
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok(), "{all:?}");
    assert_eq!(postgres.migrations().await.unwrap(), MigrationState::Current);
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let db = Database::new().await;
    db.execute(
        "INSERT INTO gatepost.schema_migrations (version, description, success, checksum, \
         execution_time) VALUES (9999, 'from the future', true, '', 0)",
    )
    .await;
    let postgres = at(&db.url);
    assert_eq!(postgres.migrations().await.unwrap(), MigrationState::Newer(9999));
    let error = postgres.migrate().await.unwrap_err();
    assert!(matches!(error, PostgresError::Newer(9999)), "{error}");
    assert!(error.to_string().contains("upgrade gatepost"), "{error}");
}

#[tokio::test]
async fn an_altered_migration_is_refused() {
    let db = Database::new().await;
    db.execute("UPDATE gatepost.schema_migrations SET checksum = 'x' WHERE version = 2").await;
    let postgres = at(&db.url);
    assert_eq!(postgres.migrations().await.unwrap(), MigrationState::Altered(2));
    assert!(matches!(postgres.migrate().await, Err(PostgresError::Altered(2))));
}

#[tokio::test]
async fn a_database_without_the_schema_says_what_to_do() {
    let db = Database::new().await;
    db.execute("DROP SCHEMA gatepost CASCADE").await;
    let error = at(&db.url).directory().set_client_enabled("acme", false).await.unwrap_err();
    assert!(error.to_string().contains("run `gatepost migrate`"), "{error}");
}

#[tokio::test]
async fn an_unreachable_postgres_is_unavailable_and_needed_by_nobody_at_start() {
    let url = shared().url("postgres");
    let proxy = FaultProxy::new(&url);
    proxy.set(Fault::Cut);
    let postgres = at(&proxy.url(&url));
    let error = postgres.migrate().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(postgres.directory().ping().await.is_err());
}

#[tokio::test]
async fn both_ways_to_the_server_work() {
    let url = shared().socket_url("postgres");
    let direct = with(Config { direct_url: config(&url).url, ..config(&shared().url("postgres")) });
    direct.directory().ping().await.unwrap();
    assert!(direct.migrations().await.is_ok());
    assert_eq!(direct.directory().max_connections().await.unwrap(), 200);
    assert!(!direct.directory().server_version().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_million_keys_are_one_revision() {
    // A thousand here: what is tested is that a statement takes the counter once.
    let db = Database::new().await;
    db.execute(
        "INSERT INTO gatepost.api_keys (digest, client_name) \
         SELECT sha256(i::text::bytea), 'acme' FROM generate_series(1, 1000) AS i",
    )
    .await;
    assert_eq!(db.number("SELECT revision FROM gatepost.change_counter").await, 1);
    let same = "SELECT count(*) FROM gatepost.api_keys WHERE revision = 1";
    assert_eq!(db.number(same).await, 1000);
}

#[tokio::test]
async fn writers_in_opposite_order_queue_instead_of_deadlocking() {
    let db = Database::new().await;
    db.execute("INSERT INTO gatepost.policies VALUES ('a', '{}'), ('b', '{}')").await;
    let (mut one, mut two) = (db.connect().await, db.connect().await);
    let update = "UPDATE gatepost.policies SET spec = '{}' WHERE name = $1";

    let mut first = one.begin().await.unwrap();
    sqlx::query(update).bind("a").execute(&mut *first).await.unwrap();
    let second = tokio::spawn(async move {
        let mut second = two.begin().await?;
        sqlx::query(update).bind("b").execute(&mut *second).await?;
        sqlx::query(update).bind("a").execute(&mut *second).await?;
        second.commit().await
    });
    // Wait until the second writer stands in the queue: only then the order is the dangerous one.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock'";
    while db.number(waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    sqlx::query(update).bind("b").execute(&mut *first).await.unwrap();
    first.commit().await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(db.number("SELECT revision FROM gatepost.change_counter").await, 3);
}

#[tokio::test]
async fn a_rolled_back_savepoint_takes_its_revision_with_it() {
    let db = Database::new().await;
    db.execute(
        "BEGIN; SAVEPOINT s; INSERT INTO gatepost.clients (name) VALUES ('a'); \
         ROLLBACK TO s; INSERT INTO gatepost.clients (name) VALUES ('b'); COMMIT",
    )
    .await;
    let stamped = "SELECT revision FROM gatepost.clients WHERE name = 'b'";
    assert_eq!(db.number(stamped).await, 1);
    assert_eq!(db.number("SELECT count(*) FROM gatepost.change_log").await, 2);
}

#[tokio::test]
async fn a_foreign_writer_needs_rights_on_its_own_table_only() {
    let db = Database::new().await;
    db.execute(
        "CREATE ROLE portal; GRANT USAGE ON SCHEMA gatepost TO portal; \
         GRANT INSERT, DELETE, SELECT ON gatepost.clients TO portal; SET ROLE portal; \
         INSERT INTO gatepost.clients (name) VALUES ('acme'); DELETE FROM gatepost.clients; \
         RESET ROLE; DROP OWNED BY portal; DROP ROLE portal",
    )
    .await;
    assert_eq!(db.number("SELECT count(*) FROM gatepost.change_log WHERE revision = 1").await, 2);
}

#[tokio::test]
async fn usage_never_takes_the_change_counter() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let stream = id(1);
    let batch = Batch {
        ranges: vec![range(stream, Lane::Usage, 0, 1)],
        usage: vec![usage("acme", 1, "orders", 3)],
        ..Default::default()
    };
    sink.apply(&batch).await.unwrap();
    assert_eq!(db.number("SELECT revision FROM gatepost.change_counter").await, 0);
}

#[tokio::test]
async fn hours_and_events_of_any_age_find_a_partition() {
    let db = Database::new().await;
    db.execute(
        "INSERT INTO gatepost.hourly_totals (hour, key_id, client_name, table_name, operation, \
         node_id) SELECT h, gen_random_uuid(), 'acme', '', 'access', 'gw-1' \
         FROM unnest(ARRAY['1970-01-01', now(), now() + interval '5 months', '2999-01-01'] \
         ::timestamptz[]) AS h",
    )
    .await;
    // The month that the default partition has rows of stays there.
    assert_eq!(db.number("SELECT gatepost.ensure_partitions(6)::bigint").await, 4 * 6 - 1);
    assert_eq!(db.number("SELECT count(*) FROM gatepost.usage_hourly").await, 4);
    assert_eq!(db.number("SELECT count(*) FROM gatepost.hourly_totals_default").await, 3);
}
