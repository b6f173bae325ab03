//! A proxy between a gateway and Postgres that can break the way in the ways that ways break. The
//! tests use it as well.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::wire::Reader;

/// How long what is held up in a black hole waits before it looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Connections at a time.
const OPEN_MAX: usize = 200;

/// What somebody may say before he is connected, in bytes: who he is, and no more.
const HELD_MAX: usize = 16 * 1024;

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
    /// The next COMMIT of what may write is not passed on; its connection ends, and the fault is
    /// over. Under TLS none is seen.
    CutBeforeCommit,
    /// The next such COMMIT is carried out, its answer thrown away; then like the one before.
    CutAfterCommit,
    /// The same, and from then on it is a [black hole](Self::BlackHole): whoever has sent it can
    /// neither ask what became of it nor send it again.
    FreezeAfterCommit,
}

/// COMMITs that were lost, since the proxy is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Carried out, and nobody has heard of it.
    pub unanswered: u32,
    /// Never passed on.
    pub unsent: u32,
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
    lost: Mutex<Lost>,
    encrypted: AtomicBool,
    watch: Arc<dyn Watch>,
}

struct Connection {
    client: TcpStream,
    server: OnceLock<TcpStream>,
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
        let shared = Arc::new(Shared {
            server,
            fault: Mutex::new(Fault::None),
            open: Mutex::default(),
            lost: Mutex::default(),
            encrypted: AtomicBool::new(false),
            watch,
        });
        let accepting = Arc::downgrade(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(shared)) = (client, accepting.upgrade()) else { return };
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

    /// What was lost on the way until now.
    pub fn lost(&self) -> Lost {
        *lock(&self.shared.lost)
    }

    /// Whether anything has passed under TLS: then no COMMIT is seen.
    pub fn is_encrypted(&self) -> bool {
        self.shared.encrypted.load(SeqCst)
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
        client.set_nodelay(true)?;
        let (server, answered) = (OnceLock::new(), AtomicBool::new(true));
        let connection = Arc::new(Connection { client, server, answered });
        if self.takes(&connection) {
            // Whoever could not be connected has lost a connection.
            thread::spawn(move || drop(self.connect(&connection)));
        }
        Ok(())
    }

    /// Passes all of one connection.
    fn connect(self: Arc<Self>, connection: &Arc<Connection>) -> io::Result<()> {
        let held = self.held(&connection.client)?;
        let server = TcpStream::connect(self.server)?;
        server.set_nodelay(true)?;
        let server = connection.server.get_or_init(|| server);
        let (shared, down) = (Arc::clone(&self), Arc::clone(connection));
        thread::spawn(move || {
            if let Some(server) = down.server.get() {
                shared.pass_down(&down, server);
            }
            down.end();
        });
        self.pass_up(held, connection, server);
        if connection.answered.load(SeqCst) {
            connection.end();
        }
        Ok(())
    }

    /// What somebody says while nothing passes. The server hears of him when he is still there
    /// afterwards: it may have few connections to give.
    fn held(&self, mut client: &TcpStream) -> io::Result<Vec<u8>> {
        let (mut held, mut buffer) = (Vec::new(), [0; 1024]);
        client.set_read_timeout(Some(LOOK_EVERY))?;
        while *lock(&self.fault) == Fault::BlackHole {
            match client.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) if held.len() < HELD_MAX => held.extend_from_slice(&buffer[..read]),
                Ok(_) => return Err(ErrorKind::InvalidData.into()),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        client.set_read_timeout(None)?;
        match *lock(&self.fault) {
            Fault::Cut => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(held),
        }
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
    fn pass_up(&self, held: Vec<u8>, connection: &Connection, mut server: &TcpStream) {
        let mut client = Reader::new(Cursor::new(held).chain(&connection.client));
        // Whether the transaction that has begun may write.
        let mut writes = true;
        while let Ok(message) = client.next() {
            if client.is_encrypted() {
                self.encrypted.store(true, SeqCst);
            }
            let query = message.query.as_deref().unwrap_or_default();
            if query.starts_with("BEGIN") {
                writes = !query.contains("READ ONLY");
            }
            match self.wait_while_black(writes && query == "COMMIT") {
                Fault::Delay(pause) => thread::sleep(pause),
                Fault::CutBeforeCommit => {
                    lock(&self.lost).unsent += 1;
                    return;
                }
                Fault::CutAfterCommit | Fault::FreezeAfterCommit => {
                    connection.answered.store(false, SeqCst);
                }
                _ => {}
            }
            let passes = message.query.is_none_or(|query| self.watch.passes(&query));
            if !passes || server.write_all(&message.bytes).is_err() {
                return;
            }
        }
    }

    /// Server to client, as it comes.
    fn pass_down(&self, connection: &Connection, mut server: &TcpStream) {
        let mut client = &connection.client;
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = server.read(&mut buffer) {
            if !connection.answered.load(SeqCst) {
                // CommandComplete; anything else would say that it was not carried out.
                lock(&self.lost).unanswered += u32::from(buffer[0] == b'C');
                return;
            }
            self.wait_while_black(false);
            if client.write_all(&buffer[..read]).is_err() {
                return;
            }
        }
    }

    /// What is to happen now; a fault of COMMITs only to one that `commits`, and to no second one.
    fn wait_while_black(&self, commits: bool) -> Fault {
        loop {
            let mut fault = lock(&self.fault);
            let (now, then) = match *fault {
                one @ (Fault::CutBeforeCommit | Fault::CutAfterCommit) => (one, Fault::None),
                Fault::FreezeAfterCommit => (Fault::FreezeAfterCommit, Fault::BlackHole),
                other => (other, other),
            };
            if now != then && !commits {
                return Fault::None;
            }
            *fault = then;
            if now != Fault::BlackHole {
                return now;
            }
            drop(fault);
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
        drop(self.server.get().map(|server| server.shutdown(Shutdown::Both)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
