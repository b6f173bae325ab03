//! What a client writes itself, before the real programs with their recipes: nobody's backend reads
//! a name, an origin or a path in it, and no tunnel passes that nobody was asked about.

use std::io::{Read, Write};

use super::super::nginx::nginx;
use super::super::support::house::{connect, exchange, read_head, server};
use super::*;

type Make = fn(SocketAddr, SocketAddr) -> Front;

const IDENTITY: [&str; 4] =
    ["x-gatepost-client", "x-gatepost-key-id", "x-gatepost-subject", "x-gatepost-scopes"];
/// Some backends serve this path, or this host, in the place of the request's own.
pub const CLAIMS: [&str; 14] = [
    "X-Original-URL",
    "X-Original_URL",
    "X_Original-URL",
    "X.Original.URL",
    "X-Rewrite-URL",
    "X_Rewrite-Url",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X_Forwarded-Host",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded",
    "X-Real-IP",
];
/// For a proxy that works it off after it has heard who it is, and for the next one.
const NAMED: &str = "close, X-Gatepost-Client, x-gatepost-key-id,X-GATEPOST-SUBJECT, X-Hop";

/// Every way to write it that some backend reads as `X-Gatepost-…`.
pub fn spellings(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.splitn(3, '-').collect();
    let signs = ["-", "_", ".", "!"];
    let pairs = signs.iter().flat_map(|first| signs.map(|second| (*first, second)));
    pairs.map(|(first, second)| [parts[0], first, parts[1], second, parts[2]].concat()).collect()
}

/// The fields of a head as a backend may read them that takes every sign for a hyphen.
fn read_loosely(head: &str) -> Vec<(String, &str)> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let plain = |sign: char| if sign.is_ascii_alphanumeric() { sign } else { '-' };
    let loose = |name: &str| name.chars().map(plain).collect::<String>().to_ascii_lowercase();
    fields.map(|(name, value)| (loose(name), value.trim())).collect()
}

fn nobody_names_himself(program: &str, make: Make) {
    let house = house();
    let gateway = house.serve();
    let forged: Vec<String> = IDENTITY.iter().flat_map(|name| spellings(name)).collect();
    let forged: Vec<&str> = forged.iter().map(String::as_str).chain(CLAIMS).collect();
    let bearer = format!("Authorization: Bearer {}\r\n", key(1));
    let front = make(gateway.data, mirror());
    for (path, credential, client) in [("/x", &*bearer, "shop"), ("/free/x", "", "")] {
        for named in ["close", NAMED] {
            let mut asked = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{credential}");
            asked += &format!("Connection: {named}\r\nX-Hop: 1\r\nX-Kept: 1\r\n");
            for name in &forged {
                asked += &format!("{name}: forged\r\n");
            }
            let told = exchange(front.address, (asked + "\r\n").as_bytes());
            let told = told.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let say = format!("{program}, {path}, {named}: {told}");
            assert!(told.contains(&format!("GET {path} ")), "{say}");
            assert!(!told.contains("forged"), "{say}");
            let fields = read_loosely(told);
            let all = |wanted: &str| {
                let found = fields.iter().filter(|(name, _)| name == wanted);
                found.map(|(_, value)| *value).collect::<Vec<_>>()
            };
            // A proxy sends none or an empty one where there is nothing to say.
            let one = |name| all(name).concat();
            assert_eq!(one("x-gatepost-client"), client, "{say}");
            assert_eq!(one("x-gatepost-key-id").len(), client.len() * 9, "{say}");
            assert_eq!(one("x-gatepost-subject") + &one("x-gatepost-scopes"), "", "{say}");
            assert_eq!(all("x-forwarded-for"), ["127.0.0.1"], "{say}");
            assert_eq!(all("x-forwarded-host"), ["test"], "{say}");
            assert_eq!(all("x-kept"), ["1"], "{say}");
            // nginx says its own `Connection`, and passes on what the client named in it.
            let ends = named == NAMED && program != "nginx";
            assert_eq!(all("x-hop").is_empty(), ends, "{say}");
            assert!(!all("connection").concat().to_ascii_lowercase().contains("x-"), "{say}");
        }
    }
    gateway.stop();
}

/// A backend that becomes whatever it is asked to, and tells else what it got.
fn willing() -> SocketAddr {
    server(|mut stream| {
        let head = read_head(&mut stream);
        let asked = head.lines().filter_map(|line| line.split_once(": "));
        let asked = asked.filter(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        let asked = asked.map(|(_, protocol)| protocol).collect::<Vec<_>>().join(", ");
        if asked.is_empty() {
            let length = head.len();
            let start = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
            let answer = format!("{start}Connection: close\r\n\r\n{head}");
            return drop(stream.write_all(answer.as_bytes()));
        }
        let granted = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        drop(stream.write_all(granted.as_bytes()));
        let mut part = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut part) {
            drop(stream.write_all(&part[..length]));
        }
    })
}

fn upgrade(front: &Front, fields: &str) -> (TcpStream, String) {
    let mut stream = connect(front.address);
    let asked = format!(
        "GET /free/x HTTP/1.1\r\nHost: test\r\n{fields}Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).expect("somebody reads");
    let head = read_head(&mut stream);
    (stream, head)
}

fn only_websocket_passes(program: &str, make: Make) {
    let house = house();
    let gateway = house.serve();
    let front = make(gateway.data, willing());
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket2\r\n",
    ] {
        let (_, head) = upgrade(&front, fields);
        assert!(head.starts_with("HTTP/1.1 200 "), "{program}, {fields}: {head}");
    }
    // Beside WebSocket another protocol is not granted either, whichever of them comes first.
    for fields in ["Upgrade: h2c, websocket\r\n", "Upgrade: h2c\r\nUpgrade: websocket\r\n"] {
        let (_, head) = upgrade(&front, &format!("Connection: Upgrade\r\n{fields}"));
        assert!(!head.to_ascii_lowercase().contains("h2c"), "{program}, {fields}: {head}");
    }
    let fields = "Connection: keep-alive, Upgrade, X-Gatepost-Client\r\nUpgrade: WebSocket\r\n";
    let (mut stream, head) = upgrade(&front, fields);
    assert!(head.starts_with("HTTP/1.1 101 "), "{program}: {head}");
    stream.write_all(b"ping").expect("a tunnel");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).expect("an echo");
    assert_eq!(&echo, b"ping", "{program}");
    gateway.stop();
}

fn one_host_is_asked_about_and_served(program: &str, make: Make) {
    let house = house();
    let gateway = house.serve();
    let front = make(gateway.data, mirror());
    let ask = |target: &str, host: &str| {
        let asked = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(front.address, asked.as_bytes())
    };
    for (target, host) in [
        ("/hosted/x", "free.example"),
        ("/hosted/x", "free.example:8000"),
        ("http://free.example/hosted/x", "free.example"),
    ] {
        let told = ask(target, host).to_ascii_lowercase();
        assert!(told.starts_with("http/1.1 200 "), "{program}, {target}, {host}: {told}");
        assert!(told.contains("\r\nhost: free.example"), "{program}: {told}");
    }
    assert!(ask("/hosted/x", "paid.example").starts_with("HTTP/1.1 401 "), "{program}");
    // The target wins (RFC 9112 §3.2.2), or the request is refused.
    let told = ask("http://paid.example/hosted/x", "free.example");
    assert!(["401", "400"].iter().any(|no| told[9..].starts_with(no)), "{program}: {told}");
    let told = ask("http://free.example/hosted/x", "paid.example").to_ascii_lowercase();
    assert!(!told.contains("\r\nhost: paid.example"), "{program}: {told}");
    gateway.stop();
}

#[test]
fn nobody_names_himself_before_caddy() {
    nobody_names_himself("Caddy", caddy);
}

#[test]
fn nobody_names_himself_before_haproxy() {
    nobody_names_himself("HAProxy", haproxy);
}

#[test]
fn nobody_names_himself_before_nginx() {
    nobody_names_himself("nginx", nginx);
}

#[test]
fn only_websocket_passes_caddy() {
    only_websocket_passes("Caddy", caddy);
}

#[test]
fn only_websocket_passes_haproxy() {
    only_websocket_passes("HAProxy", haproxy);
}

#[test]
fn only_websocket_passes_nginx() {
    only_websocket_passes("nginx", nginx);
}

#[test]
fn one_host_is_asked_about_and_served_by_caddy() {
    one_host_is_asked_about_and_served("Caddy", caddy);
}

#[test]
fn one_host_is_asked_about_and_served_by_haproxy() {
    one_host_is_asked_about_and_served("HAProxy", haproxy);
}

#[test]
fn one_host_is_asked_about_and_served_by_nginx() {
    one_host_is_asked_about_and_served("nginx", nginx);
}
