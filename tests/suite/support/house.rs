//! Programs that a test starts, and talk in plain HTTP/1.1 with them.
//!
//! Every wait has a deadline, and every child ends with its handle, on a panic too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gatepost::model::api_key::{ApiKey, SEED_BYTES};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A child that is killed with its handle, and all that it wrote to stderr.
pub struct Program {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: thread::JoinHandle<()>,
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is there");
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let heard = Arc::clone(&said);
        let listener = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().expect("no panic").push_str(&(line + "\n"));
            }
        });
        Self { child, said, listener }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// Waits until it says `words`.
    pub fn hear(&mut self, words: &str) -> String {
        until(&format!("`{words}`"), || {
            let ended = self.child.try_wait().expect("a child");
            let said = self.said();
            let heard = said.contains(words);
            assert!(heard || ended.is_none(), "it ended, {ended:?}: {said}");
            heard.then_some(said)
        })
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        until("the program's end", || self.child.try_wait().expect("a child"))
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A configuration in a directory of its own, and the real binary to run on it.
pub struct House {
    dir: tempfile::TempDir,
}

impl House {
    /// `rest` comes behind the sections that give each test its own directory and ports; keys of
    /// `[server]` come first.
    pub fn new(rest: &str) -> Self {
        let house = Self { dir: tempfile::tempdir().expect("a directory") };
        house.configure(&house.data(), rest);
        house
    }

    pub fn configure(&self, data: &Path, rest: &str) {
        let text = format!(
            "admin.listen = \"127.0.0.1:0\"\ndata.dir = {data:?}\nlog.format = \"text\"\n\
             [server]\nlisten = \"127.0.0.1:0\"\n{rest}"
        );
        std::fs::write(self.file(), text).expect("written");
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("gatepost.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.env_clear().env("NO_COLOR", "1").current_dir(self.dir.path());
        command.arg("--config").arg(self.file()).args(args);
        command
    }

    /// Runs a command to its end: exit code, stdout, stderr.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = self.command(args);
        command.stdout(Stdio::piped());
        let mut program = Program::start(command);
        let mut stdout = program.child.stdout.take().expect("piped");
        let reader = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text).expect("text")
        });
        let code = program.end().code().expect("it was not killed");
        let stdout = reader.join().expect("no panic");
        until("the last word", || program.listener.is_finished().then_some(()));
        (code, stdout, program.said())
    }

    /// `serve`, once it listens.
    pub fn serve(&self) -> Gateway {
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::null());
        let mut program = Program::start(command);
        let said = program.hear("control plane on http://");
        let after = |words: &str| {
            let rest = said.split(words).nth(1).expect("an address");
            let url = rest.split([',', '\n']).next().expect("its end");
            let address = url.rsplit('/').next().unwrap_or(url);
            address.parse().expect("an address")
        };
        let data = after("listening on ");
        let admin = after("control plane on http://");
        Gateway { program, data, admin }
    }
}

/// A running gateway.
pub struct Gateway {
    pub program: Program,
    pub data: SocketAddr,
    pub admin: SocketAddr,
}

impl Gateway {
    /// Ends it in order; it must say that all went well.
    pub fn stop(mut self) {
        self.program.signal("-TERM");
        let ended = self.program.end();
        assert!(ended.success(), "{ended:?}: {}", self.program.said());
    }
}

/// A key that differs with `number`.
pub fn key(number: u8) -> String {
    ApiKey::make("live", &[number; SEED_BYTES]).expect("usable bytes").reveal().to_owned()
}

/// A client with one key, declared.
pub fn declared(client: &str, key: &str) -> String {
    let digest = gatepost::model::api_key::digest(key);
    format!(
        "[[clients]]\nname = \"{client}\"\n[[keys]]\nclient = \"{client}\"\ndigest = \"{digest}\"\n"
    )
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// Sends one request without a body and reads the answer to its end.
pub fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut head = format!("{target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    if !target.contains(' ') {
        head = format!("GET {head}");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    answer(&exchange(address, (head + "\r\n").as_bytes()))
}

/// Sends bytes and reads until the other side closes.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // The other side may have heard enough.
    drop(stream.write_all(bytes));
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => text.extend(&part[..length]),
            // A reset is an end as well; nothing for so long is none.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status"), head: head.into(), body: body.into() }
}

/// A server that hands each connection to `talk` on a thread of its own.
pub fn server(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let talk = Arc::new(talk);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let talk = Arc::clone(&talk);
            thread::spawn(move || talk(stream));
        }
    });
    address
}

/// Reads a head, without the empty line at its end. Byte by byte: nothing of the body is taken.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).trim_end().to_owned()
}

/// A backend that answers each request with the head that it got.
pub fn mirror() -> SocketAddr {
    server(|mut stream| {
        let head = read_head(&mut stream);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}",
            head.len()
        );
        // Whoever asked may be gone.
        drop(stream.write_all(answer.as_bytes()));
    })
}
