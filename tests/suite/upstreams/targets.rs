//! Targets that are dead, mute or slow, beside one that is well.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::support::house::{
    Gateway, House, connect, declared, get, key, read_head, server, until,
};

fn answer(stream: &mut TcpStream, text: &str) {
    let length = text.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
    // Whoever asked may be gone.
    drop(stream.write_all(answer.as_bytes()));
}

/// Says `well` to everything.
fn well() -> SocketAddr {
    server(|mut stream| {
        read_head(&mut stream);
        answer(&mut stream, "well");
    })
}

/// Takes connections, reads, and says nothing.
fn mute() -> SocketAddr {
    server(|mut stream| drop(stream.read_to_end(&mut Vec::new())))
}

/// Nobody listens.
fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port")
}

/// Says that it is asked, and answers `slow` for each word that it gets.
fn slow() -> (SocketAddr, Receiver<()>, Sender<()>) {
    let ((ask, asked), (tell, told)) = (channel(), channel());
    let told = Mutex::new(told);
    let address = server(move |mut stream| {
        read_head(&mut stream);
        ask.send(()).expect("the test hears");
        if told.lock().expect("no panic").recv().is_ok() {
            answer(&mut stream, "slow");
        }
    });
    (address, asked, tell)
}

/// Keys of `[server]`, the targets, and more of their upstream.
fn before(server: &str, targets: &[SocketAddr], more: &str) -> (House, Gateway) {
    let targets: Vec<String> =
        targets.iter().map(|address| format!("\"http://{address}\"")).collect();
    let house = House::new(&format!(
        "{server}[[upstreams]]\nname = \"up\"\ntargets = [{}]\n{more}\
         [[routes]]\npath = \"/x\"\nupstream = \"up\"\n{}",
        targets.join(", "),
        declared("shop", &key(1))
    ));
    let gateway = house.serve();
    (house, gateway)
}

/// A request that the slow one works at: of two, one behind the other, one is.
fn held(gateway: &Gateway, asked: &Receiver<()>) -> TcpStream {
    for _ in 0..2 {
        let mut stream = connect(gateway.data);
        let key = key(1);
        let head = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        stream.set_nonblocking(true).expect("a socket");
        let slow = until("it is at one of the two", || {
            let answered = || stream.peek(&mut [0]).ok().map(|_| false);
            asked.try_recv().ok().map(|()| true).or_else(answered)
        });
        stream.set_nonblocking(false).expect("a socket");
        if slow {
            return stream;
        }
    }
    panic!("nobody asked the slow one")
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let said = get(gateway.admin, "/metrics", &[]).body;
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {said}")).parse().expect("a number")
}

#[test]
fn who_does_not_pass_the_checks_is_asked_for_nothing_else() {
    let health = "health = { path = \"/healthz\", interval = \"50ms\", timeout = \"500ms\" }\n";
    let server = "upstream_response_timeout = \"1s\"\n";
    let (_house, gateway) = before(server, &[dead(), mute(), well()], health);
    // The checks begin with the first request, whatever becomes of it.
    get(gateway.data, "/x", &[("X-API-Key", &key(1))]);
    until("two are found out", || {
        (metric(&gateway, "gatepost_upstream_unhealthy_total") == 2).then_some(())
    });
    let retries = metric(&gateway, "gatepost_upstream_retries_total");
    for _ in 0..9 {
        // Nothing that could be repeated.
        let answer = get(gateway.data, "POST /x", &[("X-API-Key", &key(1))]);
        assert_eq!((answer.status, &*answer.body), (200, "well"), "{answer:?}");
    }
    assert_eq!(metric(&gateway, "gatepost_upstream_retries_total"), retries);
    gateway.stop();
}

#[test]
fn who_works_at_the_fewest_requests_gets_the_next() {
    let (address, asked, tell) = slow();
    let (_house, gateway) = before("", &[address, well()], "balance = \"least_in_flight\"\n");
    let mut held = held(&gateway, &asked);
    for _ in 0..9 {
        let answer = get(gateway.data, "/x", &[("X-API-Key", &key(1))]);
        assert_eq!((answer.status, &*answer.body), (200, "well"), "{answer:?}");
    }
    assert!(asked.try_recv().is_err(), "it works at one already");
    tell.send(()).expect("it waits");
    let head = read_head(&mut held);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut body = [0; 4];
    held.read_exact(&mut body).expect("a body");
    assert_eq!(&body, b"slow");
    drop(held);
    gateway.stop();
}
