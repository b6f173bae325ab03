//! A proxy between a gateway and Postgres that can break the way in the ways that ways break. The
//! tests use it as well.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::wire::Reader;

/// How long what is held up in a black hole waits before it looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Connections at a time. In a black hole those that were given up stay until it is over.
const OPEN_MAX: usize = 200;

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
    /// The next COMMIT is not passed on; its connection ends, then the fault is over. Under TLS
    /// none is seen.
    CutBeforeCommit,
    /// The next COMMIT is carried out, its answer thrown away; then like the one before.
    CutAfterCommit,
}

/// Who is told of what passes.
pub trait Watch: Send + Sync + 'static {
    /// Somebody has connected.
    fn connected(&self) {}

    /// A query has come; when it must not pass, its connection ends.
    fn passes(&self, _query: &str) -> bool {
        true
    }
}

/// Nobody.
impl Watch for () {}

/// See the module. Dropping it cuts everything.
pub struct FaultProxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    server: SocketAddr,
    fault: Mutex<Fault>,
    open: Mutex<Vec<Weak<Connection>>>,
    watch: Arc<dyn Watch>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// The server's answers are wanted.
    answered: AtomicBool,
}

impl FaultProxy {
    /// On a free port of this machine, in front of a server: host and port.
    ///
    /// # Errors
    /// When the host has no address, or there is no port.
    pub fn new(server: (&str, u16), watch: Arc<dyn Watch>) -> io::Result<Self> {
        let address = server.to_socket_addrs()?.next();
        let server = address.ok_or_else(|| io::Error::other("the host has no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (fault, open) = (Mutex::new(Fault::None), Mutex::default());
        let shared = Arc::new(Shared { server, fault, open, watch });
        let accepting = Arc::downgrade(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(shared)) = (client, accepting.upgrade()) else { return };
                // Whoever could not be connected has lost a connection.
                drop(shared.accept(client));
            }
        });
        Ok(Self { shared, port })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
        if fault == Fault::Cut {
            self.shared.cut_all();
        }
    }

    /// Whether a one-time fault is still to come.
    pub fn fault(&self) -> Fault {
        *lock(&self.shared.fault)
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
    fn accept(self: Arc<Self>, client: TcpStream) -> io::Result<()> {
        self.watch.connected();
        if *lock(&self.fault) == Fault::Cut {
            return Ok(());
        }
        let server = TcpStream::connect(self.server)?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
        }
        let answered = AtomicBool::new(true);
        let connection = Arc::new(Connection { client, server, answered });
        if !self.takes(&connection) {
            return Ok(());
        }
        let (shared, up) = (Arc::clone(&self), Arc::clone(&connection));
        thread::spawn(move || {
            shared.pass_up(&up);
            if up.answered.load(SeqCst) {
                up.end();
            }
        });
        thread::spawn(move || {
            self.pass_down(&connection);
            connection.end();
        });
        Ok(())
    }

    /// Whether there is room for one more, and nothing was cut meanwhile.
    fn takes(&self, connection: &Arc<Connection>) -> bool {
        let mut open = lock(&self.open);
        open.retain(|connection| connection.strong_count() > 0);
        let takes = open.len() < OPEN_MAX && *lock(&self.fault) != Fault::Cut;
        if takes {
            open.push(Arc::downgrade(connection));
        }
        takes
    }

    /// Client to server, message by message.
    fn pass_up(&self, connection: &Connection) {
        let (mut client, mut server) = (Reader::new(&connection.client), &connection.server);
        while let Ok(message) = client.next() {
            let commits = message.query.as_deref() == Some("COMMIT");
            match self.wait_while_black() {
                Fault::Delay(pause) => thread::sleep(pause),
                Fault::CutBeforeCommit if commits => {
                    *lock(&self.fault) = Fault::None;
                    return;
                }
                Fault::CutAfterCommit if commits => connection.answered.store(false, SeqCst),
                _ => {}
            }
            let passes = message.query.is_none_or(|query| self.watch.passes(&query));
            if !passes || server.write_all(&message.bytes).is_err() {
                return;
            }
        }
    }

    /// Server to client, as it comes.
    fn pass_down(&self, connection: &Connection) {
        let (mut server, mut client) = (&connection.server, &connection.client);
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = server.read(&mut buffer) {
            self.wait_while_black();
            if !connection.answered.load(SeqCst) {
                *lock(&self.fault) = Fault::None;
                return;
            }
            if client.write_all(&buffer[..read]).is_err() {
                return;
            }
        }
    }

    fn wait_while_black(&self) -> Fault {
        loop {
            let fault = *lock(&self.fault);
            if fault != Fault::BlackHole {
                return fault;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn cut_all(&self) {
        lock(&self.open).drain(..).filter_map(|open| open.upgrade()).for_each(|open| open.end());
    }
}

impl Connection {
    /// It may have ended by itself.
    fn end(&self) {
        drop(self.client.shutdown(Shutdown::Both));
        drop(self.server.shutdown(Shutdown::Both));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
