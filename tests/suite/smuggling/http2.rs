//! The same in HTTP/2, frame by frame: what cannot be said in HTTP/1 is not translated into it, and
//! who floods is sent away.

use std::io::{Read, Write};

use axum::body::Bytes;
use axum::http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;

use super::{Recorder, house};
use crate::support::house::{Gateway, get, key};
use crate::support::tls::{Client, Pair, shake, trusting};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// 431 in Huffman's code (RFC 7541, appendix B).
const HUFFMAN_431: &[u8] = &[0x69, 0x90, 0xff];
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
    client.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    client.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
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

/// Floods with `part`, as often as it may, and expects to be sent away.
fn sent_away(mut client: Client, part: impl Fn(u32) -> Vec<u8>) {
    for at in 0..100_000 {
        if client.write_all(&part(at)).is_err() {
            break;
        }
    }
    let end = until(&mut client, &[GOAWAY]);
    // Whatever is still on its way may have been lost with a reset; then that was the end.
    assert!(end.is_none_or(|(kind, _)| kind == GOAWAY));
    while next(&mut client).is_some() {}
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

#[test]
fn a_head_may_have_so_many_fields_and_so_many_bytes() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let key = key(1);
    let usual = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/rest/orders"),
        (":authority", "a"),
        ("x-api-key", &*key),
    ];
    let value = "y".repeat(120);
    for (count, value) in [(100, "y"), (300, &*value)] {
        let list: Vec<_> = usual.into_iter().chain(vec![("x", value); count]).collect();
        let mut client = open(&gateway, &trusted);
        let block = fields(&list);
        let (first, rest) = block.split_at(block.len().min(16_000));
        client.write_all(&frame(HEADERS, END_STREAM, 1, first)).expect("sent");
        for part in rest.chunks(16_000) {
            client.write_all(&frame(CONTINUATION, 0, 1, part)).expect("sent");
        }
        client.write_all(&frame(CONTINUATION, END_HEADERS, 1, &[])).expect("sent");
        let (_, answer) = until(&mut client, &[HEADERS]).expect("an answer");
        // `:status`, written out.
        assert!(answer.windows(3).any(|part| part == b"431" || part == HUFFMAN_431), "{answer:?}");
    }
    assert_eq!(recorder.lines(), Vec::<String>::new());
    gateway.stop();
}

#[test]
fn an_answer_that_nobody_takes_ends_its_connection_whatever_else_is_asked() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let limits = format!("send_timeout = \"1s\"\n{}", pair.section());
    let gateway = house(&limits, &recorder).serve();
    let key = key(1);
    let ask = |path| {
        fields(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", path),
            (":authority", "a"),
            ("x-api-key", &*key),
        ])
    };
    let mut client = open(&gateway, &trusted);
    // No window: nothing of any answer's body may be sent.
    client.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).expect("sent");
    let flags = END_HEADERS | END_STREAM;
    for stream in [1, 3, 5] {
        client.write_all(&frame(HEADERS, flags, stream, &ask("/rest/orders"))).expect("sent");
    }
    let mut stream = 7;
    crate::support::house::until("its connection is ended", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let sent = client.write_all(&frame(HEADERS, flags, stream, &ask("/livez")));
        stream += 2;
        sent.is_err().then_some(())
    });
    assert_eq!(recorder.lines().len(), 3);
    let metrics = get(gateway.admin, "/metrics", &[]).body;
    assert!(metrics.contains("gatepost_http_connections_overdue_total 1"), "{metrics}");
    crate::support::house::until("their places are free", || {
        let metrics = get(gateway.admin, "/metrics", &[]).body;
        metrics.contains("gatepost_http_proxied 0").then_some(())
    });
    gateway.stop();
}

#[test]
fn floods_end_their_connection_and_others_are_served() {
    let recorder = Recorder::new();
    let (pair, trusted) = Pair::new();
    let gateway = house_over_tls(&recorder, &pair);
    let asked = fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/livez"),
        (":authority", "a"),
    ]);
    // Opened and reset at once, again and again (CVE-2023-44487).
    sent_away(open(&gateway, &trusted), |at| {
        let stream = 2 * at + 1;
        let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, &asked);
        both.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        both
    });
    // A head that never ends (CVE-2024-27316).
    sent_away(open(&gateway, &trusted), |at| match at {
        0 => frame(HEADERS, 0, 1, &asked),
        _ => frame(CONTINUATION, 0, 1, &fields(&[("x", "y"); 100])),
    });
    // A body of nothing, forever (CVE-2019-9518).
    let posted = fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/v1/keys/verify"),
        (":authority", "a"),
    ]);
    sent_away(open(&gateway, &trusted), |at| match at {
        0 => frame(HEADERS, END_HEADERS, 1, &posted),
        _ => frame(DATA, 0, 1, &[]),
    });
    // HTTP/1.1 where HTTP/2 was agreed on.
    let mut liar = shake(gateway.data, &trusted, &["h2"]).expect("a handshake");
    liar.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut said = Vec::new();
    drop(liar.read_to_end(&mut said));
    assert!(!String::from_utf8_lossy(&said).contains(" 200 "));

    let mut good = open(&gateway, &trusted);
    let flags = END_HEADERS | END_STREAM;
    good.write_all(&frame(HEADERS, flags, 1, &asked)).expect("sent");
    let (_, block) = until(&mut good, &[HEADERS]).expect("an answer");
    assert_eq!(block.first(), Some(&0x88), "200");
    drop(good);
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
