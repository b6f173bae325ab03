//! What the gateway is compared with, each in a process of its own: this program again, with a
//! hidden argument. Same runtime, accept loop and HTTP settings as the gateway's.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use axum_server::accept::NoDelayAcceptor;
use gatepost::model::api_key;
use gatepost::server::Config;
use hyper_util::rt::TokioTimer;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// The hidden argument.
pub const ROLE: &str = "--as-rival";

/// A rival in its process; dropping it kills it.
pub struct Rival {
    child: Child,
    pub address: SocketAddr,
}

impl Rival {
    /// A handler that answers 200 and does nothing else.
    pub fn bare() -> Result<Self> {
        Self::start(&["bare"])
    }

    /// A handler that asks Postgres for every request and counts there.
    pub fn upserting(url: &str) -> Result<Self> {
        Self::start(&["upsert", url])
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(args: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(ROLE).args(args).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its stdout")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the rival's address")? })
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The body of a rival's process.
pub fn run(args: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let router = match args {
            [role] if role == "bare" => Router::new().route("/authz/forward-auth", any(bare)),
            [role, url] if role == "upsert" => upserting(url).await?,
            _ => bail!("no such rival"),
        };
        serve(router).await
    })
}

async fn serve(router: Router) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let config = Config::default();
    let mut server = axum_server::from_tcp(listener)?.acceptor(NoDelayAcceptor::new()).http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout.0)
        .max_buf_size(usize::try_from(config.head_max.0)?);
    Ok(server.serve(router.into_make_service()).await?)
}

async fn bare() -> StatusCode {
    StatusCode::OK
}

async fn upserting(url: &str) -> Result<Router> {
    let options = PgPoolOptions::new().max_connections(10);
    let pool = options.acquire_timeout(Duration::from_secs(60)).connect(url).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS public.rival_statistics \
         (client text PRIMARY KEY, requests bigint NOT NULL, seen_at timestamptz NOT NULL)",
    )
    .execute(&pool)
    .await?;
    Ok(Router::new().route("/authz/forward-auth", any(upsert)).with_state(pool))
}

async fn upsert(State(pool): State<PgPool>, headers: HeaderMap) -> StatusCode {
    let key = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(key) = key.and_then(|value| value.strip_prefix("Bearer ")) else {
        return StatusCode::UNAUTHORIZED;
    };
    match count(&pool, key).await {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::UNAUTHORIZED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn count(pool: &PgPool, key: &str) -> Result<bool, sqlx::Error> {
    let digest = api_key::digest(key).0;
    let client: Option<String> = sqlx::query_scalar(
        "SELECT client_name::text FROM gatepost.api_keys WHERE digest = $1 AND enabled",
    )
    .bind(digest.as_slice())
    .fetch_optional(pool)
    .await?;
    let Some(client) = client else { return Ok(false) };
    sqlx::query(
        "INSERT INTO public.rival_statistics AS known VALUES ($1, 1, now()) \
         ON CONFLICT (client) DO UPDATE SET requests = known.requests + 1, seen_at = now()",
    )
    .bind(client)
    .execute(pool)
    .await?;
    Ok(true)
}
