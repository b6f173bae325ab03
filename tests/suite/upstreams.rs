//! Upstreams of the real program: large bodies at constant memory, targets that are gone, tunnels.

mod http2;
mod targets;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::gateway::{Gateway, until};

/// Each way.
const LARGE: usize = 256 << 20;
/// What a body of any size may cost in memory.
const GROWTH_MAX_KIB: u64 = 20 << 10;

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

fn length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    line.map_or(0, |length| length.parse().unwrap())
}

async fn swallow(stream: &mut TcpStream, mut length: usize) {
    let mut buffer = vec![0; 64 << 10];
    while length > 0 {
        let want = buffer.len().min(length);
        let read = stream.read(&mut buffer[..want]).await.unwrap();
        assert!(read > 0, "{length} bytes are missing");
        length -= read;
    }
}

async fn pour(stream: &mut TcpStream, mut length: usize) {
    let piece = vec![b'x'; 64 << 10];
    while length > 0 {
        let size = piece.len().min(length);
        stream.write_all(&piece[..size]).await.unwrap();
        length -= size;
    }
}

/// Takes every body to its end, and answers a GET with as many bytes as its path says; upgrades
/// say back what they hear.
async fn upstream() -> SocketAddr {
    let (listener, address) = listening().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                loop {
                    let asked = head(&mut stream).await;
                    if asked.contains("\r\nupgrade: websocket\r\n") {
                        let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                                      Upgrade: websocket\r\n\r\n";
                        stream.write_all(agreed.as_bytes()).await.unwrap();
                        let (mut from, mut to) = stream.split();
                        drop(tokio::io::copy(&mut from, &mut to).await);
                        return;
                    }
                    swallow(&mut stream, length(&asked)).await;
                    let mut line = asked.lines().next().unwrap_or_default().split(['/', ' ']);
                    let size: usize = line.find_map(|part| part.parse().ok()).unwrap_or(0);
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    pour(&mut stream, size).await;
                }
            });
        }
    });
    address
}

/// A gateway before `targets`, and a key for it.
async fn before(targets: &[SocketAddr]) -> (Gateway, String) {
    let targets: Vec<String> =
        targets.iter().map(|address| format!("\"http://{address}\"")).collect();
    let settings = format!(
        "[[upstreams]]\nname = \"up\"\ntargets = [{}]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"up\"\ntable = \"blobs\"\n",
        targets.join(", ")
    );
    let mut gateway = Gateway::new(None, &settings);
    gateway.start().await;
    gateway.create_client("acme").await;
    let key = gateway.create_key("acme").await.key;
    (gateway, key)
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.http().address()).await.unwrap()
}

fn request(line: &str, key: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n{more}\r\n")
}

/// The most memory that a process ever had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What `gatepost usage` says of the client: requests, succeeded, failed, bytes in, bytes out.
async fn usage(gateway: &Gateway) -> [u64; 5] {
    let report = gateway.run(&["usage", "--client", "acme"]).await.json();
    let sum = &report[0]["sum"];
    let names = ["requests", "succeeded", "failed", "bytes_in", "bytes_out"];
    names.map(|name| sum[name].as_u64().unwrap_or_else(|| panic!("`{name}` in {report}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_move_at_constant_memory_and_every_byte_is_counted() {
    let (mut gateway, key) = before(&[upstream().await]).await;
    let mut stream = connect(&gateway).await;
    for round in [1 << 20, LARGE] {
        // The first round is what a process needs once.
        let start = peak(gateway.pid());
        let put = request("PUT /in", &key, &format!("Content-Length: {round}\r\n"));
        stream.write_all(put.as_bytes()).await.unwrap();
        pour(&mut stream, round).await;
        assert!(head(&mut stream).await.starts_with("http/1.1 200"));
        stream.write_all(request(&format!("GET /{round}"), &key, "").as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert_eq!(length(&answer), round, "{answer}");
        swallow(&mut stream, round).await;
        let growth = peak(gateway.pid()) - start;
        assert!(round < LARGE || growth <= GROWTH_MAX_KIB, "{growth} KiB for {round} bytes");
    }
    let bytes = (LARGE + (1 << 20)) as u64;
    until("both are counted", || async { usage(&gateway).await == [4, 4, 0, bytes, bytes] }).await;
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_costs_no_request_and_no_request_counts_twice() {
    let (gone, nowhere) = listening().await;
    drop(gone);
    let (mut gateway, key) = before(&[nowhere, upstream().await]).await;
    for _ in 0..20 {
        let mut stream = connect(&gateway).await;
        let post = request("POST /x", &key, "Content-Length: 3\r\n") + "abc";
        stream.write_all(post.as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("http/1.1 200"));
    }
    until("all are counted", || async { usage(&gateway).await == [20, 20, 0, 60, 0] }).await;
    let metrics = gateway.admin().get("/metrics").await.body;
    for name in ["retries", "breaker_openings"] {
        let none = format!("gatepost_upstream_{name}_total 0");
        assert!(!metrics.lines().any(|line| line == none), "{metrics}");
    }
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_counted_when_the_gateway_stops() {
    let (mut gateway, key) = before(&[upstream().await]).await;
    let mut stream = connect(&gateway).await;
    let ask = request("GET /ws", &key, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 101"));
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    // It does not wait for who may stay for ever.
    gateway.terminate().await;
    assert_eq!(usage(&gateway).await, [1, 1, 0, 5, 5]);
}
