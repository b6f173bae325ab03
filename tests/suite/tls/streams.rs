//! What streams while all that can be exchanged is exchanged.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::support::house::server;

const HALF: usize = 8 << 20;

/// Answers a GET with twice [`HALF`], of which the second waits for a word, and says of anything
/// else how long its body was.
fn halves() -> (SocketAddr, Sender<()>) {
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let address = server(move |mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let length = 2 * HALF;
        if head.starts_with("GET") {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(answer.as_bytes()).expect("the gateway reads");
            stream.write_all(&vec![b'a'; HALF]).expect("the gateway reads");
            told.lock().expect("no panic").recv().expect("a word");
            stream.write_all(&vec![b'b'; HALF]).expect("the gateway reads");
        } else {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("the whole body");
            let sorted = body[..HALF].iter().all(|byte| *byte == b'a')
                && body[HALF..].iter().all(|byte| *byte == b'b');
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{sorted}");
            stream.write_all(answer.as_bytes()).expect("the gateway reads");
        }
    });
    (address, tell)
}

fn begin(client: &mut Client, line: &str) {
    let key = key(1);
    let head = format!("{line} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n");
    let length = if line.starts_with("PUT") { 2 * HALF } else { 0 };
    client.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes()).expect("sent");
}

/// The next half of an answer's body.
fn half(client: &mut Client, byte: u8) {
    let mut body = vec![0; HALF];
    client.read_exact(&mut body).expect("it goes on");
    assert!(body.iter().all(|found| *found == byte));
}

#[test]
fn large_bodies_go_on_while_routes_upstreams_and_certificate_are_exchanged() {
    let (pair, first) = Pair::new();
    let (upstream, tell) = halves();
    let routed = |path: &str, upstream: SocketAddr| {
        format!(
            "{}[[upstreams]]\nname = \"up\"\ntargets = [\"http://{upstream}\"]\n\
             [[routes]]\npath = \"{path}\"\nupstream = \"up\"\n{}",
            pair.section(),
            declared("shop", &key(1)),
        )
    };
    let house = House::new(&routed("/old", upstream));
    let mut gateway = house.serve();
    let open = || shake(gateway.data, &first, &["http/1.1"]).expect("a handshake");
    let (mut down, mut up, mut idle) = (open(), open(), open());
    begin(&mut down, "GET /old");
    assert!(read_head(&mut down).starts_with("HTTP/1.1 200"));
    half(&mut down, b'a');
    begin(&mut up, "PUT /old");
    up.write_all(&vec![b'a'; HALF]).expect("it is read");
    assert!(ask(&mut idle, "/livez").0.starts_with("HTTP/1.1 200"));

    let second = pair.renew(-1, 1);
    house.configure(&house.data(), &routed("/new", mirror()));
    gateway.program.signal("-HUP");
    gateway.program.hear("the configuration was reloaded");
    let mut new = shake(gateway.data, &second, &["http/1.1"]).expect("the new certificate");
    assert!(ask(&mut new, "/old").0.starts_with("HTTP/1.1 404"));
    assert!(ask(&mut idle, "/new").0.starts_with("HTTP/1.1 200"));

    tell.send(()).expect("it waits");
    half(&mut down, b'b');
    up.write_all(&vec![b'b'; HALF]).expect("it is read");
    assert!(read_head(&mut up).starts_with("HTTP/1.1 200"));
    let mut sorted = [0; 4];
    up.read_exact(&mut sorted).expect("a body");
    assert_eq!(&sorted, b"true");
    for client in [&mut down, &mut up] {
        assert!(ask(client, "/new").0.starts_with("HTTP/1.1 200"), "the connection is kept");
        assert!(ask(client, "/old").0.starts_with("HTTP/1.1 404"));
    }
    drop((down, up, idle, new));
    gateway.stop();
}
