//! The real program as a process, on a data directory of its own.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::http::{Answer, Http};
use super::process::{self, Addresses, Said, end, signal};
use super::reaper;
use super::shim::Shim;

/// Only whatever hangs takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module. Dropping it kills the process and removes the directory.
pub struct Gateway {
    dir: TempDir,
    database: Option<String>,
    variables: Vec<(String, String)>,
    /// Between it and its directory, from its next start on.
    pub shim: Option<Shim>,
    running: Option<Running>,
    said: Said,
}

struct Running {
    child: Child,
    data: Http,
    admin_url: String,
    admin: Http,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What a command that went well printed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).expect("JSON")
    }
}

/// A key that was made, and the id that it is revoked by.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub key: String,
}

impl Made {
    pub fn of(json: &Value) -> Self {
        let text = |name: &str| json[name].as_str().expect("it is shown").to_owned();
        Self { id: text("id"), key: text("key") }
    }
}

impl Gateway {
    /// Not yet started. `settings` is TOML, after the addresses and the data directory; without
    /// `database` it is embedded.
    pub fn new(database: Option<&str>, settings: &str) -> Self {
        let dir = TempDir::with_prefix("gp-gateway-").expect("a directory");
        let data = dir.path().join("data");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\necho = true\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [data]\ndir = \"{}\"\n{settings}\n",
            data.display()
        );
        std::fs::write(dir.path().join("gatepost.toml"), text).expect("a file");
        let database = database.map(str::to_owned);
        let variables = Vec::new();
        Self { dir, database, variables, shim: None, running: None, said: Said::default() }
    }

    /// Gives it a database, from its next start on.
    pub fn attach(&mut self, database: &str) {
        self.database = Some(database.to_owned());
    }

    /// Gives it an environment variable, from its next start or command on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.into(), value.into()));
    }

    /// The directory that it has for itself; the data directory is in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.arg("--config").arg(self.dir.path().join("gatepost.toml"));
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts `serve` and waits for nothing.
    fn spawn(&self) -> (Child, oneshot::Receiver<Addresses>) {
        let mut command = self.command();
        if let Some(shim) = &self.shim {
            command.envs(shim.env());
        }
        process::spawn(command, &self.said)
    }

    /// Starts it and waits until `/livez` answers.
    pub async fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let (child, told) = self.spawn();
        let told = tokio::time::timeout(PATIENCE, told).await;
        let Ok(Ok(Addresses { data, admin })) = told else {
            end(child, "-KILL");
            panic!("the gateway does not start: {}", self.said());
        };
        let running =
            Running { child, data: Http::new(&data), admin: Http::new(&admin), admin_url: admin };
        let running = self.running.insert(running);
        assert_eq!(running.data.get("/livez").await.status, 200);
    }

    /// As [`Gateway::start`], for one that something may kill on the way: whether it lives.
    pub async fn start_or_die(&mut self) -> bool {
        let (child, told) = self.spawn();
        let told = tokio::time::timeout(PATIENCE, told).await.expect("it starts or dies");
        let (data, admin) = match told {
            Ok(Addresses { data, admin }) => (data, admin),
            // It said no addresses, and never will.
            Err(_) => Default::default(),
        };
        let lives = !data.is_empty();
        self.running = Some(Running {
            child,
            data: Http::new(&data),
            admin: Http::new(&admin),
            admin_url: admin,
        });
        lives
    }

    /// SIGTERM to one that something may kill on the way: whether it came to its end in order.
    pub async fn terminate_or_die(&mut self) -> bool {
        let running = self.running.as_mut().expect("it runs");
        // It may be gone already.
        let pid = running.child.id().to_string();
        drop(Command::new("kill").arg("-TERM").arg(pid).stderr(Stdio::null()).status());
        let status = self.ended().await;
        assert!(status.code().is_none_or(|code| code == 0), "{status}: {}", self.said());
        status.success()
    }

    /// Waits for the end of one that was killed, if it has not been waited for.
    pub fn bury(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Whatever is left of it: it may hang on for what it was not killed in.
            drop(running.child.kill());
            let status = running.child.wait().expect("it is our child");
            reaper::ended(running.child.id());
            assert_eq!(status.code(), None, "it ended by itself, {status}: {}", self.said());
        }
    }

    async fn ended(&mut self) -> ExitStatus {
        let Running { mut child, .. } = self.running.take().expect("it runs");
        let ended = async {
            loop {
                if let Some(status) = child.try_wait().expect("it is our child") {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let Ok(status) = tokio::time::timeout(PATIENCE, ended).await else {
            end(child, "-KILL");
            panic!("SIGTERM does not end it: {}", self.said());
        };
        reaper::ended(child.id());
        status
    }

    /// Starts it and waits until it has caught up with Postgres: before its first time it cannot
    /// know whether a key was revoked there.
    pub async fn start_ready(&mut self) {
        self.start().await;
        self.is_well().await;
    }

    /// Waits until it says that all is well.
    pub async fn is_well(&self) {
        until("`/readyz` says ok", || async { self.admin().get("/readyz").await.body == "ok\n" })
            .await;
    }

    /// Starts it and kills it at `moment`, however far it has come.
    pub async fn start_and_kill9_after(&mut self, moment: Duration) {
        assert!(self.running.is_none(), "it runs already");
        let (child, _told) = self.spawn();
        tokio::time::sleep(moment).await;
        self.killed(child);
    }

    pub fn kill9(&mut self) {
        let running = self.running.take().expect("it runs");
        self.killed(running.child);
    }

    fn killed(&self, child: Child) {
        let status = end(child, "-KILL");
        assert_eq!(status.code(), None, "it had ended by itself, {status}: {}", self.said());
    }

    /// SIGTERM; returns when it has ended, in order.
    pub async fn terminate(&mut self) {
        signal(&self.running().child, "-TERM");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{status}: {}", self.said());
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// The data plane.
    pub fn http(&self) -> &Http {
        &self.running().data
    }

    /// The control plane, without a token.
    pub fn admin(&self) -> &Http {
        &self.running().admin
    }

    /// One request to the admin API.
    pub async fn control(&self, method: Method, path: &str, body: &str) -> Option<Answer> {
        let token = std::fs::read_to_string(self.data_dir().join("admin-token")).expect("a token");
        let bearer = format!("Bearer {}", token.trim());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.admin().ask(method, &format!("/admin/v1{path}"), &headers, body).await
    }

    /// Runs a command as an operator would, against the running process or on its directory.
    pub async fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command();
        command.args(args).args(["--output", "json"]);
        if let Some(running) = &self.running {
            command.env("GATEPOST_ADMIN_URL", &running.admin_url);
        }
        Self::ran(command).await
    }

    /// `serve` behind the shim, for a start that must fail.
    pub async fn serve_in_vain(&self) -> Ran {
        let mut command = self.command();
        command.arg("serve").envs(self.shim.iter().flat_map(Shim::env));
        Self::ran(command).await
    }

    async fn ran(mut command: Command) -> Ran {
        let ran = tokio::task::spawn_blocking(move || command.output());
        let Output { status, stdout, stderr } = ran.await.expect("no panic").expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    pub async fn create_client(&self, name: &str) {
        assert_eq!(self.run(&["client", "create", name]).await.json()["name"], name);
    }

    pub async fn create_key(&self, client: &str) -> Made {
        Made::of(&self.run(&["key", "create", "--client", client]).await.json())
    }

    pub async fn revoke(&self, key: &Made) {
        assert_eq!(self.run(&["key", "revoke", &key.id]).await.json()["state"], "revoked");
    }

    /// Everything that was recorded until now is in Postgres. Waits until Postgres lets it.
    pub async fn drain(&self) {
        let drained = async {
            loop {
                let answer = self.control(Method::POST, "/log/drain", "").await.expect("an answer");
                if answer.status == 200 && answer.json()["drain"]["pending_chunks"] == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, drained).await.is_err() {
            panic!("it does not drain: {}", self.said());
        }
    }

    /// Segments of a lane that others were merged into; none when it does not live to say so.
    pub async fn merged(&self, lane: &str) -> Option<u64> {
        let log = self.control(Method::GET, "/log", "").await?.json();
        let lanes = log["lanes"].as_array().expect("a list");
        lanes.iter().find(|of| of["lane"] == lane).expect("every lane")["merged"].as_u64()
    }

    /// What it wrote to stderr, of all its lives.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Gateway {
    #[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            end(running.child, "-KILL");
        }
        if std::thread::panicking() {
            eprintln!("the gateway in {} said:\n{}", self.dir.path().display(), self.said());
        }
    }
}

/// Waits for what comes by itself, and gives up when it does not come.
pub async fn until<F: Future<Output = bool>>(what: impl Display, mut holds: impl FnMut() -> F) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "in vain: {what}");
}
