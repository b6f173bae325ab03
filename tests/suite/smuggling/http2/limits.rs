//! What one connection of HTTP/2 may ask for: heads, answers that nobody takes, floods.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::support::house::{self, House, get, read_head, server};

/// 431 in Huffman's code (RFC 7541, appendix B).
const HUFFMAN_431: &[u8] = &[0x69, 0x90, 0xff];

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
    house::until("its connection is ended", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let sent = client.write_all(&frame(HEADERS, flags, stream, &ask("/livez")));
        stream += 2;
        sent.is_err().then_some(())
    });
    assert_eq!(recorder.lines().len(), 3);
    let metrics = get(gateway.admin, "/metrics", &[]).body;
    assert!(metrics.contains("gatepost_http_connections_overdue_total 1"), "{metrics}");
    house::until("their places are free", || {
        let metrics = get(gateway.admin, "/metrics", &[]).body;
        metrics.contains("gatepost_http_proxied 0").then_some(())
    });
    gateway.stop();
}

/// An upstream that says `a`, and `b` once it is told to.
fn hesitant() -> (SocketAddr, Sender<()>) {
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let address = server(move |mut stream| {
        read_head(&mut stream);
        let told = told.lock().expect("no panic");
        for (at, piece) in ["1\r\na\r\n", "1\r\nb\r\n"].iter().enumerate() {
            if at == 0 {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).expect("the gateway reads");
            } else if told.recv().is_err() {
                return;
            }
            stream.write_all(piece.as_bytes()).expect("the gateway reads");
        }
        // Until the gateway closes.
        drop(stream.read(&mut [0]));
    });
    (address, tell)
}

#[test]
fn a_window_that_is_shut_while_an_upstream_is_waited_for_is_waited_for_no_longer() {
    let (upstream, tell) = hesitant();
    let (pair, trusted) = Pair::new();
    let house = House::new(&format!(
        "send_timeout = \"1s\"\n{}\
         [[upstreams]]\nname = \"app\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/a\"\nupstream = \"app\"\naccess = \"anonymous\"\n",
        pair.section()
    ));
    let gateway = house.serve();
    let mut client = open(&gateway, &trusted);
    let asked =
        fields(&[(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "a")]);
    client.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asked)).expect("sent");
    assert!(until(&mut client, &[DATA]).is_some_and(|(_, data)| data == b"a"));
    client.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).expect("sent");
    // It is in force when it is acknowledged: two others were before it.
    assert!(until(&mut client, &[SETTINGS]).is_some());
    tell.send(()).expect("the upstream waits");
    let mut ping = 0_u64;
    house::until("its connection is ended", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        ping += 1;
        client.write_all(&frame(PING, 0, 0, &ping.to_be_bytes())).is_err().then_some(())
    });
    let metrics = get(gateway.admin, "/metrics", &[]).body;
    assert!(metrics.contains("gatepost_http_connections_overdue_total 1"), "{metrics}");
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
