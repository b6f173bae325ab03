//! A migrated database for each test, copied from a template.
//!
//! They are on the server that all tests share, or on that of `TEST_DATABASE_URL`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor, PgConnection};

use super::cluster::shared;

pub(super) const TEMPLATE: &str = "gatepost_template";

/// A migrated database that no other test uses.
pub struct Database {
    pub url: String,
    pub name: String,
    /// Set on a server that is not ours, where it must be cleaned up.
    drop_by: Option<String>,
}

impl Database {
    /// On the server that all tests share.
    pub async fn new() -> Self {
        let own = std::env::var("TEST_DATABASE_URL").ok();
        let Some(server) = own else { return shared().database().await };
        static READY: OnceLock<()> = OnceLock::new();
        READY.get_or_init(|| make_template(&server, &with_database(&server, TEMPLATE)));
        let mut made = create(&server, |name| with_database(&server, name)).await;
        made.drop_by = Some(server);
        made
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the database is there")
    }

    /// Runs statements whose answers do not matter.
    pub async fn execute(&self, sql: &'static str) {
        loop {
            match self.connect().await.execute(sqlx::raw_sql(sql)).await {
                // With what a gateway does at the same time: nothing of them was done.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01") => {}
                done => {
                    done.expect(sql);
                    return;
                }
            }
        }
    }

    /// From now on `public.wrote` has a row for each row that is written: its table, and the
    /// transaction.
    pub async fn watch(&self) {
        self.execute(WATCH).await;
    }

    /// One number.
    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.expect(sql)
    }
}

/// See [`Database::watch`].
const WATCH: &str = "\
    CREATE TABLE public.wrote (name text, transaction bigint); \
    CREATE FUNCTION public.write_down() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
      INSERT INTO public.wrote VALUES (TG_ARGV[0], txid_current()); RETURN NULL; END $$; \
    DO $$ DECLARE t text; BEGIN \
      FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'gatepost'::regnamespace \
        AND relkind IN ('r', 'p') AND NOT relispartition \
      LOOP \
        EXECUTE format('CREATE TRIGGER written AFTER INSERT OR UPDATE OR DELETE ON gatepost.%I \
          FOR EACH ROW EXECUTE FUNCTION public.write_down(%L)', t, t); \
      END LOOP; END $$";

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(server) = self.drop_by.take() {
            let sql = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name);
            aside(async move { on_server(&server, sql).await });
        }
    }
}

pub(super) async fn create(server: &str, url: impl Fn(&str) -> String) -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("gatepost_test_{}_{next}", std::process::id());
    on_server(server, format!("CREATE DATABASE \"{name}\" TEMPLATE {TEMPLATE}")).await;
    Database { url: url(&name), name, drop_by: None }
}

/// Makes the template anew; `url` leads to it.
pub(super) fn make_template(server: &str, url: &str) {
    let (server, url) = (server.to_owned(), url.to_owned());
    aside(async move {
        on_server(&server, format!("DROP DATABASE IF EXISTS {TEMPLATE}")).await;
        on_server(&server, format!("CREATE DATABASE {TEMPLATE}")).await;
        super::postgres::at(&url).migrate().await.expect("the migrations apply");
    });
}

async fn on_server(server: &str, sql: String) {
    let mut conn = PgConnection::connect(server).await.expect("the test server is there");
    conn.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.expect("the server obeys");
}

/// Runs to the end on a thread of its own, from within any runtime or none.
fn aside(work: impl Future<Output = ()> + Send + 'static) {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work);
    };
    std::thread::spawn(run).join().expect("the work was done");
}

fn with_database(server: &str, name: &str) -> String {
    let (before, options) = server.split_once('?').unwrap_or((server, ""));
    let host = before.rsplit_once('/').filter(|(host, _)| !host.ends_with('/'));
    let host = host.map_or(before, |(host, _)| host);
    format!("{host}/{name}?{options}")
}
