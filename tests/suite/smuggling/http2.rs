//! The same in HTTP/2, frame by frame: what cannot be said in HTTP/1 is not translated into it, and
//! who floods is sent away.

mod limits;

use std::io::{ErrorKind, Read, Write};

use axum::body::Bytes;
use axum::http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;

use super::{Recorder, house};
use crate::support::house::{Gateway, key};
use crate::support::tls::{Client, Pair, shake, trusting};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A list of fields, each written out (RFC 7541 §6.2.2).
fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short").min(126));
            block.extend(text.as_bytes());
        }
    }
    block
}

fn open(gateway: &Gateway, trusted: &CertificateDer<'static>) -> Client {
    let mut client = shake(gateway.data, trusted, &["h2"]).expect("a handshake");
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    client.write_all(&hello).expect("sent");
    client
}

/// The type of the next frame and its payload; `None` at the end of the connection.
fn next(client: &mut Client) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    read(client, &mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    read(client, &mut payload)?;
    Some((head[3], payload))
}

fn read(client: &mut Client, bytes: &mut [u8]) -> Option<()> {
    let read = client.read_exact(bytes);
    let nothing = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(!nothing, "nothing for so long is no end");
    read.ok()
}

/// Reads on until a frame of one of `kinds`, or the end.
fn until(client: &mut Client, kinds: &[u8]) -> Option<(u8, Vec<u8>)> {
    loop {
        let (kind, payload) = next(client)?;
        if kinds.contains(&kind) {
            return Some((kind, payload));
        }
    }
}

#[test]
fn what_http1_cannot_say_is_not_translated() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let key = key(1);
    let usual = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/rest/orders"),
        (":authority", "a"),
        ("x-api-key", &*key),
    ];
    for odd in [
        ("x", "a\r\nTransfer-Encoding: chunked"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x: y\r\nz", "a"),
        ("X-Upper", "a"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-gatepost-client"),
        ("upgrade", "websocket"),
        ("host", "b"),
        (":path", "/rest/secrets"),
        ("content-length", "5"),
    ] {
        let mut client = open(&gateway, &trusted);
        let list: Vec<_> = usual.iter().copied().chain([odd]).collect();
        let flags = END_HEADERS | END_STREAM;
        client.write_all(&frame(HEADERS, flags, 1, &fields(&list))).expect("sent");
        let answer = until(&mut client, &[HEADERS, RST_STREAM, GOAWAY]);
        if let Some((HEADERS, block)) = answer {
            // `:status: 400` from the static table.
            assert_eq!(block.first(), Some(&0x8c), "{odd:?}: {block:?}");
        }
    }
    for path in ["/rest/orders HTTP/1.1\r\nX: y", "/rest/or ders", "//rest/orders", "*"] {
        let mut client = open(&gateway, &trusted);
        let mut list = usual;
        list[2].1 = path;
        let flags = END_HEADERS | END_STREAM;
        client.write_all(&frame(HEADERS, flags, 1, &fields(&list))).expect("sent");
        let answer = until(&mut client, &[HEADERS, RST_STREAM, GOAWAY]);
        assert!(
            !matches!(answer, Some((HEADERS, block)) if block.first() == Some(&0x88)),
            "{path}"
        );
    }
    assert_eq!(recorder.lines(), Vec::<String>::new());
    gateway.stop();
}

#[test]
fn an_upstream_is_told_one_length_or_nothing() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let key = key(1);
    let usual = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/rest/orders"),
        (":authority", "a"),
        ("x-api-key", &*key),
        ("content-length", "5"),
    ];
    // The first byte of the answer's head, from the static table.
    let asked = |odd| {
        let list: Vec<_> = usual.iter().copied().chain(odd).collect();
        let mut client = open(&gateway, &trusted);
        client.write_all(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("sent");
        client.write_all(&frame(DATA, END_STREAM, 1, b"hello")).expect("sent");
        until(&mut client, &[HEADERS]).and_then(|(_, block)| block.first().copied())
    };
    assert_eq!(asked(Some(("content-length", "5"))), Some(0x8c), "400");
    assert_eq!(recorder.lines(), Vec::<String>::new());
    // What many would take for the same is not passed on.
    for twin in [("content_length", "30"), ("transfer_encoding", "chunked")] {
        assert_eq!(asked(Some(twin)), Some(0x88), "200: {twin:?}");
    }
    assert_eq!(asked(None), Some(0x88), "200");
    let seen = recorder.whole();
    assert_eq!(seen.len(), 3);
    for (head, body) in seen {
        let framing: Vec<&str> = head
            .lines()
            .filter(|line| line.contains("length") || line.contains("encoding"))
            .collect();
        assert_eq!((framing, &*body), (vec!["content-length: 5"], "hello"), "{head}");
    }
    gateway.stop();
}

/// The library below takes a fragment off `:path` before anybody could refuse it. What is
/// authorised is then what is forwarded, and nothing more.
#[test]
fn what_is_behind_a_fragment_is_neither_authorised_nor_forwarded() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let key = key(1);
    for (path, passes) in [("/rest/orders#/../secrets", true), ("/rest/secrets#/orders", false)] {
        let mut client = open(&gateway, &trusted);
        let list = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", path),
            (":authority", "a"),
            ("x-api-key", &*key),
        ];
        let flags = END_HEADERS | END_STREAM;
        client.write_all(&frame(HEADERS, flags, 1, &fields(&list))).expect("sent");
        let (_, block) = until(&mut client, &[HEADERS]).expect("an answer");
        assert_eq!(block.first() == Some(&0x88), passes, "{path}: {block:?}");
    }
    assert_eq!(recorder.lines(), ["GET /rest/orders HTTP/1.1"]);
    gateway.stop();
}

#[test]
fn no_tunnel_begins_in_http2() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let key = key(1);
    // The second by RFC 8441, which was never offered.
    let extended = [(":protocol", "websocket"), (":scheme", "https"), (":path", "/rest/orders")];
    for more in [&[][..], &extended] {
        let mut list = vec![(":method", "CONNECT"), (":authority", "a")];
        list.extend(more);
        list.push(("x-api-key", &*key));
        let mut client = open(&gateway, &trusted);
        client.write_all(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("sent");
        let answer = until(&mut client, &[HEADERS, RST_STREAM, GOAWAY]);
        let agreed = matches!(answer, Some((HEADERS, block)) if block.first() == Some(&0x88));
        assert!(!agreed, "{more:?}");
    }
    assert_eq!(recorder.lines(), Vec::<String>::new());
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_http2_are_forwarded_as_they_are() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let tls = trusting(&trusted, &["h2"]);
    let pool = Pool::builder(TokioExecutor::new())
        .http2_only(true)
        .build::<_, Full<Bytes>>(hyper_rustls::HttpsConnector::from((connector, tls)));
    let port = gateway.data.port();
    let ask = |body: &'static str| {
        let request = Request::post(format!("https://localhost:{port}/rest/orders?a=b"))
            .version(Version::HTTP_2)
            .header("x-api-key", key(1))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::from(body))
            .expect("a request");
        pool.request(request)
    };
    let answers = tokio::join!(ask("one"), ask("two"), ask("three"));
    for answer in [answers.0, answers.1, answers.2] {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"ok");
    }
    let mut bodies: Vec<String> = Vec::new();
    for (head, body) in recorder.whole() {
        assert!(head.starts_with("POST /rest/orders?a=b HTTP/1.1"), "{head}");
        assert!(head.contains("cookie: a=1; b=2"), "{head}");
        bodies.push(body);
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["one", "three", "two"]);
    drop(pool);
    gateway.stop();
}

fn house_over_tls(recorder: &Recorder, pair: &Pair) -> Gateway {
    house(&pair.section(), recorder).serve()
}
