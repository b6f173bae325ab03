//! The drill's proxy between the gateway and Postgres, and what passes through it.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatepost::drill::line::{self, Watch};

pub use gatepost::drill::line::Fault;

/// See the module.
pub struct FaultProxy {
    line: line::FaultProxy,
    host: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    refused: Mutex<Option<String>>,
    queries: Mutex<Vec<String>>,
    connections: AtomicU64,
}

impl Watch for Seen {
    fn connected(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    fn passes(&self, query: &str) -> bool {
        if lock(&self.refused).as_deref().is_some_and(|part| query.contains(part)) {
            return false;
        }
        lock(&self.queries).push(query.to_owned());
        true
    }
}

impl FaultProxy {
    /// In front of the server that `url` leads to.
    pub fn new(url: &str) -> Self {
        let host = host_and_port(url).to_owned();
        let (name, port) = host.rsplit_once(':').unwrap_or((&host, "5432"));
        let seen = Arc::new(Seen::default());
        let server = (name, port.parse().expect("a port"));
        let line = line::FaultProxy::new(server, seen.clone()).expect(url);
        Self { line, host, seen }
    }

    /// `url` with this proxy in place of the server.
    pub fn url(&self, url: &str) -> String {
        assert_eq!(host_and_port(url), self.host, "not what this proxy leads to");
        url.replacen(&self.host, &format!("127.0.0.1:{}", self.line.port()), 1)
    }

    /// From now on a query with `part` in its text ends its connection, and nothing else does.
    pub fn refuse(&self, part: &str) {
        *lock(&self.seen.refused) = Some(part.to_owned());
    }

    /// How many queries with `part` in their text were passed on.
    pub fn queries_with(&self, part: &str) -> usize {
        lock(&self.seen.queries).iter().filter(|query| query.contains(part)).count()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

impl Deref for FaultProxy {
    type Target = line::FaultProxy;

    fn deref(&self) -> &line::FaultProxy {
        &self.line
    }
}

fn host_and_port(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after.split(['/', '?']).next().unwrap_or(after);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
