//! Messages on WebSockets that are sent back as they came.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::connection::Connection;
use super::{Caller, Load};
use crate::stock::keys::Keys;

/// Bytes of a message: its frame has the shortest head.
const MESSAGE: usize = 64;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// Sockets of callers with different keys.
pub struct Socket {
    address: SocketAddr,
    keys: Keys,
}

impl Socket {
    pub fn new(address: SocketAddr, keys: Keys) -> Self {
        Self { address, keys }
    }
}

impl Load for Socket {
    type Caller = Talking;

    async fn caller(&self, number: usize) -> Result<Talking> {
        let key = String::from_utf8_lossy(&self.keys[number % self.keys.len()]).into_owned();
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\
             Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut connection = Connection::small(self.address).await?;
        let answer = connection.ask(request.as_bytes()).await?;
        ensure!(answer.status == 101, "no socket: {}", connection.text());
        let mut frame = vec![0x82, 0x80 | MESSAGE as u8];
        frame.extend(MASK);
        frame.extend((0..MESSAGE).map(|at| at as u8 ^ MASK[at % 4]));
        Ok(Talking { connection, frame })
    }
}

/// One socket.
pub struct Talking {
    connection: Connection,
    frame: Vec<u8>,
}

impl Caller for Talking {
    async fn ask(&mut self) -> Result<bool> {
        self.connection.send(&self.frame).await?;
        let came = self.connection.raw(2 + MESSAGE).await?;
        Ok(came[..2] == [0x82, MESSAGE as u8]
            && came[2..].iter().enumerate().all(|(at, byte)| usize::from(*byte) == at))
    }

    fn last_answer(&self) -> String {
        self.connection.text()
    }
}
