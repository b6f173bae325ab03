//! How a request reaches the admin API: over TCP to a running gateway, or in process on the data
//! directory. What a running gateway does and what a command does alone is the same code.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;

use super::commands::Ask;
use super::failure::Failure;
use crate::config::{Config, Environment};
use crate::journal::Reader;
use crate::{admin, gateway};

/// Whether a gateway answers is known after this.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A drain of a long outage takes its time; everything else is far below.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// The longest list, with every name as long as it may be, stays below.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Where the user wants the request to go.
pub(super) struct Target {
    url: Option<String>,
    /// For a data directory without a gateway.
    reader: Reader,
}

impl Target {
    pub(super) fn new(flag: Option<&str>, environment: &Environment, reader: Reader) -> Self {
        Self { url: flag.or(environment.get("GATEPOST_ADMIN_URL")).map(str::to_owned), reader }
    }
}

/// Sends one request, wherever a gateway is, and returns what it answered.
pub(super) async fn ask(target: &Target, config: &Config, ask: &Ask) -> Result<Value, Failure> {
    reach(target, config, ask, async |status, body| read(status, &whole(body).await?)).await
}

/// Sends one request, and hands on the lines of its answer as they come. The last one tells how it
/// ended; it is returned.
pub(super) async fn ask_lines(
    target: &Target,
    config: &Config,
    ask: &Ask,
    each: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    reach(target, config, ask, async |status, body| {
        if status.is_success() {
            lines::hand_on(body, each).await
        } else {
            read(status, &whole(body).await?)
        }
    })
    .await
}

/// Sends one request, wherever a gateway is, and has the answer taken.
async fn reach<T>(
    target: &Target,
    config: &Config,
    ask: &Ask,
    take: impl AsyncFnOnce(StatusCode, Body) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if let Some(url) = &target.url {
        let url = base(url)?;
        let token = match token(config) {
            // Whether anybody is there comes first: it is what scripts wait for.
            Err(_) if !is_gateway(&url).await => return Err(away(&url, "is a gateway there?")),
            token => token?,
        };
        return Remote::new(url, token).send(ask, take).await;
    }
    let address = reachable(config.admin.listen);
    let url: Uri = format!("http://{address}/").parse().map_err(failed)?;
    if address.port() != 0 && is_gateway(&url).await {
        return Remote::new(url, token(config)?).send(ask, take).await;
    }
    let local = gateway::open_local(config, target.reader.clone()).await;
    let local = local.map_err(|error| match error {
        gateway::Error::Locked(reason) => Failure::TryAgain(format!(
            "{reason}; and no gateway answers at {address}: name the running one's admin address \
             with --admin-url or GATEPOST_ADMIN_URL"
        )),
        error => error.into(),
    })?;
    let answered = in_process(local.router.clone(), &local.token, ask, take).await;
    let closed = local.close().await;
    let answer = answered?;
    closed?;
    Ok(answer)
}

/// An address that listens everywhere is reached over loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn base(url: &str) -> Result<Uri, Failure> {
    let parsed: Uri = url.parse().map_err(|_| Failure::Usage(format!("`{url}` is not a URL")))?;
    match (parsed.scheme_str(), parsed.authority()) {
        (Some("http"), Some(_)) => Ok(parsed),
        (Some("https"), _) => Err(Failure::Usage(
            "the admin API is spoken to in plain HTTP; tunnel it (ssh -L) and use http://".into(),
        )),
        _ => Err(Failure::Usage(format!("`{url}` must look like http://127.0.0.1:8081"))),
    }
}

fn token(config: &Config) -> Result<SecretString, Failure> {
    if let Some(token) = &config.admin.token {
        return Ok(token.clone());
    }
    let dir = &config.data.dir;
    let found = admin::read_token(dir).map_err(|error| Failure::Config(error.to_string()))?;
    found.ok_or_else(|| {
        Failure::Config(format!(
            "no admin token: set GATEPOST_ADMIN_TOKEN, or run where {} is the running gateway's",
            dir.join(admin::TOKEN_FILE).display()
        ))
    })
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

fn client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_DEADLINE));
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Whether a gateway, and no other program, answers: only then is the token sent.
async fn is_gateway(base: &Uri) -> bool {
    let Ok(url) = under(base, "/livez") else { return false };
    let answer = tokio::time::timeout(PROBE_DEADLINE, client().get(url)).await;
    matches!(answer, Ok(Ok(answer)) if answer.headers().contains_key(admin::VERSION_HEADER))
}

fn under(base: &Uri, path: &str) -> Result<Uri, Failure> {
    format!("{}{path}", base.to_string().trim_end_matches('/')).parse().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn away(url: &Uri, reason: &str) -> Failure {
    Failure::Unavailable(format!("no answer from the gateway at {url}: {reason}"))
}

struct Remote {
    base: Uri,
    token: SecretString,
}

impl Remote {
    fn new(base: Uri, token: SecretString) -> Self {
        Self { base, token }
    }

    async fn send<T>(
        &self,
        ask: &Ask,
        take: impl AsyncFnOnce(StatusCode, Body) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let url = under(&self.base, &ask.path)?;
        let request = request(url, &self.token, ask)?.map(Full::new);
        let away = |reason: String| away(&self.base, &reason);
        let exchange = async {
            let response = client().request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                away(cause.unwrap_or_else(|| error.to_string()))
            })?;
            let status = response.status();
            take(status, Body::new(response.into_body())).await
        };
        let answer = tokio::time::timeout(ANSWER_DEADLINE, exchange).await;
        answer.unwrap_or_else(|_| Err(away("it takes too long".into())))
    }
}

async fn in_process<T>(
    router: Router,
    token: &SecretString,
    ask: &Ask,
    take: impl AsyncFnOnce(StatusCode, Body) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let url = ask.path.parse().map_err(failed)?;
    let request = request(url, token, ask)?.map(Body::from);
    let response = router.oneshot(request).await.map_err(failed)?;
    let status = response.status();
    take(status, response.into_body()).await
}

/// An answer that is one document.
async fn whole(body: Body) -> Result<Bytes, Failure> {
    let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
    let broken = |error| Failure::Unavailable(format!("the answer broke off: {error}"));
    Ok(body.map_err(broken)?.to_bytes())
}

fn request(url: Uri, token: &SecretString, ask: &Ask) -> Result<Request<Bytes>, Failure> {
    let body = ask.body.as_ref().map(Value::to_string).unwrap_or_default();
    Request::builder()
        .method(ask.method.clone())
        .uri(url)
        .header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body))
        .map_err(|_| Failure::Config("the admin token holds characters that HTTP cannot".into()))
}

/// An answer's data, or its problem as the exit code that says what to do about it.
fn read(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    let parsed = serde_json::from_slice::<Value>(body);
    if status.is_success() {
        return parsed
            .map_err(|_| Failure::Failed("the answer is not JSON; is that a gateway?".into()));
    }
    let problem = parsed.unwrap_or_default();
    let detail = problem["detail"].as_str().map(str::to_owned);
    let detail = detail.unwrap_or_else(|| format!("the gateway answered {status}"));
    Err(match status {
        StatusCode::BAD_REQUEST => Failure::Usage(detail),
        StatusCode::UNPROCESSABLE_ENTITY => Failure::Config(detail),
        StatusCode::UNAUTHORIZED => Failure::Config(format!("wrong admin token: {detail}")),
        StatusCode::SERVICE_UNAVAILABLE if problem["code"] == "accounting_unavailable" => {
            Failure::TryAgain(detail)
        }
        StatusCode::SERVICE_UNAVAILABLE => Failure::Unavailable(detail),
        _ => Failure::Failed(detail),
    })
}

mod lines;
#[cfg(test)]
mod tests;
