//! Clients that send nonsense, too much, or nothing at all.

use std::io::{Read, Write};

use crate::support::house::{Answer, House, connect, declared, exchange, get, key};

const ASK: &str = "/authz/forward-auth";

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert!(answer.body.contains(&format!("\"code\":\"{code}\"")), "{answer:?}");
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
}

#[test]
fn no_key_and_junk_and_two_keys() {
    let gateway = House::new(&declared("shop", &key(1))).serve();
    refused(&get(gateway.data, ASK, &[]), 401, "missing_credential");
    let wrong = get(gateway.data, ASK, &[("X-API-Key", &key(2))]);
    let long = "x".repeat(4096);
    for junk in ["gp_live_", "hunter2", "日本語", "\u{1}", "a b", &long] {
        for name in ["X-API-Key", "apikey"] {
            let answer = get(gateway.data, ASK, &[(name, junk)]);
            if answer.status != 400 {
                refused(&answer, 401, "invalid_credential");
                assert_eq!(answer.body, wrong.body, "an unknown and a malformed key are alike");
            }
        }
    }
    let bearer = format!("Bearer {}", key(1));
    let two = [("Authorization", bearer.as_str()), ("X-API-Key", &key(2))];
    refused(&get(gateway.data, ASK, &two), 400, "ambiguous_credential");
    let same = [("Authorization", bearer.as_str()), ("X-API-Key", &key(1))];
    assert_eq!(get(gateway.data, ASK, &same).status, 200);
    let query = format!("{ASK}?apikey={}", key(1));
    refused(&get(gateway.data, &query, &[]), 401, "missing_credential");
    gateway.stop();
}

#[test]
fn heads_that_are_too_large_or_no_heads() {
    let gateway = House::new("").serve();
    let many: String = (0..200).map(|at| format!("X-{at}: x\r\n")).collect();
    let large = format!("X: {}\r\n", "x".repeat(256 << 10));
    for headers in [many, large] {
        let text = format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        let answer = exchange(gateway.data, text.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    }
    for nonsense in ["\u{16}\u{3}\u{1}\0\0", "GET\r\n\r\n", "GET / HTTP/9\r\n\r\n"] {
        let answer = exchange(gateway.data, format!("{nonsense}\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{answer}");
    }
    assert_eq!(get(gateway.data, "/livez", &[]).status, 200);
    gateway.stop();
}

#[test]
fn a_question_without_an_end_is_cut_short() {
    let gateway = House::new("").serve();
    let mut stream = connect(gateway.data);
    let head = "POST /v1/keys/verify HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it reads");
    // Until it has heard enough; then its answer is waiting.
    while stream.write_all(&[b"1000\r\n", &[b' '; 0x1000][..], b"\r\n"].concat()).is_ok() {
        if peeked(&stream) {
            break;
        }
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    gateway.stop();
}

/// Whether an answer is there.
fn peeked(stream: &std::net::TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let found = stream.peek(&mut [0]).is_ok_and(|length| length > 0);
    stream.set_nonblocking(false).expect("a socket");
    found
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let gateway = House::new("header_read_timeout = \"300ms\"\n").serve();
    for start in ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: test\r\nX: "] {
        let answer = exchange(gateway.data, start.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{start:?}: {answer}");
    }
    gateway.stop();
}

#[test]
fn a_request_that_does_not_say_where_it_goes_is_no_request() {
    let gateway = House::new(&format!("echo = true\n{}", declared("shop", &key(1)))).serve();
    let key = key(1);
    for path in [ASK, "/authz/ext-authz/x", "/v1/keys/verify", "/echo", "/livez", "/nowhere"] {
        for hosts in ["", "Host: a\r\nHost: b\r\n"] {
            let text = format!("GET {path} HTTP/1.1\r\n{hosts}X-API-Key: {key}\r\n");
            let answer = exchange(gateway.data, (text + "Connection: close\r\n\r\n").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 400"), "{path} {hosts:?}: {answer}");
            assert!(answer.contains("\"code\":\"bad_request\""), "{path} {hosts:?}: {answer}");
        }
    }
    // nginx may ask in HTTP/1.0, which knows no Host.
    let old = format!("GET {ASK} HTTP/1.0\r\nX-API-Key: {key}\r\n\r\n");
    let answer = exchange(gateway.data, old.as_bytes());
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    gateway.stop();
}

#[test]
fn lengths_that_contradict_are_no_request() {
    let gateway = House::new(&declared("shop", &key(1))).serve();
    let key = key(1);
    for lengths in
        ["Content-Length: 3\r\nContent-Length: 4\r\n", "Content-Length: x\r\n", "Host: other\r\n"]
    {
        let text =
            format!("GET /echo HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n{lengths}\r\nabc");
        let answer = exchange(gateway.data, (text + "\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{lengths}: {answer}");
    }
    gateway.stop();
}
