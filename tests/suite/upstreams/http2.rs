//! Large bodies over TLS and HTTP/2, where windows say how much may be on its way.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Version};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{GROWTH_MAX_KIB, LARGE, peak, upstream};
use crate::support::house::{self, House, declared};
use crate::support::tls::{Pair, trusting};

const PIECE: usize = 64 << 10;

/// So many bytes, one piece after the other.
fn pieces(length: usize) -> Body {
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let all = std::iter::repeat_n(piece, length / PIECE).map(Ok::<_, std::io::Error>);
    Body::from_stream(futures_util::stream::iter(all))
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_move_at_constant_memory_over_tls_too() {
    let (pair, trusted) = Pair::new();
    let key = house::key(1);
    let house = House::new(&format!(
        "{}[[upstreams]]\nname = \"up\"\ntargets = [\"http://{}\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"up\"\n{}",
        pair.section(),
        upstream().await,
        declared("acme", &key)
    ));
    let gateway = house.serve();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let tls = hyper_rustls::HttpsConnector::from((connector, trusting(&trusted, &["h2"])));
    let pool = Client::builder(TokioExecutor::new()).http2_only(true).build::<_, Body>(tls);
    let ask = async |method: Method, path: String, body: Body, length: usize| {
        let url = format!("https://localhost:{}/{path}", gateway.data.port());
        let request = Request::builder().method(method).uri(url).version(Version::HTTP_2);
        let request = request.header("x-api-key", &key).header("content-length", length);
        let answer = pool.request(request.body(body).unwrap()).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let (mut body, mut came) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            came += frame.expect("it goes on").data_ref().map_or(0, Bytes::len);
        }
        came
    };
    for round in [1 << 20, LARGE] {
        // The first round is what a process needs once.
        let start = peak(gateway.program.pid());
        assert_eq!(ask(Method::PUT, "in".into(), pieces(round), round).await, 0);
        assert_eq!(ask(Method::GET, round.to_string(), Body::empty(), 0).await, round);
        let growth = peak(gateway.program.pid()) - start;
        assert!(round < LARGE || growth <= GROWTH_MAX_KIB, "{growth} KiB for {round} bytes");
    }
    let metrics = house::get(gateway.admin, "/metrics", &[]).body;
    assert!(metrics.contains("\ngatepost_http_connections_http2_total 1\n"), "{metrics}");
}
