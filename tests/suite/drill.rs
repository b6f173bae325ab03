//! `gatepost drill`, as anybody would run it, and whether it can fail.

mod server;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::cluster::Cluster;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::until;
use crate::support::process::signal;
use crate::support::tls::Pair;

fn drill(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.arg("drill").args(args).stdin(Stdio::null());
    command
}

async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = drill(args);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, stderr } = ran.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Databases of drills on a server.
async fn left(server: &str) -> Vec<String> {
    let sql = "SELECT datname::text FROM pg_database WHERE datname LIKE 'gatepost\\_drill\\_%'";
    let mut conn = PgConnection::connect(server).await.unwrap();
    sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap()
}

#[tokio::test]
async fn a_drill_of_twenty_seconds_loses_nothing_and_counts_nothing_twice() {
    let (code, stdout, stderr) = run(&["--seconds", "20"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout.lines().last(), Some("lost 0, counted twice 0"), "{stdout}");
    assert!(stdout.contains(" requests, 0 errors\n"), "{stdout}");
    let commits = "COMMITs lost      2 carried out and not answered, 1 not arrived\n";
    assert!(stdout.contains(commits), "{stdout}");
}

/// Under load there is always something that waits, where Postgres is further away than here.
#[tokio::test]
async fn a_server_that_is_not_near_is_no_trouble() {
    let cluster = Cluster::dedicated();
    let server = cluster.url("postgres");
    let line = FaultProxy::new(&server);
    line.set(Fault::Delay(Duration::from_millis(2)));
    let args = ["--seconds", "6", "--database-url", &line.url(&server)];
    let (code, stdout, stderr) = run(&args).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[tokio::test]
async fn on_a_server_that_is_named_it_leaves_nothing_and_tells_each_phase() {
    let cluster = Cluster::dedicated();
    let server = cluster.url("postgres");
    // What it needs and no more, and a password with every sign that means something in a URL.
    let role = "CREATE ROLE drill LOGIN CREATEDB PASSWORD 'p@s:/?#[]%25 &=+é'";
    let mut conn = PgConnection::connect(&server).await.unwrap();
    conn.execute(role).await.unwrap();
    let password = "p%40s%3A%2F%3F%23%5B%5D%2525%20%26%3D%2B%C3%A9";
    let (_, place) = server.rsplit_once('@').unwrap();
    let url = format!("postgres://drill:{password}@{place}");
    let args = ["--seconds", "10", "--output", "json", "--database-url", &url];
    let (code, stdout, stderr) = run(&args).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let phases = report["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 6);
    for phase in phases {
        assert!(phase["answered"].as_u64().unwrap() > 0, "{phase}");
        assert!(phase["p99_ms"].is_f64() && phase["errors"] == 0, "{phase}");
    }
    assert_eq!((&report["kills"], &report["counters"]), (&2.into(), &32.into()));
    assert_eq!((&report["lost"], &report["counted_twice"]), (&0.into(), &0.into()));
    let commits = (&report["commits_unanswered"], &report["commits_unsent"]);
    assert_eq!((commits, &report["tls"]), ((&2.into(), &1.into()), &false.into()));
    assert_eq!(left(&server).await, Vec::<String>::new());
}

/// A proxy sees no COMMIT under TLS, and does not say that it has lost one.
#[tokio::test]
async fn under_tls_it_says_that_no_commit_was_lost() {
    let cluster = Cluster::dedicated();
    let (pair, _) = Pair::new();
    cluster.give(&pair.cert(), "server.crt");
    cluster.give(&pair.key(), "server.key");
    let mut conn = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    for sql in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
        conn.execute(sql).await.unwrap();
    }
    let server = format!("{}?sslmode=require", cluster.url("postgres"));
    until("it speaks TLS", async || PgConnection::connect(&server).await.is_ok()).await;
    let args = ["--seconds", "5", "--output", "json", "--database-url", &server];
    let (code, stdout, stderr) = run(&args).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["tls"], &report["commits_unanswered"]), (&true.into(), &0.into()));
    assert_eq!((&report["lost"], &report["counted_twice"]), (&0.into(), &0.into()));
}

/// The comparison looks at what Postgres says: a trigger takes one request of each row and adds a
/// hundred to another, and the drill must find both.
#[tokio::test]
async fn what_postgres_miscounts_is_found() {
    let cluster = Cluster::dedicated();
    let server = cluster.url("postgres");
    let mut command = drill(&["--seconds", "6", "--output", "json", "--database-url", &server]);
    let running = tokio::task::spawn_blocking(move || command.output());
    until("it makes its database", async || left(&server).await.len() == 1).await;
    let url = cluster.url(&left(&server).await[0]);
    until("the tables are there", async || miscount(&url).await.is_ok()).await;
    let ran = running.await.unwrap().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{}", String::from_utf8_lossy(&ran.stderr));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    assert!(report["lost"].as_u64().unwrap() > 0, "{report}");
    assert!(report["counted_twice"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(left(&server).await, Vec::<String>::new());
}

async fn miscount(url: &str) -> Result<(), sqlx::Error> {
    let sql = "BEGIN;
        SELECT 1 FROM gatepost.schema_migrations WHERE version = 8;
        CREATE FUNCTION gatepost.miscount() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN
            IF NEW.operation = 'read' THEN NEW.total_operations = 0;
            ELSE NEW.total_operations = 1000000; END IF;
            RETURN NEW;
          END $$;
        CREATE TRIGGER miscount BEFORE UPDATE ON gatepost.client_table_totals
          FOR EACH ROW EXECUTE FUNCTION gatepost.miscount();
        COMMIT;";
    let mut conn = PgConnection::connect(url).await?;
    conn.execute(sqlx::raw_sql(sql)).await.map(drop)
}

#[tokio::test]
async fn an_interrupted_drill_cleans_up() {
    let cluster = Cluster::dedicated();
    let server = cluster.url("postgres");
    let mut command = drill(&["--seconds", "60", "--database-url", &server]);
    let scratch = tempfile::tempdir().unwrap();
    command.env("TMPDIR", scratch.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    until("it counts", async || {
        let Some(name) = left(&server).await.pop() else { return false };
        let counted = async {
            let mut conn = PgConnection::connect(&cluster.url(&name)).await?;
            let sql = "SELECT count(*) FROM gatepost.key_activity";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut conn).await
        };
        counted.await.is_ok_and(|counted| counted > 0)
    })
    .await;
    signal(&child, "-INT");
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends");
    assert_eq!(ended.unwrap().code(), Some(1));
    assert_eq!(left(&server).await, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "directories stay");
}

/// While there is nothing to clean up, nothing is waited for.
#[tokio::test]
async fn a_drill_whose_server_is_silent_can_be_interrupted() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://me@{}/x", server.local_addr().unwrap());
    let mut command = drill(&["--database-url", &url]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = tokio::task::spawn_blocking(move || server.accept().unwrap());
    let _silent = asked.await.unwrap();
    signal(&child, "-INT");
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let ended = ended.await.unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
}

#[tokio::test]
async fn a_role_that_may_not_make_databases_is_told_what_it_lacks() {
    let cluster = Cluster::dedicated();
    let server = cluster.url("postgres");
    let mut conn = PgConnection::connect(&server).await.unwrap();
    conn.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'").await.unwrap();
    let (_, place) = server.rsplit_once('@').unwrap();
    let (code, _, stderr) =
        run(&["--database-url", &format!("postgres://weak:weak@{place}")]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("its role needs CREATEDB: permission denied"), "{stderr}");
}

#[tokio::test]
async fn what_it_cannot_begin_with_is_told() {
    let url = "postgres://me@127.0.0.1:1/x";
    let (code, _, stderr) = run(&["--database-url", url]).await;
    assert_eq!(code, Some(69), "{stderr}");
    assert!(stderr.contains("Postgres cannot be reached"), "{stderr}");
    let (code, _, stderr) = run(&["--database-url", "mysql://x"]).await;
    assert_eq!(code, Some(2), "{stderr}");
    let (code, _, stderr) = run(&["--seconds", "4"]).await;
    assert_eq!(code, Some(2), "{stderr}");
}
