//! What happened to requests, as it is told in Postgres: once, of a sample, and never at the cost
//! of a request. And how long it is kept.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::http::Method;
use gatepost::model::api_key::{ApiKey, SEED_BYTES};
use gatepost::model::units::Span;
use gatepost::postgres::Retention;
use sqlx::{Executor, Row};

use crate::support::database::Database;
use crate::support::gateway::{Gateway, Made, until};
use crate::support::postgres::at;

const QUICK: &str = "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n";

async fn rows(db: &Database, sql: &'static str) -> Vec<String> {
    let rows = sqlx::query(sql).fetch_all(&mut db.connect().await).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn refusals_denials_and_requests_are_told_once() {
    let db = Database::new().await;
    let settings = format!(
        "{QUICK}[events]\nrequests = 1.0\n[[routes]]\npath = \"/rest/v1/{{table}}\"\n\
         upstream = \"echo\"\n[[policies]]\nname = \"default\"\nrate_limits = [\n\
         {{ name = \"few\", limit = 2, window = \"1h\", per = \"key\" }}]\n\
         [[policies]]\nname = \"watched\"\nmode = \"observe\"\nrights = []\n"
    );
    let mut gateway = Gateway::new(Some(&db.url), &settings);
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let key = gateway.create_key("acme").await;
    let args = ["key", "create", "--client", "acme", "--policy", "watched"];
    let watched = gateway.run(&args).await.json();
    let watched = watched["key"].as_str().unwrap();
    let bearer = format!("Bearer {}", key.key);
    for _ in 0..2 {
        let headers = [("authorization", &*bearer), ("x-request-id", "mine")];
        let path = "/rest/v1/orders?secret=1";
        let asked = gateway.http().ask(Method::POST, path, &headers, "12345").await;
        assert_eq!(asked.unwrap().status, 200);
    }
    assert_eq!(gateway.http().verdict(&key.key).await.0, 429);
    assert_eq!(gateway.http().verdict(watched).await.0, 200);
    let other = if key.key.ends_with('x') { 'y' } else { 'x' };
    let unknown = format!("{}{other}", &key.key[..key.key.len() - 1]);
    assert_eq!(gateway.http().verdict(&unknown).await.0, 401);
    gateway.revoke(&key).await;
    assert_eq!(gateway.http().verdict(&key.key).await.0, 401);
    gateway.drain().await;
    gateway.kill9();
    gateway.start_ready().await;
    gateway.drain().await;

    let attempts = "SELECT concat_ws(' ', code, coalesce(client_name, '-'), host(client_ip), \
        node_id <> '') \
                    FROM gatepost.auth_attempts ORDER BY code";
    let loopback = ["invalid_credential - 127.0.0.1 t", "key_revoked acme 127.0.0.1 t"];
    assert_eq!(rows(&db, attempts).await, loopback);
    let events = "SELECT concat_ws(' ', code, client_name, policy, observed, \
        coalesce(limit_name, '-')) \
                  FROM gatepost.admission_events ORDER BY code";
    let denials = ["insufficient_scope acme watched t -", "rate_limited acme default f few"];
    assert_eq!(rows(&db, events).await, denials);
    let lines = "SELECT concat_ws(' ', request_id, client_name, method, path, status, bytes_in, \
                 bytes_out > 0, duration_us > 0) FROM gatepost.request_log";
    let line = "mine acme POST /rest/v1/orders 200 5 t t";
    assert_eq!(rows(&db, lines).await, [line, line], "without the query");
}

#[tokio::test]
async fn requests_are_told_of_a_sample_and_no_kind_that_is_switched_off() {
    let db = Database::new().await;
    let kinds = async || {
        [
            db.number("SELECT count(*) FROM gatepost.auth_attempts").await,
            db.number("SELECT count(*) FROM gatepost.admission_events").await,
            db.number("SELECT count(*) FROM gatepost.request_log").await,
        ]
    };
    let routed = "[[routes]]\npath = \"/rest/v1/{table}\"\nupstream = \"echo\"\n\
                  [[clients]]\nname = \"acme\"\n[[policies]]\nname = \"shut\"\nrights = []\n";
    let all = async |events: &str| {
        let mut gateway = Gateway::new(Some(&db.url), &format!("{QUICK}{events}{routed}"));
        gateway.start_ready().await;
        let (open, gone) = (gateway.create_key("acme").await, gateway.create_key("acme").await);
        let args = ["key", "create", "--client", "acme", "--policy", "shut"];
        let shut = Made::of(&gateway.run(&args).await.json());
        gateway.revoke(&gone).await;
        assert_eq!(gateway.http().verdict(&gone.key).await.0, 401);
        assert_eq!(gateway.http().verdict(&shut.key).await.0, 403);
        let bearer = format!("Bearer {}", open.key);
        for _ in 0..200 {
            let headers = [("authorization", &*bearer)];
            let asked = gateway.http().ask(Method::GET, "/rest/v1/orders", &headers, "").await;
            assert_eq!(asked.unwrap().status, 200);
        }
        // The last of them may be told a moment after its answer.
        gateway.terminate().await;
        gateway.start_ready().await;
        gateway.drain().await;
        gateway.terminate().await;
        kinds().await
    };
    let [_, _, half] =
        all("[events]\nauth_attempts = false\nadmissions = false\nrequests = 0.5\n").await;
    // Not once in a million million runs is it otherwise.
    assert!((50..=150).contains(&half), "{half} of 200");
    assert_eq!(kinds().await, [0, 0, half]);
    assert_eq!(all("").await, [1, 1, half], "none of them where nothing is said");
}

#[tokio::test]
async fn at_saturation_events_are_dropped_and_counted_and_no_request_waits() {
    // The journal has room for state and sums, and is full for what yields.
    let mut gateway = Gateway::new(
        None,
        "[journal]\nevents_max_bytes = \"64KiB\"\nmax_bytes = \"16MiB\"\nretention = \"1h\"\n\
         [[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\nrights = []\n\
         [[policies]]\nname = \"open\"\n",
    );
    let before = Instant::now();
    gateway.start().await;
    let key = gateway.create_key("acme").await;
    let args = ["key", "create", "--client", "acme", "--policy", "open"];
    let open = Made::of(&gateway.run(&args).await.json());
    let full = OnceLock::new();
    until("events are dropped for long enough to be warned about again", || async {
        for _ in 0..50 {
            assert_eq!(gateway.http().verdict(&key.key).await.0, 403);
        }
        assert_eq!(gateway.http().verdict(&open.key).await.0, 200);
        let status = gateway.control(Method::GET, "/status", "").await.unwrap().json();
        let dropped = status["journal"]["events_dropped"]["admission"].as_u64().unwrap();
        dropped > 100 && full.get_or_init(Instant::now).elapsed() > Duration::from_secs(2)
    })
    .await;
    let metrics = gateway.admin().get("/metrics").await.body;
    let counted = "gatepost_journal_events_dropped_total{kind=\"admission\"}";
    assert!(metrics.contains(counted), "{metrics}");
    let warned = gateway.said().matches("events are dropped").count() as u64;
    let seconds = before.elapsed().as_secs();
    assert!((2..=seconds + 1).contains(&warned), "{warned} times in {seconds} s");
}

/// Whoever looks up a key, and an operator, hold the only connection of each pool, and wait for
/// somebody's lock.
#[tokio::test]
async fn events_take_no_connection_but_the_drains() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(
        Some(&db.url),
        "[postgres]\nauth_pool_max = 1\nadmin_pool_max = 1\nlookup_deadline = \"60s\"\n\
         query_deadline = \"60s\"\n[cache]\nmiss_deadline = \"60s\"\n\
         [drain]\ninterval = \"100ms\"\n[events]\nrequests = 1.0\n[[policies]]\nname = \"shut\"\n\
         rights = []\n[[routes]]\npath = \"/rest/v1/{table}\"\nupstream = \"echo\"\n",
    );
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let open = gateway.create_key("acme").await;
    let args = ["key", "create", "--client", "acme", "--policy", "shut"];
    let shut = Made::of(&gateway.run(&args).await.json());
    let gone = gateway.create_key("acme").await;
    gateway.revoke(&gone).await;
    gateway.drain().await;
    db.watch().await;
    let mut lock = db.connect().await;
    lock.execute("BEGIN").await.unwrap();
    let taken = "LOCK TABLE gatepost.api_keys, gatepost.policies IN ACCESS EXCLUSIVE MODE";
    lock.execute(taken).await.unwrap();

    let stranger = ApiKey::make("live", &[7; SEED_BYTES]).expect("usable bytes");
    let dry = r#"{"policies":[{"name":"other"}],"dry_run":true}"#;
    let mut held = std::pin::pin!(async {
        let apply = gateway.control(Method::POST, "/policies/apply", dry);
        tokio::join!(gateway.http().verdict(stranger.reveal()), apply)
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'gatepost' AND wait_event_type = 'Lock'";
    const OF_EACH: i64 = 20;
    let bearer = format!("Bearer {}", open.key);
    let told = async {
        until("both pools are empty", || async { db.number(waiting).await >= 2 }).await;
        for _ in 0..OF_EACH {
            assert_eq!(gateway.http().verdict(&gone.key).await.0, 401);
            assert_eq!(gateway.http().verdict(&shut.key).await.0, 403);
            let headers = [("authorization", &*bearer)];
            let asked = gateway.http().ask(Method::GET, "/rest/v1/orders", &headers, "").await;
            assert_eq!(asked.unwrap().status, 200);
        }
        for written in [
            "SELECT count(*) FROM public.wrote WHERE name = 'auth_attempts'",
            "SELECT count(*) FROM public.wrote WHERE name = 'admission_events'",
            "SELECT count(*) FROM public.wrote WHERE name = 'request_log'",
        ] {
            until(written, || async { db.number(written).await == OF_EACH }).await;
        }
    };
    tokio::select! {
        answers = &mut held => panic!("nobody holds the pools: {answers:?}"),
        () = told => {}
    }
    // Nor did they open one: all are in transactions that the ledger is in.
    let elsewhere = "SELECT count(*) FROM public.wrote AS event \
        WHERE name IN ('auth_attempts', 'admission_events', 'request_log') AND NOT EXISTS \
        (SELECT FROM public.wrote AS ledger WHERE ledger.name = 'stream_ledger' \
         AND ledger.transaction = event.transaction)";
    assert_eq!(db.number(elsewhere).await, 0);
    lock.execute("ROLLBACK").await.unwrap();
    let (verdict, applied) = held.await;
    assert_eq!(verdict, (401, "invalid_credential".to_owned()));
    assert_eq!(applied.map(|answer| answer.status), Some(200));
}

/// Partitions of a month that is long over.
const OLD_MONTH: &str = "
    CREATE TABLE gatepost.hourly_totals_2020_01 PARTITION OF gatepost.hourly_totals
      FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');
    CREATE TABLE gatepost.request_log_2020_01 PARTITION OF gatepost.request_log
      FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');";

/// The real program does both by itself.
#[tokio::test]
async fn months_are_made_ahead_and_dropped_by_setting() {
    let db = Database::new().await;
    db.execute(OLD_MONTH).await;
    db.execute(
        "         DO $$ DECLARE t text; BEGIN \
           FOR t IN SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON oid = inhrelid \
             WHERE relname ~ '_[0-9]{4}_[0-9]{2}$' AND relname !~ '_2020_01$' \
           LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$",
    )
    .await;
    let mut gateway = Gateway::new(
        Some(&db.url),
        "[postgres]\nconnect_timeout = \"10s\"\n\
         [retention]\nevents = \"90d\"\nhourly = \"0s\"\n",
    );
    gateway.start().await;
    let old = "SELECT count(*) FROM pg_class WHERE relname = 'request_log_2020_01'";
    until("what is old goes", || async { db.number(old).await == 0 }).await;
    let kept = "SELECT count(*) FROM pg_class WHERE relname = 'hourly_totals_2020_01'";
    assert_eq!(db.number(kept).await, 1, "for ever");
    // Of hours, of four kinds of events, and of letters: each has this month and two more.
    let ahead = "SELECT min(months) FROM (SELECT count(child.oid) AS months \
        FROM pg_class AS parent LEFT JOIN pg_inherits ON inhparent = parent.oid \
        LEFT JOIN pg_class AS child ON child.oid = inhrelid AND right(child.relname, 7) IN \
          (SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month', \
           'YYYY_MM') FROM generate_series(0, 2) AS n) \
        WHERE parent.relkind = 'p' AND parent.relnamespace = 'gatepost'::regnamespace \
        GROUP BY parent.oid) AS each";
    until("there are months ahead", || async { db.number(ahead).await == 3 }).await;
}

#[tokio::test]
async fn what_is_old_goes_by_the_month_and_totals_stay() {
    let db = Database::new().await;
    db.execute(OLD_MONTH).await;
    db.execute(
        "         INSERT INTO gatepost.hourly_totals \
           (hour, key_id, client_name, table_name, operation, node_id) \
           SELECT m, gen_random_uuid(), 'acme', '', 'access', 'gw' \
           FROM unnest('{2020-01-05Z,2020-03-05Z}'::timestamptz[]) AS m UNION ALL \
           SELECT now(), gen_random_uuid(), 'acme', '', 'access', 'gw'; \
         INSERT INTO gatepost.client_totals (client_name, node_id, total_requests) \
           VALUES ('acme', 'gw', 3); \
         INSERT INTO gatepost.auth_attempts (event_id, at, node_id, code) \
           SELECT gen_random_uuid(), m, 'gw', 'x' \
           FROM unnest('{2020-01-05Z,2021-03-05Z}'::timestamptz[]) AS m UNION ALL \
           SELECT gen_random_uuid(), now(), 'gw', 'x';",
    )
    .await;
    let directory = at(&db.url).directory();
    let day = |days: u64| Span::secs(days * 24 * 3600);
    let keep = |events, hourly| Retention { events: day(events), hourly: day(hourly) };
    let count = async |table: &'static str| db.number(table).await;
    let hours = "SELECT count(*) FROM gatepost.usage_hourly";
    let attempts = "SELECT count(*) FROM gatepost.auth_attempts";
    assert_eq!(directory.keep_partitions(&keep(0, 0)).await.unwrap(), 0, "zero keeps for ever");
    assert_eq!((count(hours).await, count(attempts).await), (3, 3));
    // A partition of hours, and a row from where no partition was; nothing of the events.
    assert_eq!(directory.keep_partitions(&keep(0, 400)).await.unwrap(), 2);
    assert_eq!((count(hours).await, count(attempts).await), (1, 3));
    assert_eq!(directory.keep_partitions(&keep(90, 400)).await.unwrap(), 3);
    assert_eq!((count(hours).await, count(attempts).await), (1, 1));
    let total = "SELECT total_requests FROM gatepost.client_statistics";
    assert_eq!(db.number(total).await, 3, "lifetime totals stay");
    let ahead = "SELECT count(*) FROM pg_class WHERE relname = 'request_log_' || \
                 to_char((now() + interval '1 month') AT TIME ZONE 'UTC', 'YYYY_MM')";
    assert_eq!(db.number(ahead).await, 1, "next month's is there");
}
