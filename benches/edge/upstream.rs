//! The upstream of both proxies, in a process of its own: answers with as many bytes as the path
//! says, and reads what it is sent.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::routing::get;
use futures_util::stream;
use http_body_util::BodyExt;

/// The hidden argument.
pub const ROLE: &str = "--as-upstream";

const PIECE: usize = 64 << 10;

/// The upstream's process; dropping it kills it.
pub struct Upstream {
    child: Child,
    pub address: SocketAddr,
}

impl Upstream {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(ROLE).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its stdout")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the upstream's address")? })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The body of its process.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let router = Router::new().route("/{bytes}", get(send).put(take));
        Ok(axum::serve(listener, router).await?)
    })
}

async fn send(Path(bytes): Path<usize>) -> Body {
    static ZEROES: [u8; PIECE] = [0; PIECE];
    if bytes <= PIECE {
        return Body::from(&ZEROES[..bytes]);
    }
    let pieces = (0..bytes).step_by(PIECE).map(move |at| {
        Ok::<_, std::io::Error>(Bytes::from_static(&ZEROES[..PIECE.min(bytes - at)]))
    });
    Body::from_stream(stream::iter(pieces))
}

/// Says how many bytes came.
async fn take(request: Request) -> String {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    bytes.to_string()
}
