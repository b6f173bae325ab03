//! Handlers behind forward-auth's path: one that does nothing, the limit; and the design that
//! failed, a lookup and an upsert per request through a pool of ten. Same runtime, accept loop and
//! HTTP settings as the gateway's.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
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

/// Answers 200, and does nothing else.
pub async fn bare() -> Result<()> {
    let nothing = any(async || StatusCode::OK);
    let router = Router::new().route("/authz/forward-auth", nothing.clone());
    serve(router.route("/v1/keys/verify", nothing)).await
}

/// Asks Postgres for every request, and counts there.
pub async fn upserting(url: &str) -> Result<()> {
    serve(counting(url).await?).await
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

async fn counting(url: &str) -> Result<Router> {
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
