//! One batch to the collector: a POST in protobuf, and what its answer means (OTLP/HTTP).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use axum::http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::ClientConfig;

use super::Config;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// The longest answer that is read, in bytes: a number, and perhaps a sentence.
const ANSWER_MAX: usize = 64 << 10;

/// Why there can be no connection to any collector.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported: {0}")]
pub struct Unusable(String);

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It may be taken later, if that is said not before so long.
    #[error("{why}")]
    Again { why: String, after: Option<Duration> },
    /// It never will be.
    #[error("{0}")]
    Never(String),
}

/// Where batches are posted to.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    traces: Uri,
}

impl Collector {
    /// Connects to nobody yet.
    pub fn new(config: &Config) -> Result<Self, Unusable> {
        let traces = config.traces().ok_or_else(|| Unusable("the endpoint is no URL".into()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Unusable(error.to_string()))?
            .with_webpki_roots()
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = HttpsConnector::from((http, tls));
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), traces })
    }

    /// Posts a batch. Returns how many of its spans the collector did not want.
    pub async fn post(&self, batch: Bytes) -> Result<u64, Failure> {
        let again = |why: String| Failure::Again { why, after: None };
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.traces.clone())
            .header(CONTENT_TYPE, PROTOBUF)
            .body(Full::new(batch))
            .map_err(|error| Failure::Never(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| again(causes(&error)))?;
        let (parts, body) = answer.into_parts();
        if parts.status.is_success() {
            // It has been taken, whatever was said of it.
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            return Ok(body.map_or(0, |body| rejected(body.to_bytes())));
        }
        // Nobody reads why, nor waits for it: a refusal may never end.
        let why = format!("it answered {}", parts.status);
        match parts.status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                Err(Failure::Again { why, after: retry_after(&parts.headers) })
            }
            _ => Err(Failure::Never(why)),
        }
    }
}

/// What a collector that took a batch says that it did not want of it.
fn rejected(answer: Bytes) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
    u64::try_from(rejected).unwrap_or(0)
}

/// In seconds; a date is not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An error with what lies behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
