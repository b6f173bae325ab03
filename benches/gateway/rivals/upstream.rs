//! The upstream of all proxies: answers with as many bytes as the path says, reads what it is sent,
//! and echoes on WebSockets.

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const PIECE: usize = 64 << 10;

/// Serves on a port of its own.
pub async fn serve() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let router = Router::new().route("/{bytes}", get(send).put(take)).route("/socket", get(echo));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
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

/// The handshake's answer to the one key that the client here sends (RFC 6455 §1.3).
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A WebSocket that sends back what it gets.
async fn echo(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(socket) = upgrade.await else { return };
        // It ends when the other side does.
        drop(frames(TokioIo::new(socket)).await);
    });
    let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
    let accept = [("sec-websocket-accept", ACCEPT)];
    (StatusCode::SWITCHING_PROTOCOLS, headers, accept).into_response()
}

/// Frames of less than 126 bytes (RFC 6455 §5.2), unmasked on their way back.
async fn frames(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut frame = [0; 6 + 126];
    loop {
        socket.read_exact(&mut frame[..6]).await?;
        let (mask, length) = ([frame[2], frame[3], frame[4], frame[5]], frame[1] & 0x7F);
        let end = 6 + usize::from(length);
        socket.read_exact(&mut frame[6..end]).await?;
        for (at, byte) in frame[6..end].iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        (frame[4], frame[5]) = (frame[0], length);
        socket.write_all(&frame[4..end]).await?;
    }
}
