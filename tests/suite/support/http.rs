//! A client that keeps its connections, as the proxies before a gateway do.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Far beyond any deadline of the gateway: whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Speaks to one address. Nothing is ever sent twice.
#[derive(Clone)]
pub struct Http {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// The `code` of a problem document.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().expect("problems have a code").to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl Http {
    pub fn new(base: &str) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.retry_canceled_requests(false);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { base: base.to_owned(), client: builder.build(connector) }
    }

    /// `127.0.0.1:8080`
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// `None`: no answer, or not all of it. Hanging is a failure of the test.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("a request");
        let asked = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Some(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the gateway does not hang")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await.expect("an answer")
    }

    /// Forward-auth with `key`.
    pub async fn authorize(&self, key: &str) -> Option<Answer> {
        let credential = format!("Bearer {key}");
        self.ask(Method::GET, "/authz/forward-auth", &[("authorization", &credential)], "").await
    }

    /// Forward-auth with `key`, once it can be decided: right after a start what was used of a
    /// quota may not be read yet, and then nothing is charged.
    pub async fn decided(&self, key: &str) -> Option<Answer> {
        loop {
            let answer = self.authorize(key).await?;
            if answer.status != 503 || answer.code() != "api_key_policy_unavailable" {
                return Some(answer);
            }
        }
    }

    /// The status of forward-auth with `key`, with the code of the problem if it is one.
    pub async fn verdict(&self, key: &str) -> (u16, String) {
        let answer = self.authorize(key).await.expect("an answer");
        let code = if answer.status == 200 { String::new() } else { answer.code() };
        (answer.status, code)
    }
}
