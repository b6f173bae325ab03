//! What goes by while it comes: events, trailers, bodies that are waited for, and ends in the
//! middle.

use tokio::sync::mpsc;

use super::upstreams::read_head;
use super::*;

/// What does not come within it never does.
const GENEROUS: Duration = Duration::from_secs(60);

/// An upstream whose every byte the test says itself: what it is told to write it writes, and what
/// it reads it tells.
async fn puppet(tasks: &TaskTracker) -> (UpstreamConfig, mpsc::Sender<&'static str>, Heard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (say, mut said) = mpsc::channel::<&'static str>(8);
    let (tell, heard) = mpsc::channel(64);
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let (mut from, mut to) = stream.split();
        let writing = async {
            while let Some(text) = said.recv().await {
                if to.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        };
        let reading = async {
            let mut buffer = vec![0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if tell.send(text).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(writing, reading);
    });
    (at(address), say, Heard { all: String::new(), heard })
}

struct Heard {
    all: String,
    heard: mpsc::Receiver<String>,
}

impl Heard {
    async fn until(&mut self, text: &str) -> &str {
        while !self.all.contains(text) {
            let more = tokio::time::timeout(GENEROUS, self.heard.recv()).await;
            self.all += &more.expect("in time").expect("it goes on");
        }
        &self.all
    }
}

fn started(upstream: UpstreamConfig) -> Gateway {
    Gateway::start(Config::default(), &[upstream], &[route("/up", "up")])
}

/// Reads until `text` has come.
async fn comes(client: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        let byte = tokio::time::timeout(GENEROUS, client.read_u8()).await;
        all.push(byte.expect("in time").expect("it comes"));
    }
    String::from_utf8(all).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_not_kept_back_and_a_client_that_leaves_is_counted_with_what_it_got() {
    let (upstream, say, mut heard) = puppet(&TaskTracker::new()).await;
    let gateway = started(upstream);
    let mut client = gateway.connect(head(1, "GET /up", "Accept: text/event-stream\r\n")).await;
    heard.until("\r\n\r\n").await;
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                  Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    say.send(events).await.expect("it writes");
    comes(&mut client, "data: 1\n\n").await;
    // The second is not even said before the first has come through.
    say.send("9\r\ndata: 2\n\n\r\n").await.expect("it writes");
    comes(&mut client, "data: 2\n\n").await;
    drop(client);
    gateway.until_proxied(0).await;
    assert_eq!(gateway.counted().await[":read"], [1, 1, 0, 0, 0, 18]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_asked_for_the_body_is_asked_and_a_refused_one_is_not() {
    let (upstream, say, mut heard) = puppet(&TaskTracker::new()).await;
    let gateway = started(upstream);
    let expect = "Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n";
    let mut client = gateway.connect(head(1, "POST /up", expect)).await;
    assert!(comes(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    client.write_all(b"12345").await.expect("sent");
    let asked = heard.until("12345").await.to_ascii_lowercase();
    assert!(!asked.contains("expect:"), "{asked}");
    say.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.expect("it writes");
    assert!(comes(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 201"));

    let refused = gateway.raw(head(3, "POST /up", expect)).await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert_eq!(gateway.counted().await[":write"], [2, 1, 0, 1, 5, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_in_both_directions_without_identities() {
    let (upstream, say, mut heard) = puppet(&TaskTracker::new()).await;
    let gateway = started(upstream);
    let sent = "TE: trailers\r\nTrailer: X-Sum, X-Gatepost-Client\r\n\
                Transfer-Encoding: chunked\r\nConnection: TE, close\r\n";
    let body = "2\r\nab\r\n0\r\nX-Sum: 7\r\nX-Gatepost-Client: evil\r\n\r\n";
    let mut client = gateway.connect(head(1, "POST /up", sent) + body).await;
    let asked = heard.until("x-sum: 7\r\n\r\n").await.to_ascii_lowercase();
    assert!(asked.contains("\r\nte: trailers\r\n") && !asked.contains("evil"), "{asked}");
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum, X-Gatepost-Role\r\n\
                  Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 8\r\n\
                  X-Gatepost-Role: evil\r\n\r\n";
    say.send(answer).await.expect("it writes");
    let answer = comes(&mut client, "x-sum: 8\r\n\r\n").await;
    assert!(answer.contains("2\r\nok\r\n0\r\n") && !answer.contains("evil"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_whom_it_passed_and_none_goes_in_circles() {
    let (upstream, say, mut heard) = puppet(&TaskTracker::new()).await;
    let gateway = started(upstream);
    let via = "Via: 1.0 fred\r\nConnection: close\r\n";
    let mut client = gateway.connect(head(1, "GET /up", via)).await;
    let asked = heard.until("\r\n\r\n").await.to_owned();
    let lines: Vec<&str> = asked.lines().filter(|line| line.starts_with("via: ")).collect();
    let [fred, ours] = lines[..] else { panic!("{asked}") };
    assert_eq!(fred, "via: 1.0 fred");
    assert!(ours.starts_with("via: 1.1 gatepost-"), "{ours}");
    say.send("HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 0\r\n\r\n").await.expect("sent");
    let answer = read_head(&mut client).await;
    assert!(answer.contains("via: 1.1 inner\r\n") && answer.contains(ours), "{answer}");

    let again = format!("{ours}\r\nConnection: close\r\n");
    let looped = gateway.raw(head(1, "GET /up", &again)).await;
    assert!(looped.starts_with("HTTP/1.1 508") && looped.contains("loop_detected"), "{looped}");
    assert_eq!(gateway.counted().await[":read"], [2, 1, 1, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_half_is_counted_once() {
    let (upstream, say, mut heard) = puppet(&TaskTracker::new()).await;
    let gateway = started(upstream);
    let mut client = gateway.connect(head(1, "GET /up", "")).await;
    heard.until("\r\n\r\n").await;
    client.shutdown().await.expect("half closed");
    // The gateway may have hung up by now: who has closed its half counts as gone.
    say.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("it writes");
    client.read_to_end(&mut Vec::new()).await.expect("an end");
    gateway.until_proxied(0).await;
    let [requests, succeeded, failed, ..] = gateway.counted().await[":read"];
    assert_eq!((requests, succeeded + failed), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_are_left_out_and_change_nothing() {
    let tasks = TaskTracker::new();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let answers = format!("{hints}{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let end = super::upstreams::End::Hold;
    let upstream = super::upstreams::says(&tasks, answers.leak(), end).await;
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let answer = gateway.raw(head(1, "GET /up", "Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.contains("a.css"), "{answer}");
    assert_eq!(gateway.counted().await[":read"], [1, 1, 0, 0, 0, 2]);
}
