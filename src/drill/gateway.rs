//! The gateway that is drilled: this very program as a process, on a directory of its own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::Error;
use super::keeper::Keeper;

/// Only whatever hangs takes longer to start, to catch up or to drain.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whoever asks and hears nothing for so long counts as refused.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const BODY_MAX: usize = 1 << 20;

/// Lines of what it says that are kept, for when it does not start.
const LINES_MAX: usize = 20;

/// A request is on disk before it is answered, so that what is answered can be compared to the last
/// one. Deadlines are short, so that an outage of seconds is one, but long enough for a server that
/// is far away, or a machine with other things to do. The upstream is never asked.
const SETTINGS: &str = r#"
[server]
listen = "127.0.0.1:0"
access_log = "off"
[admin]
listen = "127.0.0.1:0"
[journal]
commit = "before_reply"
[drain]
interval = "100ms"
deadline = "4s"
[postgres]
connect_timeout = "2s"
poll_interval = "500ms"
[[upstreams]]
name = "nobody"
targets = ["http://127.0.0.1:9"]
[[routes]]
path = "/{table}"
upstream = "nobody"
"#;

/// See the module. Dropping it kills the process and removes the directory.
pub(super) struct Gateway {
    // (Fields are dropped in this order.)
    running: Option<(Keeper, Http)>,
    dir: TempDir,
    program: PathBuf,
    database: SecretString,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Gateway {
    /// Not yet started; `program` is this one.
    pub fn new(program: &Path, database: SecretString) -> Result<Self, Error> {
        // What stands for this process would be the shell in the shell that starts it.
        let program = program.canonicalize()?;
        let dir = tempfile::Builder::new().prefix("gatepost-drill-").tempdir()?;
        let data = dir.path().join("data");
        let file = format!("data.dir = {:?}\n{SETTINGS}", data.to_string_lossy());
        std::fs::write(dir.path().join("gatepost.toml"), file)?;
        Ok(Self { running: None, dir, program, database, said: Arc::default() })
    }

    /// Starts it, and returns when it serves.
    pub async fn start(&mut self) -> Result<Http, Error> {
        let mut command = Keeper::command("KILL", self.dir.path(), &self.program);
        command.arg("--config").arg(self.dir.path().join("gatepost.toml")).arg("serve");
        command.current_dir(self.dir.path()).env_clear();
        command.env("DATABASE_URL", self.database.expose_secret()).stderr(Stdio::piped());
        let mut keeper = Keeper::start(command, "KILL")?;
        let (tell, told) = oneshot::channel();
        if let Some(stderr) = keeper.stderr() {
            let said = Arc::clone(&self.said);
            std::thread::spawn(move || listen(stderr, &said, tell));
        }
        let Ok(Ok((data, admin))) = tokio::time::timeout(PATIENCE, told).await else {
            return Err(Error::Failed(format!("the gateway does not start: {}", self.said())));
        };
        let http = Http::new(&data);
        self.running = Some((keeper, Http::new(&admin)));
        Ok(http)
    }

    /// Waits until it has heard from Postgres, and all is well.
    pub async fn is_well(&self) -> Result<(), Error> {
        self.until("to be well", async || {
            let (_, admin) = self.running.as_ref()?;
            let answer = admin.ask(Method::GET, "/readyz", &[], None).await?;
            (answer.body == b"ok\n").then_some(())
        })
        .await
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> Result<(), Error> {
        let Some((keeper, _)) = self.running.take() else { return Ok(()) };
        if keeper.kill()? {
            return Ok(());
        }
        Err(Error::Failed(format!("the gateway ended by itself: {}", self.said())))
    }

    /// Makes a client.
    pub async fn create_client(&self, name: &str) -> Result<(), Error> {
        self.control("/clients", &json!({ "name": name })).await.map(drop)
    }

    /// Makes a key; its id and its text.
    pub async fn create_key(&self, client: &str) -> Result<(String, String), Error> {
        let made = self.control("/keys", &json!({ "client": client })).await?;
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Ok((text("id"), text("key")))
    }

    /// Returns when everything that was recorded until now is in Postgres. Under load there is more
    /// by then.
    pub async fn has_drained(&self) -> Result<(), Error> {
        self.drains(|_| true).await
    }

    /// Returns when everything is in Postgres, and nothing waits.
    pub async fn is_settled(&self) -> Result<(), Error> {
        self.drains(|status| status["drain"]["pending_chunks"] == 0).await
    }

    async fn drains(&self, enough: impl Fn(&Value) -> bool) -> Result<(), Error> {
        self.until("to settle", async || {
            let status = self.control("/log/drain", &json!({})).await.ok()?;
            enough(&status).then_some(())
        })
        .await
    }

    async fn control(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let token = std::fs::read_to_string(self.dir.path().join("data/admin-token"))?;
        let bearer = format!("Bearer {}", token.trim());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let path = format!("/admin/v1{path}");
        let answer = match &self.running {
            Some((_, admin)) => admin.ask(Method::POST, &path, &headers, Some(body)).await,
            None => None,
        };
        let Some(answer) = answer else {
            return Err(Error::Failed(format!("{path}: no answer; {}", self.said())));
        };
        let text = String::from_utf8_lossy(&answer.body);
        if !(200..300).contains(&answer.status) {
            return Err(Error::Failed(format!("{path}: {} {text}", answer.status)));
        }
        serde_json::from_str(&text).map_err(|error| Error::Failed(format!("{path}: {error}")))
    }

    async fn until(&self, what: &str, ask: impl AsyncFn() -> Option<()>) -> Result<(), Error> {
        let waited = async {
            while ask().await.is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waited).await;
        waited.map_err(|_| {
            let said = self.said();
            Error::Failed(format!("the gateway takes more than {PATIENCE:?} {what}: {said}"))
        })
    }

    /// What it said last.
    fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

/// Keeps the last of what a process says, and tells where it listens.
fn listen(
    stderr: ChildStderr,
    said: &Mutex<VecDeque<String>>,
    tell: oneshot::Sender<(String, String)>,
) {
    let mut tell = Some(tell);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let addresses = line.strip_prefix("gatepost: listening on ");
        let addresses = addresses.and_then(|rest| rest.split_once(", control plane on "));
        if let Some((data, admin)) = addresses
            && let Some(tell) = tell.take()
        {
            // Whoever waited may have given up.
            drop(tell.send((data.to_owned(), admin.to_owned())));
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == LINES_MAX {
            said.pop_front();
        }
        said.push_back(line);
    }
}

/// A client of one listener of one life of the gateway. Nothing is ever sent twice.
pub(super) struct Http {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Http {
    fn new(base: &str) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.retry_canceled_requests(false);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { base: base.to_owned(), client: builder.build(connector) }
    }

    /// `None`: no answer, not all of it, or not in time.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(body)).ok()?;
        let asked = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = Limited::new(body, BODY_MAX).collect().await.ok()?.to_bytes().to_vec();
            Some(Answer { status: head.status.as_u16(), body })
        };
        tokio::time::timeout(ANSWER_MAX, asked).await.ok()?
    }
}
