//! A database for a while: made on a server, migrated, read, and dropped. The drill counts into it,
//! so that whatever else the server holds is not touched.

use std::time::Duration;

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use uuid::Uuid;

use super::rows::count;
use super::{DatabaseUrl, PostgresError, connect, deadline, migrate, options};

/// What its name begins with; an id follows.
pub const SCRATCH_PREFIX: &str = "gatepost_drill_";

const CONNECT_MAX: Duration = Duration::from_secs(10);
const MAKE_MAX: Duration = Duration::from_secs(60);
const READ_MAX: Duration = Duration::from_secs(30);

/// See the module. What was [made](Self::make) stays until it is [removed](Self::remove).
pub struct Scratch {
    server: PgConnectOptions,
    own: PgConnectOptions,
    name: String,
}

/// What one of the views that add counts up says. What a view does not tell apart is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The view's name, without the schema.
    pub view: String,
    /// Whose requests.
    pub client: Option<String>,
    /// With which key.
    pub key: Option<Uuid>,
    /// Of which table.
    pub table: Option<String>,
    /// And what was done with it.
    pub operation: Option<String>,
    /// How many there were.
    pub requests: u64,
}

impl Scratch {
    /// A database on the server that `url` leads to, named after `id`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`PostgresError::Url`] where a proxy on this machine could not stand before that server.
    pub fn new(url: &DatabaseUrl, id: Uuid) -> Result<Self, PostgresError> {
        let server = options(url)?;
        if server.get_socket().is_some() {
            let hint = "it names a Unix socket, and the drill needs a host and a port";
            return Err(PostgresError::Url(hint.into()));
        }
        if matches!(server.get_ssl_mode(), PgSslMode::VerifyFull) {
            let hint = "the drill asks through 127.0.0.1, so sslmode=verify-full cannot hold: \
                        verify-ca can";
            return Err(PostgresError::Url(hint.into()));
        }
        let name = format!("{SCRATCH_PREFIX}{}", id.simple());
        let own = server.clone().database(&name);
        Ok(Self { server, own, name })
    }

    /// Whether the server is there and lets us in. May be broken off.
    ///
    /// # Errors
    /// When it does not.
    pub async fn reach(&self) -> Result<(), PostgresError> {
        connect(&self.server, CONNECT_MAX).await.map(drop)
    }

    /// Makes it. Must not be broken off: the server would make it all the same.
    ///
    /// # Errors
    /// [`PostgresError::Refused`] when the role may not make databases.
    pub async fn make(&self) -> Result<(), PostgresError> {
        // From the empty template: in the other one anything may have been put.
        self.on_server(format!("CREATE DATABASE {} TEMPLATE template0", self.name)).await
    }

    /// Gives it the schema of this program. May be broken off.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn migrate(&self) -> Result<(), PostgresError> {
        let mut conn = connect(&self.own, CONNECT_MAX).await?;
        deadline(MAKE_MAX, migrate::run(&mut conn)).await
    }

    /// Where its server is: host and port.
    pub fn address(&self) -> (&str, u16) {
        (self.own.get_host(), self.own.get_port())
    }

    /// Its URL through a proxy on a port of this machine. It may carry a password.
    pub fn url_through(&self, port: u16) -> SecretString {
        let through = self.own.clone().host("127.0.0.1").port(port);
        String::from(through.to_url_lossy()).into()
    }

    /// What every view that adds counts up says, in no order.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn counted(&self) -> Result<Vec<Counted>, PostgresError> {
        let mut conn = connect(&self.own, CONNECT_MAX).await?;
        let rows = sqlx::query!(
            r#"
            SELECT 'usage_hourly' AS "view!", client_name AS client, key_id AS key,
                   table_name AS "table", operation, sum(requests)::bigint AS "requests!"
            FROM gatepost.usage_hourly GROUP BY client_name, key_id, table_name, operation
            UNION ALL SELECT 'key_activity', NULL, key_id, NULL, NULL, requests
            FROM gatepost.key_activity
            UNION ALL SELECT 'client_table_statistics', client_name, NULL, table_name, operation,
                             total_operations
            FROM gatepost.client_table_statistics
            UNION ALL SELECT 'client_statistics', client_name, NULL, NULL, NULL, total_requests
            FROM gatepost.client_statistics
            "#
        );
        let read = async { Ok(rows.fetch_all(&mut conn).await?) };
        let rows = deadline(READ_MAX, read).await?;
        let counted = rows.into_iter().map(|row| Counted {
            view: row.view,
            client: row.client,
            key: row.key,
            table: row.table,
            operation: row.operation,
            requests: count(row.requests),
        });
        Ok(counted.collect())
    }

    /// Drops it, whoever is still connected.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then it stays, under its name.
    pub async fn remove(&self) -> Result<(), PostgresError> {
        self.on_server(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn on_server(&self, sql: String) -> Result<(), PostgresError> {
        let mut conn = connect(&self.server, CONNECT_MAX).await?;
        // The name is a prefix and hexadecimal digits.
        let done = conn.execute(sqlx::raw_sql(AssertSqlSafe(sql)));
        deadline(MAKE_MAX, async { Ok(done.await.map(drop)?) }).await
    }
}
