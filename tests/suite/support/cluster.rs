//! Throw-away Postgres servers.
//!
//! Each server is the child of a small shell that waits on a pipe from this process: whatever ends
//! the tests, a panic or `kill -9` included, closes the pipe, and the shell stops the server and
//! removes its directory.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use gatepost::drill::programs;
use gatepost::entropy::{Entropy, SystemEntropy};

use super::database::{self, Database, TEMPLATE};

const PATIENCE: Duration = Duration::from_secs(30);

/// Reads one word, or the end of the pipe, and stops the server accordingly. A frozen server must
/// be thawed first, or it would never notice.
const KEEPER: &str = r#"
  trap '' INT TERM HUP
  dir=$1; shift
  "$@" >>"$dir/log" 2>&1 & server=$!
  read how
  kids=$(ps -A -o pid= -o ppid= | awk -v p=$server '$2 == p { print $1 }')
  case "$how" in
    stop) signal=INT ;;
    *) signal=QUIT ;;
  esac
  kill -$signal $server 2>/dev/null
  kill -CONT $server $kids 2>/dev/null
  wait $server
  [ -n "$how" ] || rm -rf "$dir"
"#;

/// One server. Dropping it stops it and removes what it stored.
pub struct Cluster {
    dir: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    /// Whoever is on this machine reaches the port, and a superuser runs programs.
    password: String,
    fsync: bool,
    running: Mutex<Option<Running>>,
}

struct Running {
    keeper: Child,
    pipe: ChildStdin,
}

impl Cluster {
    /// A server that this test may stop and freeze. Its template is migrated.
    pub fn dedicated() -> Self {
        Self::with_fsync(false)
    }

    /// The same, and whether commits reach the disk: so they do where their cost is measured.
    pub fn with_fsync(fsync: bool) -> Self {
        let owner = (fs::metadata("/proc/self").map_or(1, |own| own.uid()) == 0)
            .then(programs::someone_else);
        let owner = owner.flatten();
        let dir = tempfile::Builder::new().prefix("gp-pg-").tempdir().expect("a directory");
        let dir = dir.keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("its owner's only");
        if let Some((uid, gid)) = owner {
            chown(&dir, Some(uid), Some(gid)).expect("root may give it away");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = port.expect("a free port").port();
        let running = Mutex::new(None);
        let password = password();
        let cluster = Self { dir, port, owner, password, fsync, running };
        cluster.init();
        cluster.start();
        database::make_template(&cluster.url("postgres"), &cluster.url(TEMPLATE));
        cluster
    }

    /// Over TCP, to the database `name`.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{name}", self.password, self.port)
    }

    /// Over the Unix socket, to the database `name`.
    pub fn socket_url(&self, name: &str) -> String {
        let Self { dir, port, password, .. } = self;
        format!("postgres://postgres:{password}@localhost:{port}/{name}?host={}", dir.display())
    }

    /// A database of its own, migrated.
    pub async fn database(&self) -> Database {
        database::create(&self.url("postgres"), |name| self.url(name)).await
    }

    pub fn start(&self) {
        let mut command = self.command("sh");
        command.arg("-c").arg(KEEPER).arg("keeper").arg(&self.dir).arg(binary("postgres"));
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        command.arg("-k").arg(&self.dir);
        for setting in [
            "listen_addresses=127.0.0.1",
            if self.fsync { "fsync=on" } else { "fsync=off" },
            "max_connections=200",
            "max_prepared_transactions=0",
            "log_min_messages=warning",
        ] {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut keeper = command.spawn().expect("a shell");
        let pipe = keeper.stdin.take().expect("its pipe");
        *self.running.lock().expect("no panic") = Some(Running { keeper, pipe });
        self.wait_until_ready();
    }

    /// Ends every connection and the server; what was committed stays for [`Cluster::start`].
    pub fn stop(&self) {
        self.end(Some("stop\n"));
    }

    /// Ends all its processes at once, in the middle of what they do; what was committed is there
    /// after [`Cluster::start`].
    pub fn crash(&self) {
        self.signal("-QUIT");
        self.end(Some("stop\n"));
    }

    /// Stops all its processes where they stand: sockets stay open, nothing answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Copies a file into its data directory, for its owner alone.
    pub fn give(&self, from: &Path, name: &str) {
        let to = self.data().join(name);
        fs::copy(from, &to).expect("a file");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("its owner's only");
        if let Some((uid, gid)) = self.owner {
            chown(&to, Some(uid), Some(gid)).expect("root may give it away");
        }
    }

    fn end(&self, how: Option<&str>) {
        let Some(mut running) = self.running.lock().expect("no panic").take() else { return };
        if let Some(how) = how {
            running.pipe.write_all(how.as_bytes()).expect("the keeper reads");
        }
        drop(running.pipe);
        running.keeper.wait().expect("the keeper ends");
    }

    fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        let server = pid.lines().next().expect("its first line is the pid").to_owned();
        let table = Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid="]).output();
        let table = String::from_utf8(table.expect("ps").stdout).expect("numbers");
        // The server first, so that it starts no more children.
        let mut pids = vec![server.clone()];
        for line in table.lines() {
            let mut columns = line.split_whitespace();
            if let (Some(pid), Some(parent)) = (columns.next(), columns.next())
                && parent == server
            {
                pids.push(pid.to_owned());
            }
        }
        let sent = Command::new("kill").arg(signal).args(&pids).stderr(Stdio::null()).status();
        sent.expect("kill");
    }

    fn init(&self) {
        let told = self.dir.join("password");
        fs::write(&told, &self.password).expect("a file");
        if let Some((uid, gid)) = self.owner {
            chown(&told, Some(uid), Some(gid)).expect("root may give it away");
        }
        let mut initdb = self.command(binary("initdb"));
        // In clear text, over this machine's own wire: many connections are made, and a debug build
        // takes long for what SCRAM asks of it.
        initdb.arg("-D").arg(self.data()).args(["-U", "postgres", "-A", "password", "-N"]);
        initdb.arg("--pwfile").arg(told);
        let done = initdb.args(["--no-locale", "-E", "UTF8"]).output().expect("initdb");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("LC_ALL", "C");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Line 8 of the pid file says how far it is.
    fn wait_until_ready(&self) {
        let file = self.data().join("postmaster.pid");
        for _ in 0..PATIENCE.as_millis() / 10 {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end(None);
        // Not there any more unless it was stopped.
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).expect("what was made can be removed");
        }
    }
}

fn password() -> String {
    let mut random = [0; 16];
    SystemEntropy::new().fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The server that all tests share.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::dedicated)
}

/// A server binary: on the path, or where distributions put it.
fn binary(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let find = || programs::find(&std::env::var("PATH").unwrap_or_default());
    DIR.get_or_init(|| find().expect("initdb is installed; `tests/run.sh` does it")).join(name)
}
