//! The end of the real program while requests run: what they become, and what is counted of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::support::house::{House, declared, exchange, get, key, read_head, server, until};

/// An upstream that answers `/late` when the sender is dropped, and all else never.
fn upstream(heard: &Arc<AtomicUsize>) -> (SocketAddr, Sender<()>) {
    let (hold, held) = channel::<()>();
    let (held, heard) = (Mutex::new(held), Arc::clone(heard));
    let address = server(move |mut stream| {
        let asked = read_head(&mut stream);
        heard.fetch_add(1, Ordering::Relaxed);
        if asked.starts_with("GET /late ") {
            let _until_it_is_dropped = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate";
            stream.write_all(answer).expect("the gateway waits for it");
        } else {
            // Until the gateway gives up.
            drop(stream.read(&mut [0]));
        }
    });
    (address, hold)
}

fn house(upstream: SocketAddr, server: &str) -> House {
    House::new(&format!(
        "workers = 1\n{server}\n[[upstreams]]\nname = \"up\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"up\"\n{}",
        declared("shop", &key(1))
    ))
}

/// Asks for what is never answered, and returns all that is heard.
fn never(data: SocketAddr) -> thread::JoinHandle<String> {
    let head = format!("GET /never HTTP/1.1\r\nHost: test\r\nX-API-Key: {}\r\n\r\n", key(1));
    thread::spawn(move || exchange(data, head.as_bytes()))
}

fn nobody_comes_in(data: SocketAddr) {
    until("a closed door", || TcpStream::connect(data).is_err().then_some(()));
}

#[test]
fn requests_end_in_time_or_are_cut_and_each_is_counted() {
    let heard = Arc::new(AtomicUsize::new(0));
    let (address, hold) = upstream(&heard);
    let house = house(address, "shutdown_deadline = \"6s\"");
    let mut gateway = house.serve();
    let data = gateway.data;
    let late = thread::spawn(move || get(data, "/late", &[("X-API-Key", &key(1))]));
    let never = never(data);
    until("both requests", || (heard.load(Ordering::Relaxed) == 2).then_some(()));
    gateway.program.signal("-TERM");
    nobody_comes_in(data);
    drop(hold);
    let late = late.join().expect("no panic");
    assert_eq!((late.status, &*late.body), (200, "late"));
    assert_eq!(never.join().expect("no panic"), "");
    assert!(gateway.program.end().success());
    let lines = until("both lines", || {
        let said = gateway.program.said();
        let lines: Vec<String> =
            said.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect();
        (lines.len() == 2).then_some(lines)
    });
    assert!(lines[0].contains("/late") && lines[1].contains("/never"), "{lines:?}");
    let (code, usage, said) = house.run(&["usage", "--output", "json"]);
    assert_eq!(code, 0, "{said}");
    let usage: serde_json::Value = serde_json::from_str(&usage).expect("JSON");
    let sum = &usage[0]["sum"];
    let counts = ["requests", "succeeded", "failed"].map(|name| sum[name].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(1)], "{usage}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let heard = Arc::new(AtomicUsize::new(0));
    let (address, _hold) = upstream(&heard);
    let house = house(address, "shutdown_deadline = \"10m\"");
    let mut gateway = house.serve();
    let never = never(gateway.data);
    until("the request", || (heard.load(Ordering::Relaxed) == 1).then_some(()));
    gateway.program.signal("-TERM");
    nobody_comes_in(gateway.data);
    assert!(gateway.program.runs());
    gateway.program.signal("-TERM");
    assert_eq!(gateway.program.end().code(), Some(1));
    until("its last word", || gateway.program.said().contains("a second signal").then_some(()));
    assert_eq!(never.join().expect("no panic"), "");
}
