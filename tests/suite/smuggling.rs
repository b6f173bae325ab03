//! Requests that two readers could understand differently, on raw sockets, before an upstream that
//! writes down what it gets: it sees what was authorised, byte for byte, and nothing else.

mod http2;
mod recorder;
mod slow;

use std::io::{Read, Write};

use crate::support::house::{Gateway, House, connect, declared, exchange, get, key, read_head};
use recorder::Recorder;

/// A gateway before a recorder, whose one key may read the table `orders`.
fn house(server: &str, recorder: &Recorder) -> House {
    House::new(&format!(
        "{server}[[upstreams]]\nname = \"app\"\ntargets = [\"http://{}\"]\n\
         [[routes]]\npath = \"/rest/{{table}}\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/open/{{*rest}}\"\nupstream = \"app\"\naccess = \"anonymous\"\n\
         [[policies]]\nname = \"default\"\nrights = [\"orders.read\", \"orders.write\"]\n{}",
        recorder.address,
        declared("shop", &key(1)),
    ))
}

/// A head up to the fields that differ.
fn head(fields: &str) -> String {
    format!("POST /rest/orders HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{fields}\r\n", key(1))
}

const SMUGGLED: &str = "GET /rest/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends it, and expects nothing but refusals and the end of the connection.
fn refused(gateway: &Gateway, bytes: &str) {
    let answer = exchange(gateway.data, bytes.as_bytes());
    let answers = answer.matches("HTTP/1.1 ").count();
    assert_eq!(answers, answer.matches("HTTP/1.1 400").count(), "{bytes:?}: {answer}");
    assert!(answers == 1, "refused once, and not read on: {bytes:?}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: application/problem+json"), "{bytes:?}: {answer}");
    assert!(body.starts_with('{') && body.ends_with('}'), "{bytes:?}: {answer}");
}

#[test]
fn ambiguous_heads_are_refused_and_nothing_is_forwarded() {
    let recorder = Recorder::new();
    let gateway = house("", &recorder).serve();
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 0\r\nContent-Length: 44\r\n",
        "Content-Length: 44\r\nContent-Length: 44\r\n",
        "Content-Length: 0, 44\r\n",
        "Content-Length: +0\r\n",
        "Content-Length : 0\r\n",
        "Content_Length: 0\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\0b\r\n",
        "Host: b\r\n",
    ] {
        refused(&gateway, &format!("{}0\r\n\r\n{SMUGGLED}", head(fields)));
    }
    let key = key(1);
    for line in [
        format!("POST /rest/orders HTTP/1.0\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n"),
        format!("GET /rest/orders HTTP/1.1\nHost: a\nX-API-Key: {key}\n\n"),
        format!("GET  /rest/orders HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        format!("GET /rest/orders HTTP/1.1 \r\nHost: a\r\nX-API-Key: {key}\r\n"),
        format!("GET /rest/orders HTTP/2.0\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n".to_owned(),
    ] {
        refused(&gateway, &format!("{line}\r\n0\r\n\r\n{SMUGGLED}"));
    }
    assert_eq!(recorder.lines(), Vec::<String>::new());
    gateway.stop();
}

/// What `server.head_max` is, unless it is set.
const HEAD_MAX: usize = 32 * 1024;

/// A head of so many bytes, which ends its connection.
fn sized(size: usize) -> String {
    let padded =
        |length: usize| head(&format!("Connection: close\r\nX: {}\r\n", "y".repeat(length)));
    padded(size - padded(0).len())
}

#[test]
fn what_the_parser_refuses_has_a_reason_too_and_is_counted() {
    let recorder = Recorder::new();
    let gateway = house("headers_max = 20\n", &recorder).serve();
    let many = "X: y\r\n".repeat(30);
    let large = format!("X: {}\r\n", "y".repeat(40_000));
    let long = "a".repeat(70_000);
    for (bytes, status, code) in [
        (head("X: a\0b\r\n"), 400, "bad_request"),
        (head(&many), 431, "head_too_large"),
        (head(&large), 431, "head_too_large"),
        // Neither more than is read at a time, nor one byte too many.
        (sized(HEAD_MAX + 1), 431, "head_too_large"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 431, "head_too_large"),
        (head("Content-Length: 2, 2\r\n"), 400, "bad_request"),
        (head("Content-Length: 18446744073709551615\r\n"), 413, "body_too_large"),
    ] {
        let answer = exchange(gateway.data, bytes.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let (said, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(said.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(said.contains("connection: close"), "{answer}");
        assert!(body.contains(&format!("\"{code}\"")), "{answer}");
    }
    let metrics = get(gateway.admin, "/metrics", &[]).body;
    for (word, count) in
        [("syntax", 1), ("head_too_large", 4), ("length", 1), ("body_too_large", 1)]
    {
        let line = format!("gatepost_http_offences_total{{offence=\"{word}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert_eq!(recorder.lines(), Vec::<String>::new());
    let largest = exchange(gateway.data, sized(HEAD_MAX).as_bytes());
    assert!(largest.starts_with("HTTP/1.1 200 "), "{largest}");
    gateway.stop();
}

#[test]
fn broken_chunks_break_the_connection_and_the_upstream_never_sees_an_end() {
    let recorder = Recorder::new();
    let gateway = house("", &recorder).serve();
    for body in [
        "1\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\rb\r\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "fffffffffffffffff\r\nx",
        "0\r\n X: y\r\n\r\n",
    ] {
        let chunked = head("Transfer-Encoding: chunked\r\n");
        refused(&gateway, &format!("{chunked}{body}{SMUGGLED}"));
    }
    assert!(recorder.whole().is_empty(), "{:?}", recorder.whole());
    assert!(recorder.lines().iter().all(|line| !line.contains("smuggled")));
    gateway.stop();
}

#[test]
fn what_is_authorised_is_forwarded_byte_for_byte() {
    let recorder = Recorder::new();
    let gateway = house("", &recorder).serve();
    let chunked = head("transfer-encoding: CHUNKED\r\n");
    let close = head("Connection: close\r\nContent-Length: 2\r\n");
    let bytes = format!(
        "\r\n{}hello{chunked}3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n{close}ok",
        head("Content-Length: 5\r\n"),
    );
    let answers = exchange(gateway.data, bytes.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    let bodies: Vec<String> = recorder.whole().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["hello", "abcde", "ok"]);

    // An encoding is understood for the decision and left as it is.
    let path = "/rest/%6Frders?a=%2e%2e/&b=;//";
    assert_eq!(get(gateway.data, path, &[("X-API-Key", &key(1))]).status, 200);
    assert_eq!(recorder.lines().last().map(String::as_str), Some(&*format!("GET {path} HTTP/1.1")));
    gateway.stop();
}

#[test]
fn no_spelling_of_a_path_slips_past_its_route() {
    let recorder = Recorder::new();
    let gateway = house("", &recorder).serve();
    for path in [
        "/rest/orders/../secrets",
        "/rest/orders/%2e%2e/secrets",
        "/rest/%2E%2e/rest/secrets",
        "/rest/orders%2f..%2fsecrets",
        "/rest/orders%5c..%5csecrets",
        "/rest/orders\\..\\secrets",
        "/rest//secrets",
        "//rest/secrets",
        "/rest/./secrets",
        "/rest/secrets;a=orders",
        "/rest/orders;/../secrets",
        "/rest/orders;a",
        "/rest/orders%00",
        "/rest/orders%",
        "/rest/secrets#/../orders",
        "/rest/secrets",
        "http://other/rest/secrets",
    ] {
        let answer = get(gateway.data, path, &[("X-API-Key", &key(1))]);
        assert!(matches!(answer.status, 400 | 403 | 404), "{path}: {answer:?}");
    }
    // What any path may follow, without a key.
    for path in [
        "/open/../rest/secrets",
        "/open/..%20/rest/secrets",
        "/open/%2e%2e%20/rest/secrets",
        "/open/.%20./rest/secrets",
        "/open/%ef%bc%8e%ef%bc%8e/rest/secrets",
        "/open/..%ef%bc%8frest/secrets",
    ] {
        let answer = get(gateway.data, path, &[]);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert_eq!(recorder.lines(), Vec::<String>::new());
    gateway.stop();
}

#[test]
fn nobody_says_who_they_are_but_the_gateway() {
    let recorder = Recorder::new();
    let gateway = house("trusted_proxies = []\n", &recorder).serve();
    let headers = [
        ("X-API-Key", &*key(1)),
        ("Connection", "X-Gatepost-Client, X-Forwarded-For, keep-alive"),
        ("X-Gatepost-Client", "root"),
        ("X_Gatepost_Client", "root"),
        ("X-Gatepost-Subject", "root"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Rewrite-URL", "/root"),
        ("X_Request_Id", "root"),
        ("Forwarded", "for=10.0.0.1"),
    ];
    assert_eq!(get(gateway.data, "/rest/orders", &headers).status, 200);
    let (head, _) = recorder.whole().remove(0);
    let head = head.to_ascii_lowercase();
    let said = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let values = lines.filter(|(found, _)| found.replace('_', "-") == name);
        values.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(said("x-gatepost-client"), ["shop"], "{head}");
    assert_eq!(said("x-forwarded-for"), ["127.0.0.1"], "{head}");
    assert_eq!(said("x-forwarded-proto"), ["http"], "{head}");
    assert!(!head.contains("root") && !head.contains("10.0.0.1"), "{head}");
    let twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")];
    assert_eq!(get(gateway.data, "/rest/orders", &twice).status, 400);
    gateway.stop();
}

#[test]
fn what_follows_a_request_for_another_protocol_waits_for_its_answer() {
    let recorder = Recorder::new();
    let gateway = house("", &recorder).serve();
    let fields = format!("Host: a\r\nX-API-Key: {}\r\n", key(1));
    let asks =
        format!("GET /rest/orders HTTP/1.1\r\n{fields}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    // Nobody agrees, so it goes on in HTTP, followed as before.
    let chunked = format!("POST /rest/orders HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n");
    let odd = format!("{asks}{asks}{chunked}Content-Length: 6\r\n\r\n0\r\n\r\n{SMUGGLED}");
    let answers = exchange(gateway.data, odd.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    assert_eq!(recorder.lines(), ["GET /rest/orders HTTP/1.1"; 2]);

    let mut patient = connect(gateway.data);
    for _ in 0..2 {
        patient.write_all(asks.as_bytes()).expect("sent");
        let head = read_head(&mut patient);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        patient.read_exact(&mut [0; 2]).expect("the recorder's answer");
    }
    drop(patient);
    gateway.stop();
}
