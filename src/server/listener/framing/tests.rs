//! What passes, what does not, and that it is the same however the bytes are cut.

use super::*;

const HEAD_MAX: usize = 1024;

/// The fault in `bytes`, read in parts of `size`; and whether the whole of it was looked at.
fn fault(bytes: &[u8], size: usize) -> Option<Fault> {
    let mut framing = Framing::new(HEAD_MAX);
    let mut found = None;
    for part in bytes.chunks(size) {
        if let Err((at, fault)) = framing.follow(part, || Switch::Open) {
            assert!(at < part.len());
            found = Some(fault);
            break;
        }
    }
    found
}

fn faults(text: &str) -> Option<Fault> {
    let whole = fault(text.as_bytes(), text.len());
    for size in 1..text.len() {
        assert_eq!(fault(text.as_bytes(), size), whole, "in parts of {size}: {text:?}");
    }
    whole
}

fn head(fields: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn plain_requests_pass_one_behind_the_other() {
    let chunked = head("Transfer-Encoding: \tChunked \r\n");
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3),
        format!("\r\n{}12345{}", head("content-length:5\r\n"), head("")),
        format!("{chunked}5\r\n12345\r\n0\r\n\r\n{}", head("")),
        format!("{chunked}a;b=\"c\"\r\n\r\n34567\r\nx\r\n0\r\nTrailer: x\r\n\r\n{}", head("")),
        head(&format!("X: {}\r\nContent-Length: 0\r\n", "x".repeat(500))),
    ] {
        assert_eq!(faults(&text), None, "{text:?}");
    }
}

#[test]
fn heads_that_readers_disagree_on_are_faults() {
    for (fields, want) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Fault::Coding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Fault::Coding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::Coding),
        ("Transfer-Encoding: gzip, chunked\r\n", Fault::Coding),
        ("Transfer-Encoding: chunked, identity\r\n", Fault::Coding),
        ("Transfer-Encoding: xchunked\r\n", Fault::Coding),
        ("Transfer-Encoding:\r\n", Fault::Coding),
        ("Transfer_Encoding: chunked\r\n", Fault::Coding),
        ("Content_Length: 5\r\n", Fault::Length),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Fault::Length),
        ("Content-Length: 5, 5\r\n", Fault::Length),
        ("Content-Length: 18446744073709551615\r\n", Fault::Endless),
        ("Content-Length: 99999999999999999999999\r\n", Fault::Endless),
        ("Content-Length: +5\r\n", Fault::Length),
        ("Content-Length: -5\r\n", Fault::Length),
        ("Content-Length: 0x5\r\n", Fault::Length),
        ("Content-Length:\r\n", Fault::Length),
        ("Content-Length : 5\r\n", Fault::Line),
        ("X: a\r\n b\r\n", Fault::Line),
        ("X: a\r\n\tContent-Length: 5\r\n", Fault::Line),
        (" X: a\r\n", Fault::Line),
        (": a\r\n", Fault::Line),
        ("X: a\nContent-Length: 5\r\n", Fault::Line),
        ("X: a\rContent-Length: 5\r\n", Fault::Line),
        ("X: a\r\r\n", Fault::Line),
    ] {
        assert_eq!(faults(&head(fields)), Some(want), "{fields:?}");
    }
    for (text, want) in [
        ("GET / HTTP/1.1\nHost: a\n\n", Fault::Line),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Request),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Request),
        ("GET /a#/../b HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Request),
        (&format!("GET /{}#b HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(300)), Fault::Request),
    ] {
        assert_eq!(faults(text), Some(want), "{text:?}");
    }
}

#[test]
fn a_head_is_as_large_as_it_may_be_and_no_larger() {
    let sized = |size: usize| {
        let bare = head("X: \r\n").len();
        head(&format!("X: {}\r\n", "x".repeat(size - bare)))
    };
    assert_eq!(faults(&sized(HEAD_MAX).repeat(2)), None, "each is counted by itself");
    assert_eq!(faults(&sized(HEAD_MAX + 1)), Some(Fault::Large));
    assert_eq!(faults(&"\r\n".repeat(HEAD_MAX)), Some(Fault::Large));
    assert_eq!(fault(&[b'x'; HEAD_MAX], HEAD_MAX), None, "its end may be elsewhere");
}

#[test]
fn a_fault_shows_before_the_head_has_ended() {
    let text = head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let (at, _) =
        Framing::new(HEAD_MAX).follow(text.as_bytes(), || Switch::Open).expect_err("a fault");
    assert!(!text[..at].contains("\r\n\r\n"), "{at}");
}

#[test]
fn chunks_that_readers_disagree_on_are_faults() {
    let extension = format!("5;{}\r\n", "x".repeat(300));
    for body in [
        "5\n12345\r\n0\r\n\r\n",
        "5 \r\n12345\r\n0\r\n\r\n",
        " 5\r\n12345\r\n0\r\n\r\n",
        "0x5\r\n12345\r\n0\r\n\r\n",
        "-5\r\n",
        "\r\n",
        ";a\r\n",
        "5;a\nb\r\n",
        "5;a\rb\r\n",
        "5;a\0\r\n",
        "5\r\n123456\r\n",
        "5\r\n12345\n",
        "5\r\n12345\rX",
        "0\r\n\n",
        "0\r\n a: b\r\n\r\n",
        "0\r\na: b\n\r\n",
        "0000000000000000\r\n",
        "ffffffffffffffff\r\n",
        &extension,
    ] {
        let text = format!("{}{body}", head("Transfer-Encoding: chunked\r\n"));
        assert_eq!(faults(&text), Some(Fault::Chunk), "{body:?}");
    }
}

#[test]
fn another_protocol_begins_when_it_was_agreed_on() {
    let asks = head("Upgrade: websocket\r\n");
    let frames = b"\x81\x05\n\0hello";
    let followed = |switch| {
        let mut framing = Framing::new(HEAD_MAX);
        framing.follow(asks.as_bytes(), || Switch::Open).expect("a request");
        (framing.follow(frames, || switch), framing)
    };
    assert_eq!(followed(Switch::Open).0, Ok(0), "they wait");
    let (granted, framing) = followed(Switch::Granted);
    assert!(granted.is_ok() && framing.is_tunnel());
    assert!(matches!(followed(Switch::Declined).0, Err((_, Fault::Line))), "HTTP goes on");
}

#[test]
fn http2_begins_with_its_preface() {
    let mut framing = Framing::http2();
    for byte in PREFACE.iter().chain(b"\0\0\0\n\r") {
        assert_eq!(framing.follow(&[*byte], || Switch::Open), Ok(1));
    }
    let spoken = Framing::http2().follow(b"GET / HTTP/1.1\r\n", || Switch::Open);
    assert_eq!(spoken, Err((0, Fault::Request)));
}

proptest::proptest! {
    /// Bytes as callers send them, and bytes as nobody should.
    #[test]
    fn no_bytes_make_it_panic_and_no_cut_makes_a_difference(
        heads in "(GET / HTTP/1.1\r\nHost: a\r\n){0,2}",
        fields in "[TtCceE:a-f0-9 \t;,=\r\n\u{0}-]{0,60}",
        coding in "(Transfer-Encoding: chunked\r\n|Content-Length: [0-9]{1,22}\r\n){0,2}",
        rest: Vec<u8>,
    ) {
        let bytes = [heads.as_bytes(), coding.as_bytes(), fields.as_bytes(), b"\r\n\r\n", &rest];
        let bytes = bytes.concat();
        let whole = fault(&bytes, bytes.len());
        for size in 1..bytes.len().min(40) {
            proptest::prop_assert_eq!(fault(&bytes, size), whole, "in parts of {}", size);
        }
    }
}

/// Whatever comes is followed the same in any parts; and nothing is looked at behind a fault.
#[test]
fn any_bytes_are_followed_as_they_are_cut() {
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let good = [
        format!("{}12345{}", head("Content-Length: 5\r\n"), head("")),
        format!("{chunked}5;a=\"b\"\r\n12345\r\n0\r\nTrailer: x\r\n\r\n{}", head("")),
        head("Connection: upgrade\r\nUpgrade: websocket\r\n"),
    ];
    crate::fuzz::each("HTTP/1 framing", &good.map(String::into_bytes), |bytes| {
        let whole = fault(bytes, bytes.len().max(1));
        for size in [1, 7] {
            assert_eq!(fault(bytes, size), whole);
        }
        let _found = Framing::http2().follow(bytes, || Switch::Declined);
    });
}
