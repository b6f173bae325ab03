//! The data plane behind a certificate.

mod streams;

use std::io::Write;

use crate::support::house::{House, declared, exchange, key, mirror, read_head};
use crate::support::tls::{Client, Pair, shake};

/// One request without a body; the head of the answer, and what the upstream got.
fn ask(client: &mut Client, path: &str) -> (String, String) {
    let key = key(1);
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n\r\n");
    client.write_all(request.as_bytes()).expect("sent");
    let head = read_head(client);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    std::io::Read::read_exact(client, &mut body).expect("a body");
    (head, String::from_utf8(body).expect("text"))
}

#[test]
fn requests_come_over_tls_and_upstreams_are_told() {
    let (pair, trusted) = Pair::new();
    let upstream = mirror();
    let rest = format!(
        "{}[[upstreams]]\nname = \"mirror\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/a\"\nupstream = \"mirror\"\n{}",
        pair.section(),
        declared("shop", &key(1)),
    );
    let gateway = House::new(&rest).serve();
    let mut client = shake(gateway.data, &trusted, &["http/1.1"]).expect("a handshake");
    let (head, seen) = ask(&mut client, "/a");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(seen.to_ascii_lowercase().contains("x-forwarded-proto: https"), "{seen}");
    // The connection is kept.
    assert!(ask(&mut client, "/livez").0.starts_with("HTTP/1.1 200"));
    let plain = exchange(gateway.data, b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    drop(client);
    gateway.stop();
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_the_start() {
    let (pair, _) = Pair::new();
    let house = House::new(&pair.section());
    let refused = |words: &str| {
        let (code, _, said) = house.run(&["serve"]);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(words) && said.contains("server.tls."), "{said}");
    };
    pair.renew(-9, -1);
    refused("expired at");
    let cert = std::fs::read(pair.cert()).expect("written");
    pair.renew(-1, 1);
    std::fs::write(pair.cert(), cert).expect("written");
    refused("cert.pem expired at");
    let key = std::fs::read(pair.key()).expect("written");
    pair.renew(-1, 1);
    std::fs::write(pair.key(), key).expect("written");
    refused("does not belong to the certificate");
    std::fs::remove_file(pair.key()).expect("removed");
    refused("key.pem: cannot be read");
    assert!(!house.data().exists(), "nothing was begun");
}

#[test]
fn doctor_looks_at_the_certificate() {
    let (pair, _) = Pair::new();
    let house = House::new(&pair.section());
    let told = |words: &str| {
        let (_, said, _) = house.run(&["--output", "table", "doctor"]);
        let line = said.lines().find(|line| line.contains("certificate")).expect("a line");
        assert!(line.contains(words), "{said}");
    };
    told("ends soon");
    pair.renew(-1, 90);
    told("is good until");
    pair.renew(-9, -1);
    told("FAIL");
    pair.renew(-1, 90);
    std::fs::remove_file(pair.key()).expect("removed");
    told("cannot be read");
}

#[test]
fn a_reload_takes_the_new_certificate_and_keeps_the_old_where_it_is_wrong() {
    let (pair, first) = Pair::new();
    let house = House::new(&pair.section());
    let mut gateway = house.serve();
    let mut open = shake(gateway.data, &first, &["http/1.1"]).expect("a handshake");

    pair.renew(-9, -1);
    gateway.program.signal("-HUP");
    gateway.program.hear("the configuration was not reloaded");
    assert!(gateway.program.said().contains("cert.pem expired at"), "{}", gateway.program.said());
    shake(gateway.data, &first, &["http/1.1"]).expect("the old one is shown");

    let second = pair.renew(-1, 1);
    gateway.program.signal("-HUP");
    gateway.program.hear("the configuration was reloaded");
    shake(gateway.data, &first, &["http/1.1"]).expect_err("the new one is shown");
    let mut new = shake(gateway.data, &second, &["http/1.1"]).expect("a handshake");
    for client in [&mut open, &mut new] {
        assert!(ask(client, "/livez").0.starts_with("HTTP/1.1 200"), "nobody was cut off");
    }
    drop((open, new));
    gateway.stop();
}
