//! A Postgres server for a while, where its programs are installed.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::Error;
use super::keeper::Keeper;

/// Only whatever hangs takes longer to start.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends all connections, and then the server.
const STOP: &str = "QUIT";

/// Where distributions put the programs: a directory, what begins the names in it, and what is
/// inside of those.
const PLACES: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];

/// See the module. Dropping it stops the server and removes what it stored.
pub(super) struct Server {
    // (Fields are dropped in this order.)
    _keeper: Keeper,
    _dir: TempDir,
    port: u16,
}

impl Server {
    /// Makes one and starts it; `path` is where programs are looked for first, like `PATH`.
    pub async fn start(path: &str) -> Result<Self, Error> {
        let programs = find_programs(path).ok_or(Error::NoPostgres)?;
        let dir = tempfile::Builder::new().prefix("gatepost-drill-pg-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))?;
        // Postgres refuses to run as root.
        let owner = if geteuid().is_root() { someone_else() } else { None };
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid))?;
        }
        let as_owner = |mut command: Command| {
            command.current_dir(dir.path()).env_clear().env("LC_ALL", "C").env("PATH", path);
            if let Some((uid, gid)) = owner {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = dir.path().join("data");
        let mut initdb = as_owner(Command::new(programs.join("initdb")));
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-N", "--no-locale"]);
        let made = initdb.args(["-E", "UTF8"]).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(Error::Failed(format!(
                "initdb failed: {}",
                String::from_utf8_lossy(&made.stderr).trim_end()
            )));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let program = programs.join("postgres");
        let mut command = as_owner(Keeper::command(STOP, dir.path(), &program));
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", ""]);
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "log_min_messages=warning"] {
            command.args(["-c", setting]);
        }
        command.stderr(fs::File::create(dir.path().join("log"))?);
        let server = Self { _keeper: Keeper::start(command, STOP)?, _dir: dir, port };
        server.is_ready(&data).await?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Line 8 of the pid file says how far it is.
    async fn is_ready(&self, data: &Path) -> Result<(), Error> {
        let file = data.join("postmaster.pid");
        for _ in 0..START_MAX.as_millis() / LOOK_EVERY.as_millis() {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let log = fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
        Err(Error::Failed(format!("the throw-away Postgres does not start: {}", log.trim_end())))
    }
}

/// A user that Postgres agrees to run as, when we are root.
fn someone_else() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let find = |name: &str| {
        let user = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = user.split(':').skip(2).map(str::parse::<u32>);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}

/// The directory with the server's programs: on the path, or where distributions put it.
fn find_programs(path: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = path.split(':').map(PathBuf::from).collect();
    for (parent, prefix, inner) in PLACES {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(inner))
            .collect();
        found.sort();
        places.extend(found.into_iter().rev());
    }
    let has = |dir: &Path, name| dir.is_absolute() && dir.join(name).is_file();
    places.into_iter().find(|dir| has(dir, "initdb") && has(dir, "postgres"))
}
