//! An upstream that writes down every byte that it gets, and answers `ok` to each whole request.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::house::{read_head, server};

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    whole: Vec<(String, String)>,
}

/// See the module.
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Recorder {
    pub fn new() -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let written = Arc::clone(&seen);
        let address = server(move |stream| talk(stream, &written));
        Self { address, seen }
    }

    /// The first line of each request that began.
    pub fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").lines.clone()
    }

    /// Head and body of each request that also ended.
    pub fn whole(&self) -> Vec<(String, String)> {
        self.seen.lock().expect("no panic").whole.clone()
    }
}

fn talk(mut stream: TcpStream, seen: &Mutex<Seen>) {
    let mut from = BufReader::new(stream.try_clone().expect("a handle"));
    loop {
        let head = read_head(&mut from);
        if head.is_empty() {
            return;
        }
        let line = head.lines().next().expect("a line").to_owned();
        seen.lock().expect("no panic").lines.push(line);
        let Some(body) = body(&head.to_ascii_lowercase(), &mut from) else { return };
        seen.lock().expect("no panic").whole.push((head, body));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// `None`: it broke off.
fn body(head: &str, from: &mut impl BufRead) -> Option<String> {
    let mut body = Vec::new();
    if head.contains("\ntransfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            from.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some((_, rest)) = head.split_once("\ncontent-length: ") {
        body.resize(rest.lines().next()?.trim().parse().ok()?, 0);
        from.read_exact(&mut body).ok()?;
    }
    String::from_utf8(body).ok()
}
