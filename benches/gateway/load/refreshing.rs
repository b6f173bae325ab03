//! Clients that refresh: each connection has sessions of its own, and keeps the token of each that
//! is good now.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use super::connection::Connection;
use super::{Caller, Load};
use crate::stock::sessions::Deployment;

/// The tokens of one connection; kept beyond it.
type Tokens = Arc<Mutex<Vec<String>>>;

/// The sessions of all connections.
pub struct Refreshing {
    pub address: SocketAddr,
    tokens: Vec<Tokens>,
}

impl Refreshing {
    /// So many sessions for each of the connections, the first of all with the lowest number.
    pub fn new(
        address: SocketAddr,
        deployment: &Deployment,
        connections: usize,
        sessions: usize,
    ) -> Self {
        let tokens = (0..connections).map(|connection| {
            let own = connection * sessions..(connection + 1) * sessions;
            Arc::new(Mutex::new(own.map(|number| deployment.token(number)).collect()))
        });
        Self { address, tokens: tokens.collect() }
    }

    /// So many sessions from this number on, for one connection.
    pub fn starting_at(
        address: SocketAddr,
        deployment: &Deployment,
        first: usize,
        sessions: usize,
    ) -> Self {
        let own = first..first + sessions;
        let tokens = own.map(|number| deployment.token(number)).collect();
        Self { address, tokens: vec![Arc::new(Mutex::new(tokens))] }
    }
}

impl Load for Refreshing {
    type Caller = Client;

    async fn caller(&self, number: usize) -> Result<Client> {
        let connection = Connection::small(self.address).await?;
        Ok(Client { connection, tokens: self.tokens[number].clone(), turn: 0 })
    }
}

/// One connection.
pub struct Client {
    connection: Connection,
    tokens: Tokens,
    turn: usize,
}

impl Caller for Client {
    async fn ask(&mut self) -> Result<bool> {
        let (which, token) = {
            let tokens = self.tokens.lock().expect("no panic");
            let which = self.turn % tokens.len();
            (which, tokens[which].clone())
        };
        self.turn += 1;
        let body = format!("{{\"refresh_token\":\"{token}\"}}");
        let request = format!(
            "POST /api/auth/refresh HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.connection.ask(request.as_bytes()).await?;
        if answer.status != 200 {
            return Ok(false);
        }
        let text = self.connection.text();
        let next = text.split("\"refresh_token\":\"").nth(1).context("a refresh token")?;
        let next = next.split('"').next().context("its end")?.to_owned();
        self.tokens.lock().expect("no panic")[which] = next;
        Ok(true)
    }

    fn last_answer(&self) -> String {
        self.connection.text()
    }
}
