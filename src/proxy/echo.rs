//! The built-in upstream of the development configuration: answers with what it got.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Serialize;

use super::ProxyError;
use super::body::Inbound;
use super::exchange::Head;

#[derive(Serialize)]
struct Echo {
    method: String,
    path: String,
    headers: BTreeMap<String, Vec<String>>,
    body_bytes: usize,
}

/// Reads the body to its end, holding none of it, and describes the request.
pub(super) async fn answer(head: Head, mut body: Inbound) -> Result<Response, ProxyError> {
    let mut body_bytes = 0;
    while let Some(frame) = body.frame().await {
        body_bytes += frame?.data_ref().map_or(0, |data| data.len());
    }
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).or_default().push(value);
    }
    let path = head.path.as_ref().map_or("/", |path| path.as_str()).to_owned();
    Ok(Json(Echo { method: head.method.to_string(), path, headers, body_bytes }).into_response())
}
