//! WebSockets and other upgraded connections, over real sockets.

use super::upstreams::{End, does, read_head, says};
use super::*;

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\nX-Gatepost-Client: evil\r\n\r\n";
const ASK: &str = "Connection: Upgrade, x-hop\r\nUpgrade: WebSocket\r\nX-Hop: 1\r\n";

/// An upstream that agrees to every upgrade, and then says back what it hears.
async fn agrees(tasks: &TaskTracker) -> UpstreamConfig {
    does(tasks, |mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("\r\nupgrade: WebSocket\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(!head.contains("x-hop"), "{head}");
        stream.write_all(SWITCHING.as_bytes()).await.expect("sent");
        let (mut from, mut to) = stream.split();
        // Until one of the two has had enough.
        drop(tokio::io::copy(&mut from, &mut to).await);
    })
    .await
}

async fn started(config: Config) -> Gateway {
    let upstream = agrees(&TaskTracker::new()).await;
    Gateway::start(config, &[upstream], &[route("/ws", "up")])
}

/// A client whose connection has become a tunnel.
async fn tunnel(gateway: &Gateway, early: &str) -> TcpStream {
    let mut client = gateway.connect(head(1, "GET /ws", ASK) + early).await;
    let answer = read_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    for want in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: x"] {
        assert!(answer.contains(want), "{answer}");
    }
    assert!(!answer.contains("x-gatepost-client"), "{answer}");
    client
}

async fn hears(client: &mut TcpStream, want: &str) {
    let mut heard = vec![0; want.len()];
    client.read_exact(&mut heard).await.expect("it is said back");
    assert_eq!(heard, want.as_bytes());
}

async fn until_tunnels(gateway: &Gateway, open: i64) {
    while gateway.metrics.upstream.tunnels.get() != open {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_tunnel_whose_bytes_are_counted_once_it_ends() {
    let gateway = started(Config::default()).await;
    // Not all clients wait for the 101.
    let mut client = tunnel(&gateway, "early").await;
    hears(&mut client, "early").await;
    for _ in 0..3 {
        client.write_all(b"more").await.expect("sent");
        hears(&mut client, "more").await;
    }
    assert_eq!(gateway.metrics.upstream.tunnels.get(), 1);
    client.shutdown().await.expect("half closed");
    assert_eq!(client.read_to_end(&mut Vec::new()).await.expect("an end"), 0);
    until_tunnels(&gateway, 0).await;
    assert_eq!(gateway.counted().await[":read"], [1, 1, 0, 0, 17, 17]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_through_which_nothing_goes_is_ended() {
    let idle = Config { tunnel_idle_timeout: Span::millis(100), ..Config::default() };
    let gateway = started(idle).await;
    let mut client = tunnel(&gateway, "a").await;
    hears(&mut client, "a").await;
    assert_eq!(client.read_to_end(&mut Vec::new()).await.expect("an end"), 0);
    assert_eq!(gateway.metrics.upstream.tunnels_idle.get(), 1);
    assert_eq!(gateway.counted().await[":read"], [1, 1, 0, 0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_have_a_bound_of_their_own_and_requests_are_not_held_up_by_it() {
    let gateway = started(Config { max_tunnels: 1, echo: true, ..Config::default() }).await;
    let first = tunnel(&gateway, "").await;
    let full = gateway.raw(head(1, "GET /ws", &format!("{ASK}Connection: close\r\n"))).await;
    assert!(full.starts_with("HTTP/1.1 503") && full.contains("tunnels_full"), "{full}");
    assert!(full.contains("retry-after: 1"), "{full}");
    assert_eq!(gateway.metrics.upstream.tunnels_full.get(), 1);
    assert_eq!(gateway.get("/echo", &[("apikey", key(1).reveal())]).await.status.as_u16(), 200);
    drop(first);
    until_tunnels(&gateway, 0).await;
    drop(tunnel(&gateway, "").await);
}

/// What a client behind a trusted proxy says, that asks for another protocol.
fn from(address: &str, protocol: &str) -> String {
    format!("X-Forwarded-For: {address}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_takes_the_tunnels_of_others() {
    let few = Config { max_tunnels_per_address: 2, ..Config::default() };
    let gateway = started(few).await;
    let ask = |address: &str| head(1, "GET /ws", &from(address, "WebSocket"));
    let mut open = Vec::new();
    for address in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"] {
        let mut client = gateway.connect(ask(address)).await;
        let answer = read_head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{address}: {answer}");
        open.push(client);
    }
    for address in ["192.0.2.1", "2001:db8::3"] {
        let mut client = gateway.connect(ask(address)).await;
        let answer = read_head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{address}: {answer}");
        assert!(answer.contains("retry-after: 1"), "{answer}");
    }
    let refused = &gateway.metrics.upstream.tunnels_refused;
    assert_eq!((refused.get(), gateway.metrics.upstream.tunnels_full.get()), (2, 0));
    // Others have theirs; a proxy that speaks for itself has no share.
    for address in ["192.0.2.2", "2001:db8:0:1::1", "127.0.0.1", "127.0.0.1", "127.0.0.1"] {
        let mut client = gateway.connect(ask(address)).await;
        let answer = read_head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{address}: {answer}");
        open.push(client);
    }
    open.remove(0);
    until_tunnels(&gateway, 8).await;
    let answer = read_head(&mut gateway.connect(ask("192.0.2.1")).await).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_do_without_a_tunnel_is_answered_without_one() {
    let bounds =
        [Config { max_tunnels: 0, ..echo() }, Config { max_tunnels_per_address: 1, ..echo() }];
    for (at, config) in bounds.into_iter().enumerate() {
        let upstream = agrees(&TaskTracker::new()).await;
        let gateway = Gateway::start(config, &[upstream], &[route("/ws", "up")]);
        let mut first = gateway.connect(head(1, "GET /ws", &from("192.0.2.1", "WebSocket"))).await;
        let answer = read_head(&mut first).await;
        assert!(answer.starts_with(["HTTP/1.1 503", "HTTP/1.1 101"][at]), "{answer}");

        let fields = from("192.0.2.1", "x, y/2") + "Connection: close\r\n";
        let answer = gateway.raw(head(1, "GET /echo", &fields)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("\"upgrade\"") && !answer.contains("y/2"), "{answer}");
        for protocol in ["websocket", "x, WebSocket/13"] {
            let fields = from("192.0.2.1", protocol) + "Connection: close\r\n";
            let answer = gateway.raw(head(1, "GET /echo", &fields)).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{protocol}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_tunnels_and_counts_them() {
    let gateway = started(Config::default()).await;
    let mut client = tunnel(&gateway, "abc").await;
    hears(&mut client, "abc").await;
    assert_eq!(gateway.counted().await[":read"], [1, 1, 0, 0, 3, 3]);
    // Whether it is told by an end or by a reset is the kernel's.
    let ended = client.read(&mut [0]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_need_not_agree() {
    let tasks = TaskTracker::new();
    let ok = says(&tasks, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", End::Hold).await;
    let gateway = Gateway::start(Config::default(), &[ok], &[route("/ws", "up")]);
    let answer = gateway.raw(head(1, "GET /ws", &format!("{ASK}Connection: close\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("no"), "{answer}");
    assert_eq!(gateway.counted().await[":read"], [1, 1, 0, 0, 0, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_for_a_tunnel_has_its_own_answer() {
    let tasks = TaskTracker::new();
    let agrees = agrees(&tasks).await;
    let no = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let refuses = UpstreamConfig { name: "no".into(), ..says(&tasks, no, End::Hold).await };
    let routes = [route("/ws", "up"), route("/no", "no")];
    let gateway = Gateway::start(Config::default(), &[agrees, refuses], &routes);
    let mut client = gateway.connect(head(1, "GET /no", ASK)).await;
    let answer = read_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    hears(&mut client, "no").await;
    // What could not be HTTP comes along with the next one.
    let early = "\u{1}\0hel\nlo";
    client.write_all((head(1, "GET /ws", ASK) + early).as_bytes()).await.expect("sent");
    let answer = read_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    hears(&mut client, early).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_connect_are_no_tunnels() {
    let gateway = Gateway::start(echo(), &[], &[]);
    for protocol in ["h2c", "HTTP/2.0", "TLS/1.0"] {
        let ask = format!(
            "Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        );
        let answer = gateway.raw(head(1, "GET /echo", &ask)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("\"upgrade\"") && !answer.contains("http2-settings"), "{answer}");
    }
    let answer = gateway.raw(head(1, "CONNECT a:443", "Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert_eq!(gateway.metrics.upstream.tunnels.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_agreed_to_that_nobody_asked_for() {
    for (agreed, status) in [("h2c", "502"), ("websocket, h2c", "502"), ("WEBSOCKET", "101")] {
        let text = format!("HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: {agreed}\r\n\r\n");
        let upstream = says(&TaskTracker::new(), text.leak(), End::Hold).await;
        let gateway = Gateway::start(Config::default(), &[upstream], &[route("/ws", "up")]);
        let mut client = gateway.connect(head(1, "GET /ws", ASK)).await;
        let answer = read_head(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{agreed}: {answer}");
    }
}
