//! Upstreams that are dead, slow, resetting or talking nonsense: each told apart, each counted
//! once.

use tokio::net::TcpSocket;

use super::*;

/// How an upstream ends, once it has read a request's head and said its piece.
#[derive(Clone, Copy)]
pub(super) enum End {
    Close,
    Reset,
    Hold,
}

/// An upstream that does the same with each connection.
pub(super) async fn does<F: Future<Output = ()> + Send + 'static>(
    tasks: &TaskTracker,
    with_each: impl Fn(TcpStream) -> F + Send + 'static,
) -> UpstreamConfig {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let theirs = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            theirs.spawn(with_each(stream));
        }
    });
    at(address)
}

/// An upstream that says the same to everybody.
pub(super) async fn says(tasks: &TaskTracker, text: &'static str, end: End) -> UpstreamConfig {
    does(tasks, move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(text.as_bytes()).await.expect("the gateway listens");
        match end {
            End::Close => {}
            End::Reset => stream.set_zero_linger().expect("a socket"),
            // Until the gateway has had enough.
            End::Hold => drop(stream.read_to_end(&mut Vec::new()).await),
        }
    })
    .await
}

pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text")
}

fn impatient() -> Config {
    Config { upstream_response_timeout: Span::millis(300), ..Config::default() }
}

/// One request to such an upstream: its status and code, and what was counted.
async fn asked(config: Config, upstream: UpstreamConfig) -> (u16, String, [u64; 6]) {
    let gateway = Gateway::start(config, &[upstream], &[route("/up", "up")]);
    let answer = gateway.get("/up", &[("x-api-key", key(1).reveal())]).await;
    let (status, code) = (answer.status.as_u16(), answer.code());
    (status, code, gateway.counted().await[":read"])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_does_wrong_is_told_apart_and_counted_once() {
    let two_lengths = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na";
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                a\r\n0123456789\r\n0\r\n\r\n";
    let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let unasked = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for (text, end, status, code) in [
        ("", End::Close, 502, "upstream_broke_off"),
        ("", End::Reset, 502, "upstream_broke_off"),
        ("HTTP/1.1 200 OK\r\nContent-Le", End::Close, 502, "upstream_broke_off"),
        ("HTTP/1.1 200 OK\r\nContent-Le", End::Reset, 502, "upstream_broke_off"),
        ("HTTP/1.1 200 OK\r\nContent-Le", End::Hold, 504, "upstream_timeout"),
        ("", End::Hold, 504, "upstream_timeout"),
        ("SSH-2.0-OpenSSH_9.6\r\n", End::Hold, 502, "upstream_garbled"),
        ("\x16\x03\x01\x02\x03", End::Close, 502, "upstream_garbled"),
        (two_lengths, End::Close, 502, "upstream_garbled"),
        (unasked, End::Hold, 502, "upstream_garbled"),
        (both, End::Hold, 502, "upstream_garbled"),
        (coded, End::Hold, 502, "upstream_garbled"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na", End::Hold, 502, "upstream_garbled"),
        ("HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", End::Hold, 502, "upstream_garbled"),
    ] {
        let tasks = TaskTracker::new();
        let upstream = says(&tasks, text, end).await;
        let seen = asked(impatient(), upstream).await;
        assert_eq!(seen, (status, code.to_owned(), [1, 0, 1, 0, 0, 0]), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_door_is_a_connect_timeout_and_a_shut_one_is_not() {
    // Nobody accepts, and the kernel takes no more than two for a backlog of one.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream.expect("a connection"));
    }
    let full = UpstreamConfig { connect_timeout: Span::millis(300), ..at(address) };
    let (status, code, counted) = asked(Config::default(), full.clone()).await;
    assert_eq!(
        (status, &*code, counted[..3] == [1, 0, 1]),
        (504, "upstream_connect_timeout", true)
    );
    drop((waiting, listener));
    let (status, code, _) = asked(Config::default(), full).await;
    assert_eq!((status, &*code), (502, "upstream_unreachable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    for (text, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", End::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", End::Reset),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", End::Close),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n", End::Hold),
    ] {
        let tasks = TaskTracker::new();
        let upstream = says(&tasks, text, end).await;
        let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
        let answer = gateway.raw(head(1, "GET /up", "")).await;
        // What is left to say it with is the end of the connection: behind the head, or before it
        // where the end overtook it.
        let broken = answer.is_empty() || answer.starts_with("HTTP/1.1 200");
        let overtaken = matches!(end, End::Reset) && answer.starts_with("HTTP/1.1 502");
        assert!(broken || overtaken, "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
        let counted = gateway.counted().await[":read"];
        assert_eq!(counted[..5], [1, 0, 1, 0, 0], "{text:?}");
        assert!(counted[5] <= 2, "{counted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_bound_a_request_in_all() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab";
    for (text, said, code) in [("", "HTTP/1.1 504", "total_timeout"), (begun, "HTTP/1.1 200", "ab")]
    {
        let tasks = TaskTracker::new();
        let upstream = says(&tasks, text, End::Hold).await;
        let total_timeout = Some(Span::millis(300));
        let bounded = RouteConfig { total_timeout, ..route("/up", "up") };
        let gateway = Gateway::start(Config::default(), &[upstream], &[bounded]);
        let answer = gateway.raw(head(1, "GET /up", "Connection: close\r\n")).await;
        assert!(answer.starts_with(said) && answer.contains(code), "{answer}");
        assert_eq!(gateway.counted().await[":read"][..4], [1, 0, 1, 0], "{text:?}");
    }
}

/// The body is passed on at once. Were the wait to begin anew only where it ends, it would be twice
/// as long, and the route's bound would come first.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_waited_for_from_the_last_of_the_request() {
    let tasks = TaskTracker::new();
    let upstream = says(&tasks, "", End::Hold).await;
    let config = Config { upstream_response_timeout: Span::secs(4), ..Config::default() };
    let bounded = RouteConfig { total_timeout: Some(Span::secs(7)), ..route("/up", "up") };
    let gateway = Gateway::start(config, &[upstream], &[bounded]);
    let head = head(1, "POST /up", "Connection: close\r\nContent-Length: 5\r\n");
    let answer = gateway.raw(head + "12345").await;
    assert!(answer.contains("upstream_timeout"), "{answer}");
}

/// In HTTP/1.0 the end of a connection is that of an answer; so one that breaks off ends otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_reset_where_its_end_would_look_whole() {
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    for (text, want) in [(cut, None), (whole, Some("ab"))] {
        let upstream = says(&TaskTracker::new(), text, End::Close).await;
        let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
        let request = head(1, "GET /up", "").replace("HTTP/1.1", "HTTP/1.0");
        let mut client = gateway.connect(request).await;
        let mut answer = String::new();
        let read = client.read_to_string(&mut answer).await;
        match want {
            None => assert!(read.is_err(), "{answer}"),
            Some(body) => assert!(read.is_ok() && answer.ends_with(body), "{answer}"),
        }
    }
}
