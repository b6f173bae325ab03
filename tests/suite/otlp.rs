//! Spans on their way to a collector, which the test plays: the real program, OTLP over HTTP.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::support::house::{Gateway, House, declared, get, key, mirror, read_head, server, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it takes.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(Resource, Span)>>>,
    /// The answers to the next batches, without the first word; then all are taken.
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Collector {
    fn start(answers: &[&str]) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let answers: VecDeque<_> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let answers = Arc::new(Mutex::new(answers));
        let (kept, next) = (Arc::clone(&heard), Arc::clone(&answers));
        let address = server(move |mut stream| {
            while let Some(batch) = read_batch(&mut stream) {
                let answer = next.lock().expect("no panic").pop_front();
                let answer = answer.unwrap_or_else(|| {
                    let mut kept = kept.lock().expect("no panic");
                    for from in batch.resource_spans {
                        let resource = from.resource.expect("who tells");
                        let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
                        kept.extend(spans.map(|span| (resource.clone(), span)));
                    }
                    "200 OK\r\nContent-Length: 0\r\n\r\n".into()
                });
                // Whoever sent it may be gone.
                drop(stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()));
            }
        });
        Self { address, heard, answers }
    }

    /// Waits for so many spans.
    fn spans(&self, count: usize) -> Vec<Span> {
        self.heard(count).into_iter().map(|(_, span)| span).collect()
    }

    fn heard(&self, count: usize) -> Vec<(Resource, Span)> {
        until(&format!("{count} spans"), || {
            let heard = self.heard.lock().expect("no panic").clone();
            (heard.len() >= count).then_some(heard)
        })
    }
}

fn read_batch(stream: &mut TcpStream) -> Option<ExportTraceServiceRequest> {
    let head = read_head(stream).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut body).ok()?;
    assert!(head.starts_with("post /v1/traces http/1.1\n") || head.starts_with("post /v1/traces "));
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    Some(ExportTraceServiceRequest::decode(&*body).expect("a batch"))
}

/// What a test configures, with one key and the echo.
fn house(endpoint: SocketAddr, otlp: &str) -> House {
    let declared = declared("shop", &key(1));
    House::new(&format!(
        "echo = true\naccess_log = \"off\"\n[otlp]\nendpoint = \"http://{endpoint}\"\n{otlp}\n\
         {declared}"
    ))
}

fn asks(gateway: &Gateway, times: usize) {
    for _ in 0..times {
        assert_eq!(get(gateway.data, "/echo/x", &[("X-API-Key", &key(1))]).status, 200);
    }
}

/// The value of a metric, as it is now.
fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = get(gateway.admin, "/metrics", &[]).body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("gatepost_{name} ")));
    line.map_or(0, |value| value.parse().expect("a number"))
}

fn counts(gateway: &Gateway, name: &str, least: u64) {
    until(name, || (metric(gateway, name) >= least).then_some(()));
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone() {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text),
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn spans_arrive_between_their_caller_and_the_upstream() {
    let collector = Collector::start(&[]);
    let declared = declared("shop", &key(1));
    let house = House::new(&format!(
        "[otlp]\nendpoint = \"http://{}\"\nservice_name = \"edge\"\ninterval = \"50ms\"\n\
         [[upstreams]]\nname = \"up\"\ntargets = [\"http://{}\"]\n\
         [[routes]]\npath = \"/rest/{{table}}\"\nupstream = \"up\"\n{declared}",
        collector.address,
        mirror()
    ));
    let gateway = house.serve();
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("X-API-Key", &*key(1)), ("traceparent", &traceparent)];
    let answer = get(gateway.data, "/rest/orders?secret=1", &headers);
    assert_eq!(answer.status, 200);

    let (resource, span) = collector.heard(1).remove(0);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
    let below = format!("traceparent: 00-{TRACE}-{}-01", hex(&span.span_id));
    assert!(answer.body.to_ascii_lowercase().contains(&below), "{} has no {below}", answer.body);
    // SPAN_KIND_SERVER; sampled, below another process's.
    assert_eq!((&*span.name, span.kind, span.flags), ("GET /rest/{table}", 2, 0x301));
    assert!(0 < span.start_time_unix_nano && span.start_time_unix_nano < span.end_time_unix_nano);
    assert_eq!(span.status.expect("a status").code, 0);
    for (key, want) in [
        ("http.route", "/rest/{table}"),
        ("url.path", "/rest/orders"),
        ("gatepost.client", "shop"),
        ("gatepost.decision", "allowed"),
    ] {
        assert_eq!(text(&span.attributes, key).as_deref(), Some(want), "{key}");
    }
    let told = |key| text(&resource.attributes, key).expect("it is told");
    assert_eq!(told("service.name"), "edge");
    assert!(told("service.instance.id").starts_with("gw-"));
    counts(&gateway, "otlp_spans_exported_total", 1);
    gateway.stop();
}

#[test]
fn what_a_collector_does_not_take_now_is_tried_again() {
    let later = "503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
    let busy = "429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
    let endless = "503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 5\r\n\r\nno";
    let collector = Collector::start(&[later, endless, busy]);
    let gateway = house(collector.address, "interval = \"10ms\"\ndeadline = \"1m\"").serve();
    asks(&gateway, 1);
    collector.spans(1);
    counts(&gateway, "otlp_spans_exported_total", 1);
    assert_eq!(metric(&gateway, "otlp_attempts_failed_total"), 3);
    gateway.stop();
    assert_eq!(collector.spans(1).len(), 1);
}

#[test]
fn what_it_never_takes_is_dropped_and_the_next_goes_on() {
    let never = "400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let collector = Collector::start(&[never]);
    let house = house(collector.address, "interval = \"10ms\"\nbatch_max = 1");
    let mut gateway = house.serve();
    asks(&gateway, 1);
    counts(&gateway, "otlp_spans_dropped_total{reason=\"undelivered\"}", 1);
    gateway.program.hear("the collector takes no spans");

    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "odd".into() };
    let some = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let some = String::from_utf8(some).expect("it is short");
    let some = format!("200 OK\r\nContent-Length: {}\r\n\r\n{some}", some.len());
    collector.answers.lock().expect("no panic").push_back(some);
    asks(&gateway, 1);
    counts(&gateway, "otlp_spans_dropped_total{reason=\"rejected\"}", 1);
    asks(&gateway, 1);
    collector.spans(1);
    counts(&gateway, "otlp_spans_exported_total", 1);
    assert_eq!(metric(&gateway, "otlp_attempts_failed_total"), 0);
    gateway.stop();
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let gateway = house(address, "interval = \"10ms\"\ndeadline = \"50ms\"").serve();
    asks(&gateway, 20);
    counts(&gateway, "otlp_spans_dropped_total{reason=\"undelivered\"}", 20);
    assert_eq!(metric(&gateway, "otlp_spans_exported_total"), 0);
    gateway.stop();
}

#[test]
fn a_collector_that_never_answers_holds_nobody_up() {
    // It keeps each connection, and says nothing.
    let address = server(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let settings = "interval = \"10ms\"\ndeadline = \"1h\"\nmax_waiting = 5\nbatch_max = 1";
    let gateway = house(address, settings).serve();
    asks(&gateway, 20);
    // One is under way, five wait.
    counts(&gateway, "otlp_spans_dropped_total{reason=\"queue_full\"}", 14);
    assert_eq!(metric(&gateway, "otlp_spans_dropped_total{reason=\"queue_full\"}"), 14);
    gateway.stop();
}

#[test]
fn the_end_sends_what_waits() {
    let collector = Collector::start(&[]);
    let gateway = house(collector.address, "interval = \"1h\"\nbatch_max = 2").serve();
    asks(&gateway, 5);
    gateway.stop();
    assert_eq!(collector.spans(5).len(), 5);
}

#[test]
fn the_well_known_variable_names_the_collector() {
    let house = House::new("");
    let (code, shown, said) = house.run(&["config", "print"]);
    assert!(code == 0 && !shown.contains("[otlp]"), "{shown}{said}");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.env_clear().env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    command.arg("--config").arg(house.file()).args(["config", "print"]);
    let shown = String::from_utf8(command.output().expect("it runs").stdout).expect("text");
    assert!(shown.contains("endpoint = \"http://collector:4318\""), "{shown}");
}
