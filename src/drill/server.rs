//! A Postgres server for a while, where its programs are installed.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::keeper::Keeper;
use super::{Error, programs};
use crate::entropy::SharedEntropy;

/// Only whatever hangs takes longer to start.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends all connections, and then the server.
const STOP: &str = "QUIT";

/// See the module. Dropping it stops the server and removes what it stored.
pub(super) struct Server {
    // (Fields are dropped in this order.)
    _keeper: Keeper,
    _dir: TempDir,
    port: u16,
    /// Whoever is on this machine reaches the port, and a superuser runs programs.
    password: String,
}

impl Server {
    /// Makes one and starts it; `path` is where programs are looked for first, like `PATH`.
    pub async fn start(path: &str, entropy: &SharedEntropy) -> Result<Self, Error> {
        let programs = programs::find(path).ok_or(Error::NoPostgres)?;
        let dir = tempfile::Builder::new().prefix("gatepost-drill-pg-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))?;
        // Postgres refuses to run as root.
        let owner = if geteuid().is_root() { programs::someone_else() } else { None };
        let password = password(entropy);
        let told = dir.path().join("password");
        fs::write(&told, &password)?;
        fs::set_permissions(&told, fs::Permissions::from_mode(0o600))?;
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid))?;
            chown(&told, Some(uid), Some(gid))?;
        }
        let as_owner = |mut command: Command| {
            command.current_dir(dir.path()).env_clear().env("LC_ALL", "C").env("PATH", path);
            if let Some((uid, gid)) = owner {
                command.uid(uid).gid(gid);
            }
            command
        };
        let data = dir.path().join("data");
        let mut initdb = as_owner(Keeper::errand(dir.path(), &programs.join("initdb")));
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-N", "--no-locale", "-E", "UTF8"]);
        // In clear text, over this machine's own wire, which nobody but root reads: what SCRAM asks
        // of each connection a debug build has no time for.
        initdb.args(["-A", "password", "--pwfile"]).arg(&told);
        let user = owner.map_or("this user".into(), |(uid, _)| format!("the user with id {uid}"));
        let what =
            format!("{} as {user} in {}", programs.join("initdb").display(), dir.path().display());
        match Keeper::run(initdb) {
            Ok(Output { status, .. }) if status.success() => {}
            Ok(Output { stderr, .. }) => {
                let said = String::from_utf8_lossy(&stderr);
                return Err(Error::Failed(format!("{what} failed: {}", said.trim_end())));
            }
            Err(error) => {
                return Err(Error::Failed(format!(
                    "{what} cannot be started: {error}; where that user may not go into the \
                     directories above, set TMPDIR to one that everybody may go into"
                )));
            }
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let program = programs.join("postgres");
        let mut command = as_owner(Keeper::command(STOP, dir.path(), &program));
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", ""]);
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "log_min_messages=warning"] {
            command.args(["-c", setting]);
        }
        command.stderr(fs::File::create(dir.path().join("log"))?);
        let server = Self { _keeper: Keeper::start(command, STOP)?, _dir: dir, port, password };
        server.is_ready(&data).await?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        let Self { port, password, .. } = self;
        format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable")
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

/// 122 random bits.
fn password(entropy: &SharedEntropy) -> String {
    let mut random = [0; 16];
    entropy.fill(&mut random);
    uuid::Builder::from_random_bytes(random).into_uuid().simple().to_string()
}
