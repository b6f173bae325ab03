//! Requests that differ in nothing but their key: a text with a gap in it.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::connection::{Answer, Connection};
use super::{Caller, Load};
use crate::stock::keys::{KEY_LEN, Keys};

/// Requests with random keys out of a set.
#[derive(Clone)]
pub struct Keyed {
    pub address: SocketAddr,
    keys: Keys,
    /// A request with room for a key in it, and where that room begins.
    request: Vec<u8>,
    gap: usize,
    /// What is hoped for: this status, and so many bytes if it matters.
    status: u16,
    bytes: Option<usize>,
}

impl Keyed {
    /// Asks forward-auth.
    pub fn forward_auth(address: SocketAddr, keys: Keys) -> Self {
        Self::get(address, "/authz/forward-auth", keys, None)
    }

    /// Asks an upstream behind a proxy for a body of so many bytes.
    pub fn download(address: SocketAddr, bytes: usize, keys: Keys) -> Self {
        Self::get(address, &format!("/{bytes}"), keys, Some(bytes))
    }

    /// Asks `POST /v1/keys/verify`, as a trusted peer does.
    pub fn verify(address: SocketAddr, keys: Keys) -> Self {
        let body_len = KEY_LEN + r#"{"key":""}"#.len();
        let before = format!(
            "POST /v1/keys/verify HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {body_len}\r\n\r\n{{\"key\":\""
        );
        Self::around(address, &before, "\"}", keys, None)
    }

    fn get(address: SocketAddr, path: &str, keys: Keys, bytes: Option<usize>) -> Self {
        let before =
            format!("GET {path} HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: Bearer ");
        Self::around(address, &before, "\r\n\r\n", keys, bytes)
    }

    fn around(
        address: SocketAddr,
        before: &str,
        after: &str,
        keys: Keys,
        bytes: Option<usize>,
    ) -> Self {
        let request = [before.as_bytes(), &[0; KEY_LEN], after.as_bytes()].concat();
        Self { address, keys, request, gap: before.len(), status: 200, bytes }
    }

    /// The same with another answer hoped for.
    pub fn hoping_for(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Asks for every key once, on so many connections; errs when one is refused.
    pub fn touch(&self, connections: usize) -> Result<()> {
        let refused = self.first_time(connections)?;
        ensure!(refused.is_empty(), "{} known keys were refused: {}", refused.len(), refused[0]);
        Ok(())
    }

    /// Asks for every key once, on so many connections; the answers that were refusals.
    pub fn first_time(&self, connections: usize) -> Result<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for first in 0..connections {
                let load = self.clone();
                running.spawn(async move {
                    let (mut asking, mut refused) = (load.asking(first).await?, Vec::new());
                    for at in (first..load.keys.len()).step_by(connections) {
                        if !asking.ask_with(at).await? {
                            refused.push(asking.last_answer());
                        }
                    }
                    Ok::<_, anyhow::Error>(refused)
                });
            }
            let mut refused = Vec::new();
            while let Some(touched) = running.join_next().await {
                refused.extend(touched??);
            }
            Ok(refused)
        })
    }

    async fn asking(&self, number: usize) -> Result<Asking> {
        let random = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let connection = Connection::open(self.address).await?;
        Ok(Asking { load: self.clone(), connection, random })
    }
}

impl Load for Keyed {
    type Caller = Asking;

    async fn caller(&self, number: usize) -> Result<Asking> {
        self.asking(number).await
    }
}

/// One connection with such requests.
pub struct Asking {
    load: Keyed,
    connection: Connection,
    random: u64,
}

impl Asking {
    async fn ask_with(&mut self, key: usize) -> Result<bool> {
        let gap = self.load.gap;
        self.load.request[gap..gap + KEY_LEN].copy_from_slice(&self.load.keys[key]);
        let Answer { status, bytes } = self.connection.ask(&self.load.request).await?;
        let whole = self.load.bytes.is_none_or(|wanted| bytes == wanted);
        Ok(status == self.load.status && whole)
    }
}

impl Caller for Asking {
    async fn ask(&mut self) -> Result<bool> {
        // xorshift64 (Marsaglia 2003)
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.ask_with((self.random >> 11) as usize % self.load.keys.len()).await
    }

    fn last_answer(&self) -> String {
        self.connection.text()
    }
}
