//! The access log: a line for each request, what stands in it, and what never does.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::server::{Access, AccessLines};

impl Gateway {
    /// Waits for the lines of so many requests.
    async fn told(&self, count: usize) -> Vec<Value> {
        loop {
            let lines = self.lines.lock().expect("no panic").clone();
            if lines.len() >= count {
                assert!(lines.iter().all(|line| line.ends_with(b"\n")));
                let parsed = lines.iter().map(|line| serde_json::from_slice(line));
                return parsed.collect::<Result<_, _>>().expect("JSON");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The fields of a line that are named.
fn fields(line: &Value, names: &[&str]) -> Value {
    Value::Array(names.iter().map(|name| line[*name].clone()).collect())
}

const ABOUT: [&str; 6] = ["endpoint", "method", "path", "route", "status", "decision"];

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_a_line_that_says_what_became_of_it() {
    let tasks = TaskTracker::new();
    let gone = UpstreamConfig {
        name: "up".into(),
        targets: vec!["http://127.0.0.1:1".into()],
        ..UpstreamConfig::default()
    };
    let open = RouteConfig { access: Access::Anonymous, ..route("/open/{*rest}", "echo") };
    let routes = [route("/rest/v1/{table}", "echo"), route("/gone", "up"), open];
    let gateway = Gateway::start(echo(), &[gone], &routes);
    let good = key(1);
    let with = [("x-api-key", good.reveal()), ("user-agent", "curl/8"), ("x-request-id", "r-1")];
    let question = json!({ "key": key(2).reveal() }).to_string();

    let body = "12345";
    gateway.ask("DELETE", "/rest/v1/orders?token=s3cret", &with, body).await;
    let about = "endpoint method path route status decision";
    assert_eq!(about, ABOUT.join(" "));
    let line = gateway.told(1).await.remove(0);
    let want = json!(["proxy", "DELETE", "/rest/v1/orders", "/rest/v1/{table}", 200, "allowed"]);
    assert_eq!(fields(&line, &ABOUT), want, "{line}");
    let who = fields(&line, &["request_id", "client", "key_id", "policy", "upstream", "ip"]);
    let id = Uuid::from_u128(1);
    assert_eq!(who, json!(["r-1", "acme", id, "default", "echo", "127.0.0.1"]), "{line}");
    assert_eq!(
        fields(&line, &["target", "level", "user_agent"]),
        json!(["access", "INFO", "curl/8"])
    );
    assert_eq!(line["bytes_in"], 5, "{line}");
    assert!(line["bytes_out"].as_u64() > Some(0) && line["duration_s"].as_f64() > Some(0.0));
    assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");

    gateway.get("/rest/v1/orders", &[]).await;
    gateway.get("/nowhere", &with).await;
    gateway.get("/open/x", &[]).await;
    gateway.told(4).await;
    gateway.get("/gone", &[("x-api-key", key(7).reveal())]).await;
    let original = [with[0], ("x-forwarded-uri", "/rest/v1/orders?a"), ("x-forwarded-host", "api")];
    gateway.get("/authz/forward-auth", &original).await;
    gateway.ask("POST", "/v1/keys/verify", &[], &question).await;
    gateway.get("/authz/auth-request", &[("apikey", "junk")]).await;
    gateway.get("/livez", &[]).await;
    let lines = gateway.told(8).await;
    let said: Vec<_> = lines[1..].iter().map(|line| fields(line, &ABOUT)).collect();
    let orders = "/rest/v1/{table}";
    let none = Value::Null;
    let want = [
        json!(["proxy", "GET", "/rest/v1/orders", orders, 401, "missing_credential"]),
        json!(["proxy", "GET", "/nowhere", none, 404, "not_found"]),
        json!(["proxy", "GET", "/open/x", "/open/{*rest}", 200, "anonymous"]),
        json!(["proxy", "GET", "/gone", "/gone", 502, "upstream_unreachable"]),
        json!(["forward_auth", "GET", "/rest/v1/orders", orders, 200, "allowed"]),
        json!(["verify", "POST", "/v1/keys/verify", none, 200, "key_disabled"]),
        json!(["auth_request", "GET", "/authz/auth-request", none, 401, "invalid_credential"]),
    ];
    assert_eq!(said, want);
    assert_eq!((&lines[5]["host"], &lines[5]["client"]), (&json!("api"), &json!("acme")));
    let all = serde_json::to_string(&lines).expect("JSON");
    for secret in [good.reveal(), key(2).reveal(), "s3cret", "junk", "?"] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
    tasks.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_alone_or_nothing_where_that_is_asked_for() {
    for (which, count) in [(AccessLines::Errors, 1), (AccessLines::Off, 0)] {
        let config = Config { access_log: which, ..echo() };
        let gateway = Gateway::start(config, &[], &orders());
        let good = key(1);
        let with = [("x-api-key", good.reveal())];
        gateway.get("/rest/v1/orders", &with).await;
        gateway.get("/authz/forward-auth", &with).await;
        gateway.get("/rest/v1/orders", &[]).await;
        let lines = Arc::clone(&gateway.lines);
        // Everything that is told has been told when it has ended.
        gateway.counted().await;
        let lines = lines.lock().expect("no panic");
        assert_eq!(lines.len(), count, "{which:?}");
        assert!(lines.iter().all(|line| String::from_utf8_lossy(line).contains("401")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_tokens_say_whose_they_are() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (_, pair) = gateway.session().await;
    let token = pair.refresh_token.expect("of a session").expose_secret().to_owned();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let (one, may) = (key(1), key(6));
    let refresh = format!("grant_type=refresh_token&refresh_token={token}");
    let with_key = [form, ("x-api-key", one.reveal())];
    gateway.ask("POST", "/oauth/token", &[form], &refresh).await;
    gateway.ask("POST", "/oauth/token", &with_key, "grant_type=client_credentials").await;
    let asked = [form, ("x-api-key", may.reveal())];
    gateway.ask("POST", "/oauth/introspect", &asked, "token=x").await;
    gateway.ask("POST", "/oauth/revoke", &[form], &format!("token={token}")).await;
    gateway.ask("POST", "/oauth/revoke", &[form], "token=x").await;
    let lines = gateway.told(5).await;
    let said: Vec<_> =
        lines.iter().map(|line| fields(line, &["endpoint", "status", "client", "ip"])).collect();
    let want = [
        json!(["token", 200, "acme", "127.0.0.1"]),
        json!(["token", 200, "acme", "127.0.0.1"]),
        json!(["introspect", 200, "acme", "127.0.0.1"]),
        json!(["revoke", 200, "acme", "127.0.0.1"]),
        json!(["revoke", 200, null, "127.0.0.1"]),
    ];
    assert_eq!(said, want);
    let all = serde_json::to_string(&lines).expect("JSON");
    assert!(!all.contains(&token) && !all.contains(one.reveal()), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_spares_lines_of_what_went_well_and_no_others() {
    for share in [0.0, 0.5] {
        let config = Config { access_log_sample: share, ..echo() };
        let gateway = Gateway::start(config, &[], &orders());
        let good = key(1);
        for _ in 0..40 {
            gateway.get("/authz/forward-auth", &[("x-api-key", good.reveal())]).await;
            gateway.get("/rest/v1/orders", &[]).await;
        }
        let lines = gateway.told(40).await;
        let refused = lines.iter().filter(|line| line["status"] == 401).count();
        let well = lines.iter().filter(|line| line["status"] == 200).count();
        assert_eq!(refused, 40, "{share}");
        assert!(if share > 0.0 { (1..40).contains(&well) } else { well == 0 }, "{share}: {well}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_answer_has_a_line_too() {
    let tasks = TaskTracker::new();
    let never = Router::new().route("/up", any(std::future::pending::<()>));
    let upstream = upstream(&tasks, never).await;
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let stream = gateway.connect(head(7, "GET /up", "")).await;
    gateway.until_proxied(1).await;
    drop(stream);
    let line = gateway.told(1).await.remove(0);
    let want = json!(["proxy", "GET", "/up", "/up", null, "client_gone"]);
    assert_eq!(fields(&line, &ABOUT), want, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_in_all_has_a_line_that_says_so() {
    let tasks = TaskTracker::new();
    let upstream = super::upstreams::says(&tasks, "", super::upstreams::End::Hold).await;
    let config = Config { request_timeout: Span::millis(300), ..Config::default() };
    let gateway = Gateway::start(config, &[upstream], &[route("/up", "up")]);
    let with = [("x-api-key", key(1).reveal().to_owned())];
    let answer = gateway.get("/up", &[(with[0].0, &with[0].1), ("x-request-id", "r-2")]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "request_timeout"));
    assert_eq!(answer.header("x-request-id"), Some("r-2"));
    let line = gateway.told(1).await.remove(0);
    let want = json!(["proxy", "GET", "/up", "/up", 408, "request_timeout"]);
    assert_eq!(fields(&line, &ABOUT), want, "{line}");
    assert_eq!(fields(&line, &["request_id", "client"]), json!(["r-2", "acme"]));
    // It was charged, and hears of it.
    let counted = gateway.get("/up", &[("x-api-key", key(10).reveal())]).await;
    assert_eq!((counted.status.as_u16(), counted.code().as_str()), (408, "request_timeout"));
    let left = counted.header("ratelimit").unwrap_or_default();
    assert!(left.starts_with("\"yearly\";r=1;t="), "{:?}", counted.headers);
    assert_eq!(gateway.counted().await[":read"][..3], [2, 0, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_has_a_line_that_says_how_much_was_sent() {
    let tasks = TaskTracker::new();
    let second = Span::secs(1);
    let overdue = Config { request_timeout: second, ..Config::default() };
    let bounded = RouteConfig { total_timeout: Some(second), ..route("/up", "up") };
    for (config, route, status) in
        [(overdue, route("/up", "up"), 408), (Config::default(), bounded, 504)]
    {
        let upstream = super::upstreams::says(&tasks, "", super::upstreams::End::Hold).await;
        let gateway = Gateway::start(config, &[upstream], &[route]);
        let answer = gateway.ask("POST", "/up", &[("x-api-key", key(1).reveal())], "12345").await;
        assert_eq!(answer.status.as_u16(), status);
        let line = gateway.told(1).await.remove(0);
        assert_eq!(fields(&line, &["status", "bytes_in"]), json!([status, 5]), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_passed_on_and_told_when_it_is_one() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let good = key(1);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let key = ("x-api-key", good.reveal());
    let headers = [key, ("traceparent", &*parent), ("tracestate", "a=1")];
    let answer = gateway.get("/rest/v1/orders", &headers).await;
    assert_eq!(answer.json()["headers"]["traceparent"], json!([parent]));
    assert_eq!(answer.json()["headers"]["tracestate"], json!(["a=1"]));
    let bad = [key, ("traceparent", "00-junk"), ("tracestate", "a=1")];
    let answer = gateway.get("/rest/v1/orders", &bad).await;
    let seen = &answer.json()["headers"];
    assert!(seen["traceparent"].is_null() && seen["tracestate"].is_null(), "{seen}");
    gateway.get("/authz/forward-auth", &headers).await;
    let lines = gateway.told(3).await;
    let traces: Vec<_> = lines.iter().filter_map(|line| line["trace_id"].as_str()).collect();
    assert_eq!(traces, [trace, trace]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_in_the_middle_has_a_line_that_says_so_and_has_failed() {
    let tasks = TaskTracker::new();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let upstream = super::upstreams::says(&tasks, half, super::upstreams::End::Hold).await;
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let mut stream = gateway.connect(head(1, "GET /up", "")).await;
    super::upstreams::read_head(&mut stream).await;
    drop(stream);
    let line = gateway.told(1).await.remove(0);
    let want = json!(["proxy", "GET", "/up", "/up", 200, "client_gone"]);
    assert_eq!(fields(&line, &ABOUT), want, "{line}");

    let silent = super::upstreams::says(&tasks, "", super::upstreams::End::Hold).await;
    let other = Gateway::start(Config::default(), &[silent], &[route("/up", "up")]);
    let stream = other.connect(head(1, "POST /up", "Content-Length: 10\r\n") + "half").await;
    other.until_proxied(1).await;
    stream.set_zero_linger().expect("a socket");
    drop(stream);
    let line = other.told(1).await.remove(0);
    let want = json!(["proxy", "POST", "/up", "/up", null, "client_gone"]);
    assert_eq!(fields(&line, &ABOUT), want, "{line}");

    assert_eq!(gateway.counted().await[":read"][..3], [1, 0, 1]);
    assert_eq!(other.counted().await[":write"][..3], [1, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_in_all_has_a_line_that_says_so() {
    let tasks = TaskTracker::new();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let upstream = super::upstreams::says(&tasks, half, super::upstreams::End::Hold).await;
    let config = Config { request_timeout: Span::millis(300), ..Config::default() };
    let gateway = Gateway::start(config, &[upstream], &[route("/up", "up")]);
    let answer = gateway.raw(head(1, "GET /up", "")).await;
    assert!(answer.ends_with("half"), "{answer}");
    let line = gateway.told(1).await.remove(0);
    let want = json!(["proxy", "GET", "/up", "/up", 200, "broke_off"]);
    assert_eq!(fields(&line, &ABOUT), want, "{line}");
    assert_eq!(gateway.counted().await[":read"][..3], [1, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_stream_of_events_has_had_what_there_was() {
    let tasks = TaskTracker::new();
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let upstream = super::upstreams::says(&tasks, events, super::upstreams::End::Hold).await;
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let mut stream = gateway.connect(head(1, "GET /up", "")).await;
    super::upstreams::read_head(&mut stream).await;
    drop(stream);
    let line = gateway.told(1).await.remove(0);
    assert_eq!(line["decision"], "allowed", "{line}");
    assert_eq!(gateway.counted().await[":read"][..3], [1, 1, 0]);
}
