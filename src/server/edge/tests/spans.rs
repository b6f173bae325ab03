//! Spans: which requests have one, whose children they are, and what they say.

use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::otlp::{Span as Recorded, Value};
use crate::server::{Access, AccessLines};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What was recorded so far.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<Recorded>>>);

impl Book {
    fn spans(&self, share: f64) -> Option<Spans> {
        let book = self.clone();
        let write = move |span| book.0.lock().expect("no panic").push(span);
        Some(Spans::new(share, Arc::new(write)))
    }

    async fn told(&self, count: usize) -> Vec<Recorded> {
        loop {
            let spans = self.0.lock().expect("no panic").clone();
            if spans.len() >= count {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn said<'a>(span: &'a Recorded, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_stands_between_its_caller_and_what_the_upstream_does() {
    let book = Book::default();
    let config = Config { access_log: AccessLines::Off, ..echo() };
    let gateway = Gateway::recording(config, &[], &orders(), None, book.spans(0.0));
    let good = key(1);
    let key = ("x-api-key", good.reveal());
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let with = [key, ("traceparent", &*parent), ("tracestate", "a=1"), ("user-agent", "curl/8")];
    let answer = gateway.ask("DELETE", "/rest/v1/orders?token=s3cret", &with, "12345").await;
    let span = book.told(1).await.remove(0);

    let place = (span.trace, span.parent);
    assert_eq!(place, (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, Some(0x00f0_67aa_0ba9_02b7)));
    let below = format!("00-{TRACE}-{:016x}-01", span.id);
    assert_eq!(answer.json()["headers"]["traceparent"], json!([below]));
    assert_eq!(answer.json()["headers"]["tracestate"], json!(["a=1"]));
    assert!(span.id != 0 && Some(span.id) != span.parent);

    assert_eq!((&*span.name, span.failed), ("DELETE /rest/v1/{table}", false));
    assert!(span.started < span.ended && span.ended <= SystemClock::new().now());
    let id = Uuid::from_u128(1).to_string();
    for (key, want) in [
        ("http.request.method", "DELETE"),
        ("http.route", "/rest/v1/{table}"),
        ("url.path", "/rest/v1/orders"),
        ("url.scheme", "http"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "curl/8"),
        ("gatepost.client", "acme"),
        ("gatepost.key_id", &id),
        ("gatepost.decision", "allowed"),
        ("gatepost.endpoint", "proxy"),
        ("gatepost.upstream", "echo"),
    ] {
        assert_eq!(said(&span, key).cloned(), text(want), "{key}");
    }
    assert_eq!(said(&span, "http.response.status_code"), Some(&Value::Whole(200)));
    assert_eq!(said(&span, "http.request.body.size"), Some(&Value::Whole(5)));
    let all = format!("{span:?}");
    assert!(!all.contains(good.reveal()) && !all.contains("s3cret"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_caller_does_not_record_has_no_span_and_keeps_its_parent() {
    let book = Book::default();
    let gateway = Gateway::recording(echo(), &[], &orders(), None, book.spans(1.0));
    let good = key(1);
    let key = ("x-api-key", good.reveal());
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let answer = gateway.get("/rest/v1/orders", &[key, ("traceparent", &parent)]).await;
    assert_eq!(answer.json()["headers"]["traceparent"], json!([parent]));

    // Nobody said anything of this one: the share decides, and the trace begins here.
    let answer = gateway.get("/rest/v1/orders", &[key, ("tracestate", "a=1")]).await;
    let spans = book.told(1).await;
    let trace = format!("{:032x}", spans[0].trace);
    let below = format!("00-{trace}-{:016x}-01", spans[0].id);
    assert_eq!(answer.json()["headers"]["traceparent"], json!([below]));
    assert!(answer.json()["headers"]["tracestate"].is_null());
    assert_eq!((spans.len(), spans[0].parent), (1, None));
    let lines = gateway.lines.lock().expect("no panic").clone();
    let lines = lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<String>();
    assert!(lines.contains(&format!("\"trace_id\":\"{trace}\"")), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_none_begins_no_trace() {
    let book = Book::default();
    let gateway = Gateway::recording(echo(), &[], &orders(), None, book.spans(0.0));
    let good = key(1);
    let key = ("x-api-key", good.reveal());
    let answer = gateway.get("/rest/v1/orders", &[key]).await;
    assert!(answer.json()["headers"]["traceparent"].is_null());
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    gateway.get("/rest/v1/orders", &[key, ("traceparent", &parent)]).await;
    assert_eq!(book.told(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_few_and_only_the_servers_faults_are_errors() {
    let gone = UpstreamConfig {
        name: "up".into(),
        targets: vec!["http://127.0.0.1:1".into()],
        ..UpstreamConfig::default()
    };
    let open = |path, upstream| RouteConfig { access: Access::Anonymous, ..route(path, upstream) };
    let routes = [route("/rest/v1/{table}", "echo"), open("/gone", "up"), open("/any", "echo")];
    let book = Book::default();
    let gateway = Gateway::recording(echo(), &[gone], &routes, None, book.spans(1.0));
    let good = key(1);
    let key = ("x-api-key", good.reveal());
    let original = [key, ("x-forwarded-uri", "/rest/v1/orders?a"), ("x-forwarded-host", "api")];
    let mut asked = 0;
    for (method, path, headers) in [
        ("GET", "/rest/v1/orders", &[][..]),
        ("GET", "/nowhere/s3cret", &[]),
        ("GET", "/gone", &[]),
        ("BREW", "/any", &[]),
        ("GET", "/authz/forward-auth", &original),
        ("GET", "/v1/keys/verify", &[]),
        ("GET", "/livez", &[]),
    ] {
        gateway.ask(method, path, headers, "").await;
        asked += usize::from(path != "/livez");
        book.told(asked).await;
    }
    let spans = book.told(asked).await;
    let seen: Vec<_> = spans.iter().map(|span| (&*span.name, span.failed)).collect();
    let want = [
        ("GET /rest/v1/{table}", false),
        ("GET", false),
        ("GET /gone", true),
        ("HTTP /any", false),
        ("GET /rest/v1/{table}", false),
        ("GET verify", false),
    ];
    assert_eq!(seen, want);
    assert_eq!(said(&spans[2], "error.type").cloned(), text("upstream_unreachable"));
    assert_eq!(said(&spans[0], "gatepost.decision").cloned(), text("missing_credential"));
    assert_eq!(said(&spans[3], "http.request.method").cloned(), text("_OTHER"));
    assert_eq!(said(&spans[3], "http.request.method_original").cloned(), text("BREW"));
    assert_eq!(said(&spans[4], "gatepost.endpoint").cloned(), text("forward_auth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_has_failed_and_who_leaves_has_not() {
    let tasks = TaskTracker::new();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let cut = super::upstreams::says(&tasks, half, super::upstreams::End::Close).await;
    let book = Book::default();
    let routes = [route("/up", "up")];
    let gateway = Gateway::recording(echo(), &[cut], &routes, None, book.spans(1.0));
    gateway.raw(head(1, "GET /up", "")).await;
    let span = book.told(1).await.remove(0);
    assert_eq!(said(&span, "gatepost.decision").cloned(), text("broke_off"));
    assert!(span.failed);

    let held = super::upstreams::says(&tasks, half, super::upstreams::End::Hold).await;
    let book = Book::default();
    let gateway = Gateway::recording(echo(), &[held], &routes, None, book.spans(1.0));
    let mut stream = gateway.connect(head(1, "GET /up", "")).await;
    super::upstreams::read_head(&mut stream).await;
    drop(stream);
    let span = book.told(1).await.remove(0);
    assert_eq!(said(&span, "gatepost.decision").cloned(), text("client_gone"));
    assert!(!span.failed);
}
