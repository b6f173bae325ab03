//! Places among those that run at a time: whatever a request becomes, its place is held to the end
//! of that, and no longer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Version};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::support::house::{self, House, declared};
use crate::support::tls::{Pair, trusting};

/// An upstream whose answers do not end before their client leaves.
pub(super) async fn endless() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let drip = || async {
        let pieces = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, std::io::Error>("drip"), ()))
        });
        Body::from_stream(pieces.boxed())
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(drip)).await.unwrap() });
    address
}

/// Its end is no end of the connection: others go on there.
#[tokio::test(flavor = "multi_thread")]
async fn over_http2_a_place_is_free_when_the_client_resets_the_stream() {
    let (pair, trusted) = Pair::new();
    let key = house::key(1);
    let house = House::new(&format!(
        "{}[[upstreams]]\nname = \"drip\"\ntargets = [\"{}\"]\n\
         [[routes]]\npath = \"/drip\"\nupstream = \"drip\"\n[[policies]]\nname = \"default\"\n\
         concurrency = {{ limit = 2, per = \"key\" }}\n{}",
        pair.section(),
        endless().await,
        declared("acme", &key)
    ));
    let gateway = house.serve();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let tls = hyper_rustls::HttpsConnector::from((connector, trusting(&trusted, &["h2"])));
    let pool = Client::builder(TokioExecutor::new()).http2_only(true).build::<_, Full<Bytes>>(tls);
    let url = format!("https://localhost:{}/drip", gateway.data.port());
    let open = async || {
        let request = Request::get(&url).version(Version::HTTP_2).header("x-api-key", &key);
        let answer = pool.request(request.body(Full::default()).unwrap()).await.expect("an answer");
        (answer.status().as_u16(), answer.into_body())
    };
    let (mut first, mut second) = (open().await, open().await);
    assert_eq!((first.0, second.0), (200, 200));
    for running in [&mut first, &mut second] {
        assert!(running.1.frame().await.expect("it goes on").expect("a piece").is_data());
    }
    let (status, refused) = open().await;
    assert_eq!(status, 429);
    let refused = refused.collect().await.expect("a problem").to_bytes();
    assert!(refused.windows(20).any(|text| text == b"concurrency_exceeded"), "{refused:?}");
    // Its end was not read: that is a reset.
    drop(first);
    let third = RefCell::new(None);
    until("a place is free", || async {
        let (status, running) = open().await;
        third.replace(Some(running));
        status == 200
    })
    .await;
    let mut third = third.take().expect("it runs");
    for running in [&mut second.1, &mut third] {
        for _ in 0..3 {
            assert!(running.frame().await.expect("it goes on").expect("a piece").is_data());
        }
    }
    assert_eq!(open().await.0, 429, "one place, not more");
    let metrics = house::get(gateway.admin, "/metrics", &[]).body;
    assert!(metrics.contains("\ngatepost_http_connections_http2_total 1\n"), "{metrics}");
}

/// Agrees to every upgrade, says back what it hears, and leaves when it hears "bye".
async fn agreeing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                head(&mut stream).await;
                let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                              Upgrade: websocket\r\n\r\n";
                stream.write_all(agreed.as_bytes()).await.unwrap();
                let mut heard = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut heard).await {
                    if heard[..length].ends_with(b"bye") {
                        break;
                    }
                    stream.write_all(&heard[..length]).await.unwrap();
                }
            });
        }
    });
    address
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A tunnel that works, or the status that there is in its place.
async fn tunnel(gateway: &Gateway, key: &Made) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(gateway.http().address()).await.unwrap();
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\n\r\n",
        key.key
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(head[9..12].to_owned());
    }
    hears(&mut stream).await;
    Ok(stream)
}

async fn hears(stream: &mut TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_holds_its_place_until_it_ends_whoever_ends_it() {
    let mut gateway = Gateway::new(
        None,
        &format!(
            "[[upstreams]]\nname = \"ws\"\ntargets = [\"http://{}\"]\n\
             [[routes]]\npath = \"/ws\"\nupstream = \"ws\"\n[[clients]]\nname = \"acme\"\n\
             [[policies]]\nname = \"default\"\nconcurrency = {{ limit = 1, per = \"key\" }}\n",
            agreeing().await
        ),
    );
    gateway.start().await;
    let (key, other) = (gateway.create_key("acme").await, gateway.create_key("acme").await);
    let is_held = async || {
        assert_eq!(tunnel(&gateway, &key).await.err().as_deref(), Some("429"));
        let told = verify(&gateway, json!({ "key": key.key })).await.json();
        assert_eq!(
            (&told["code"], &told["limit"]),
            (&json!("concurrency_exceeded"), &json!("concurrency"))
        );
    };
    let opened = async || {
        let there = RefCell::new(None);
        until("its place is free", || async {
            there.replace(tunnel(&gateway, &key).await.ok());
            there.borrow().is_some()
        })
        .await;
        there.take().expect("it is open")
    };
    let mut client = opened().await;
    for _ in 0..3 {
        is_held().await;
        hears(&mut client).await;
    }
    assert!(tunnel(&gateway, &other).await.is_ok(), "each key has its own");
    // The client is gone.
    drop(client);
    let mut client = opened().await;
    is_held().await;
    // It has said all that it had to say, and then the upstream ends it.
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let mut client = opened().await;
    is_held().await;
    // The upstream has, and then the client.
    client.write_all(b"bye").await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop(client);
    let client = opened().await;
    is_held().await;
    drop(client);
}
