//! Clients that take their time: none of them keeps a place for longer than is its share, and
//! others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::{Recorder, head, house};
use crate::support::house::{Gateway, connect, get, key, until};
use crate::support::process::{files, resident_kib};

/// What one who never ends his head may cost.
const KIB_EACH: u64 = 64;

/// As many as the machine lets one process have, with room for what else there is.
fn many() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(400).min(5_000)
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let said = get(gateway.admin, "/metrics", &[]).body;
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {said}")).parse().expect("a number")
}

fn serves(gateway: &Gateway) {
    let answer = get(gateway.data, "/rest/orders", &[("X-API-Key", &key(1))]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Whether the other side has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let read = stream.read(&mut [0; 64]);
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn thousands_of_half_heads_are_closed_and_others_are_served() {
    let recorder = Recorder::new();
    let gateway = house("header_read_timeout = \"3s\"\n", &recorder).serve();
    serves(&gateway);
    let before = (files(gateway.program.pid()), resident_kib(gateway.program.pid()));
    let mut slow: Vec<TcpStream> = (0..many())
        .map(|_| {
            let mut stream = connect(gateway.data);
            stream.write_all(b"GET /rest/orders HTTP/1.1\r\nHost: a\r\nX-Slow: ").expect("sent");
            stream
        })
        .collect();
    serves(&gateway);
    // Each is a buffer, and no more of it than was sent.
    let grown = resident_kib(gateway.program.pid()).saturating_sub(before.1);
    assert!(grown / (slow.len() as u64) < KIB_EACH, "{grown} KiB for {}", slow.len());
    until("they are closed", || {
        // Every further byte does not begin the time anew.
        slow.iter_mut().for_each(|stream| drop(stream.write_all(b"x")));
        slow.retain_mut(|stream| !is_closed(stream));
        serves(&gateway);
        slow.is_empty().then_some(())
    });
    until("their places are free", || {
        (metric(&gateway, "gatepost_http_connections") <= 1).then_some(())
    });
    // (It may have opened a few for itself: those of its segments.)
    until("their descriptors are free", || {
        (files(gateway.program.pid()) < before.0 + 50).then_some(())
    });
    gateway.stop();
}

#[test]
fn bodies_that_stand_still_or_trickle_are_cut_off() {
    let recorder = Recorder::new();
    let limits = "body_idle_timeout = \"5s\"\nrequest_timeout = \"8s\"\n";
    let gateway = house(limits, &recorder).serve();
    let request = head("Content-Length: 1000000\r\n");
    let mut answers = [String::new(), String::new()];
    let mut still = connect(gateway.data);
    still.write_all(request.as_bytes()).expect("sent");
    still.read_to_string(&mut answers[0]).expect("an answer");
    let mut trickling = connect(gateway.data);
    trickling.write_all(request.as_bytes()).expect("sent");
    trickling.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    until("the trickle is cut off", || {
        drop(trickling.write_all(b"x"));
        sleep(Duration::from_millis(100));
        let mut part = [0; 4096];
        match trickling.read(&mut part) {
            Ok(0) => Some(()),
            Ok(length) => {
                answers[1] += &String::from_utf8_lossy(&part[..length]);
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(()),
            Err(_) => None,
        }
    });
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("request_timeout"), "{answer}");
    }
    assert!(answers[1].contains("took longer than is accepted"), "{}", answers[1]);
    assert!(recorder.whole().is_empty());
    gateway.stop();
}

#[test]
fn idle_connections_end_and_an_answer_that_nobody_reads_too() {
    let recorder = Recorder::new();
    let limits = "idle_timeout = \"1s\"\nsend_timeout = \"1s\"\necho = true\n";
    let gateway = house(limits, &recorder).serve();
    let mut idle = connect(gateway.data);
    for _ in 0..2 {
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        assert!(idle.read(&mut [0; 4096]).expect("an answer") > 0);
    }
    assert_eq!(idle.read(&mut [0; 1]).expect("the end"), 0);
    assert!(metric(&gateway, "gatepost_http_connections_overdue_total") >= 1);

    // It asks, and asks, and reads no answer.
    let mut deaf = connect(gateway.data);
    deaf.set_nonblocking(true).expect("a socket");
    let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    until("it is cut off", || match deaf.write(&request) {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(()),
    });
    gateway.stop();
}

#[test]
fn one_address_has_its_share_and_load_is_shed() {
    let recorder = Recorder::new();
    let limits = "trusted_proxies = []\nmax_connections_per_address = 3\nmax_requests = 1\n";
    let gateway = house(limits, &recorder).serve();
    let mut busy = connect(gateway.data);
    busy.write_all(head("Content-Length: 2\r\n").as_bytes()).expect("sent");
    until("it runs", || (metric(&gateway, "gatepost_http_requests_running") == 1).then_some(()));
    let shed = get(gateway.data, "/rest/orders", &[("X-API-Key", &key(1))]);
    assert_eq!((shed.status, shed.header("retry-after")), (503, Some("1")), "{shed:?}");
    assert!(shed.body.contains("\"overloaded\""), "{shed:?}");
    assert!(shed.header("x-request-id").is_some(), "{shed:?}");
    assert_eq!(get(gateway.data, "/livez", &[]).status, 200, "health is not shed");
    assert_eq!(metric(&gateway, "gatepost_http_requests_shed_total"), 1);

    let others = [connect(gateway.data), connect(gateway.data)];
    until("two more are in", || (metric(&gateway, "gatepost_http_connections") == 3).then_some(()));
    let mut refused = connect(gateway.data);
    drop(refused.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!refused.read(&mut [0; 64]).is_ok_and(|length| length > 0));
    assert_eq!(metric(&gateway, "gatepost_http_connections_refused_total"), 1);
    drop(others);

    busy.write_all(b"ok").expect("sent");
    let mut answer = [0; 12];
    busy.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(busy);
    until("room", || (metric(&gateway, "gatepost_http_requests_running") == 0).then_some(()));
    serves(&gateway);
    gateway.stop();
}
