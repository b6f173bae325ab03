//! A client that refreshes: one keep-alive connection, one request in flight, and the sessions that
//! belong to it.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that is understood.
const ANSWER_MAX: usize = 16 * 1024;

/// See the module.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The token of each of its sessions that is good now.
    pub tokens: Vec<String>,
}

impl Client {
    pub async fn connect(address: SocketAddr, tokens: Vec<String>) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), tokens })
    }

    /// Refreshes one of its sessions. `Err`: no answer, or a refusal.
    pub async fn refresh(&mut self, which: usize) -> Result<()> {
        let token = &self.tokens[which];
        let body = format!("{{\"refresh_token\":\"{token}\"}}");
        let request = format!(
            "POST /api/auth/refresh HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let answer = self.answer().await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "refused: {answer}");
        let next = answer.split("\"refresh_token\":\"").nth(1).context("a refresh token")?;
        self.tokens[which] = next.split('"').next().context("its end")?.to_owned();
        Ok(())
    }

    async fn answer(&mut self) -> Result<String> {
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
            ensure!(self.buffer.len() <= ANSWER_MAX, "the answer is too long");
            let text = std::str::from_utf8(&self.buffer)?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let Some(length) = length else { bail!("no length: {head}") };
            if body.len() >= length {
                return Ok(text.to_owned());
            }
        }
    }
}
