//! A proxy between the gateway and Postgres that can break the way in the ways that ways break.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::wire::Reader;

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// All connections end, new ones end at once.
    Cut,
    /// Connections stay, or are accepted; nothing passes in either direction, and nothing is lost:
    /// it passes when the fault is over.
    BlackHole,
    /// Each message from the client waits this long.
    Delay(Duration),
    /// The next COMMIT is not passed on; its connection ends, then the fault is over.
    CutBeforeCommit,
    /// The next COMMIT is carried out, its answer thrown away; then like the one before.
    CutAfterCommit,
}

/// See the module. Dropping it cuts everything.
pub struct FaultProxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    server: SocketAddr,
    host: String,
    fault: Mutex<Fault>,
    open: Mutex<Vec<TcpStream>>,
    refused: Mutex<Option<String>>,
    queries: Mutex<Vec<String>>,
    connections: AtomicU64,
}

impl FaultProxy {
    /// In front of the server that `url` leads to.
    pub fn new(url: &str) -> Self {
        let host = host_and_port(url).to_owned();
        let server = if host.contains(':') { host.clone() } else { format!("{host}:5432") };
        let server = server.to_socket_addrs().expect(url).next().expect("a host has an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            server,
            host,
            fault: Mutex::new(Fault::None),
            open: Mutex::default(),
            refused: Mutex::default(),
            queries: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let accepting = Arc::downgrade(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(shared)) = (client, accepting.upgrade()) else { return };
                shared.accept(client);
            }
        });
        Self { shared, port: own }
    }

    /// `url` with this proxy in place of the server.
    pub fn url(&self, url: &str) -> String {
        assert_eq!(host_and_port(url), self.shared.host, "not what this proxy leads to");
        url.replacen(&self.shared.host, &format!("127.0.0.1:{}", self.port), 1)
    }

    pub fn set(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
        if fault == Fault::Cut {
            self.shared.cut_all();
        }
    }

    /// From now on a query with `part` in its text ends its connection, and nothing else does.
    pub fn refuse(&self, part: &str) {
        *lock(&self.shared.refused) = Some(part.to_owned());
    }

    /// Whether a one-time fault is still to come.
    pub fn fault(&self) -> Fault {
        *lock(&self.shared.fault)
    }

    /// How many queries with `part` in their text were passed on.
    pub fn queries_with(&self, part: &str) -> usize {
        lock(&self.shared.queries).iter().filter(|query| query.contains(part)).count()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.set(Fault::Cut);
        // Wakes the accepting thread, which then finds nobody to accept for.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn accept(self: Arc<Self>, client: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        if *lock(&self.fault) == Fault::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(self.server) else { return };
        for socket in [&client, &server] {
            socket.set_nodelay(true).expect("a socket takes it");
        }
        let copy = |socket: &TcpStream| socket.try_clone().expect("a socket can be shared");
        lock(&self.open).extend([copy(&client), copy(&server)]);
        let answered = Arc::new(Mutex::new(true));
        let (up, down) = ((copy(&client), copy(&server)), (server, client));
        let (shared, wanted) = (Arc::clone(&self), Arc::clone(&answered));
        thread::spawn(move || shared.pass_up(up.0, up.1, &wanted));
        thread::spawn(move || self.pass_down(down.0, down.1, &answered));
    }

    /// Client to server, message by message.
    fn pass_up(&self, client: TcpStream, mut server: TcpStream, answered: &Mutex<bool>) {
        let mut reader = Reader::new(client.try_clone().expect("a socket can be shared"));
        while let Ok(message) = reader.next() {
            let commits = message.query.as_deref() == Some("COMMIT");
            match self.wait_while_black() {
                Fault::Delay(pause) => thread::sleep(pause),
                Fault::CutBeforeCommit if commits => {
                    *lock(&self.fault) = Fault::None;
                    break;
                }
                Fault::CutAfterCommit if commits => *lock(answered) = false,
                _ => {}
            }
            if self.refuses(message.query.as_deref()) {
                break;
            }
            lock(&self.queries).extend(message.query);
            if server.write_all(&message.bytes).is_err() {
                break;
            }
        }
        if *lock(answered) {
            end(&client, &server);
        }
    }

    /// Server to client, as it comes.
    fn pass_down(&self, mut server: TcpStream, mut client: TcpStream, answered: &Mutex<bool>) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = server.read(&mut buffer) {
            self.wait_while_black();
            if !*lock(answered) {
                *lock(&self.fault) = Fault::None;
                break;
            }
            if client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        end(&client, &server);
    }

    fn refuses(&self, query: Option<&str>) -> bool {
        let refused = lock(&self.refused);
        refused.as_deref().zip(query).is_some_and(|(part, query)| query.contains(part))
    }

    fn wait_while_black(&self) -> Fault {
        loop {
            let fault = *lock(&self.fault);
            if fault != Fault::BlackHole {
                return fault;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn cut_all(&self) {
        for socket in lock(&self.open).drain(..) {
            // It may have ended by itself.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

fn host_and_port(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after.split(['/', '?']).next().unwrap_or(after);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn end(client: &TcpStream, server: &TcpStream) {
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
