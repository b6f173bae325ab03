//! Answers over a real socket, and the exit codes that problems become.

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, http::HeaderMap};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::*;
use crate::cli::output::Shape;

fn question(path: &str) -> Ask {
    Ask { method: axum::http::Method::GET, path: path.into(), body: None, shape: Shape::One }
}

async fn served(router: Router) -> (Uri, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = async move { axum::serve(listener, router).await.expect("serves") };
    let task = TaskTracker::new().spawn(serving);
    (format!("http://{address}").parse().expect("a URL"), task)
}

fn problem(status: StatusCode, code: &str) -> Failure {
    let body = json!({"code": code, "detail": "do this"}).to_string();
    read(status, body.as_bytes()).expect_err("a problem")
}

#[test]
fn problems_become_the_exit_codes_of_the_contract() {
    let code = |status, code| problem(status, code).exit_code();
    assert_eq!(code(StatusCode::SERVICE_UNAVAILABLE, "postgres_required"), 69);
    assert_eq!(code(StatusCode::SERVICE_UNAVAILABLE, "postgres_unavailable"), 69);
    assert_eq!(code(StatusCode::SERVICE_UNAVAILABLE, "accounting_unavailable"), 75);
    assert_eq!(code(StatusCode::UNAUTHORIZED, "invalid_token"), 78);
    assert_eq!(code(StatusCode::BAD_REQUEST, "bad_request"), 2);
    assert_eq!(code(StatusCode::NOT_FOUND, "not_found"), 1);
    assert_eq!(problem(StatusCode::CONFLICT, "x").to_string(), "do this");
    let other = read(StatusCode::BAD_GATEWAY, b"<html>").expect_err("a failure");
    assert_eq!(other.to_string(), "the gateway answered 502 Bad Gateway");
}

#[tokio::test]
async fn an_admin_url_that_does_not_answer_is_69() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = listener.local_addr().expect("an address");
    drop(listener);
    let dir = tempfile::tempdir().expect("a directory");
    let url = Some(format!("http://{closed}/"));
    let target = Target { url, reader: Reader::InProcess };
    for token in [Some("t".into()), None] {
        let mut config = Config::default();
        config.data.dir = dir.path().to_owned();
        config.admin.token = token;
        let failure = ask(&target, &config, &question("/admin/v1/log")).await.expect_err("closed");
        assert_eq!(failure.exit_code(), 69, "{failure}");
    }
}

#[tokio::test]
async fn the_token_and_the_path_arrive() {
    let answer = |headers: HeaderMap| async move {
        Json(json!({"got": headers[header::AUTHORIZATION].to_str().expect("text")}))
    };
    let (url, serving) = served(Router::new().route("/admin/v1/log", get(answer))).await;
    let remote = Remote::new(url, "s3cret".into());
    let answer = remote
        .send(&question("/admin/v1/log"), async |status, body| read(status, &whole(body).await?))
        .await
        .expect("an answer");
    assert_eq!(answer, json!({"got": "Bearer s3cret"}));
    serving.abort();
}

#[tokio::test]
async fn another_program_on_the_port_is_not_taken_for_a_gateway() {
    let (url, other) = served(Router::new().route("/livez", get(|| async { "ok" }))).await;
    assert!(!is_gateway(&url).await);
    other.abort();
    let ours = || async { [(admin::VERSION_HEADER, "1")].into_response() };
    let (url, gateway) = served(Router::new().route("/livez", get(ours))).await;
    assert!(is_gateway(&url).await);
    gateway.abort();
}

#[test]
fn an_address_that_listens_everywhere_is_reached_over_loopback() {
    let at = |text: &str| reachable(text.parse().expect("an address")).to_string();
    assert_eq!(at("0.0.0.0:8081"), "127.0.0.1:8081");
    assert_eq!(at("[::]:8081"), "[::1]:8081");
    assert_eq!(at("10.0.0.1:8081"), "10.0.0.1:8081");
}

#[test]
fn urls_are_plain_http() {
    assert!(base("http://127.0.0.1:8081").is_ok());
    for refused in ["https://x", "127.0.0.1:8081", "/x", "ftp://x", "http://"] {
        assert_eq!(base(refused).expect_err(refused).exit_code(), 2);
    }
}
