//! Everything that callers and operators do to a gateway in a day, at once, and without an end.
//! Each answer is what it must be, whatever the weather.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use axum::http::Method;
use gatepost::entropy::{Entropy, SystemEntropy};
use gatepost::model::api_key::{ApiKey, SEED_BYTES};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::dice::Dice;
use crate::support::gateway::{Gateway, Made};
use crate::support::http::Answer;

const CALLERS: usize = 8;

/// Between two requests of a caller: a load, not the limit.
const PAUSE: Duration = Duration::from_millis(8);
/// Between two of those who go away too early, two refreshes of a session, two keys that come and
/// go, and two reloads.
const ABORT_EVERY: Duration = Duration::from_millis(100);
const REFRESH_EVERY: Duration = Duration::from_millis(200);
const KEY_EVERY: Duration = Duration::from_secs(2);
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// Who is asked, and how it went.
pub(super) struct Load {
    pub gateway: Gateway,
    /// Keys of the client whose requests are counted.
    pub keys: Vec<Made>,
    /// A key whose owner is gone before he is answered.
    pub hasty: Made,
    pub stop: AtomicBool,
    /// Requests with `keys` that were answered with 200.
    pub answered: AtomicU64,
    /// What else was done, by kind.
    pub aborted: AtomicU64,
    pub refreshed: AtomicU64,
    pub came_and_went: AtomicU64,
    pub reloaded: AtomicU64,
}

impl Load {
    /// Begins all of it.
    pub fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for caller in 0..CALLERS {
            tasks.spawn(Arc::clone(self).call(caller * 7));
        }
        tasks.spawn(Arc::clone(self).leave_early());
        tasks.spawn(Arc::clone(self).refresh());
        tasks.spawn(Arc::clone(self).come_and_go());
        tasks.spawn(Arc::clone(self).reload());
        tasks
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    /// One caller of every kind of request, in turns.
    async fn call(self: Arc<Self>, first: usize) {
        for turn in first.. {
            if !self.goes_on() {
                return;
            }
            let key = self.keys[turn % self.keys.len()].key.clone();
            let (method, path, body) = match turn % 7 {
                0 => (Method::GET, "/echo/hello", String::new()),
                1 => (Method::POST, "/echo/upload", "x".repeat(32 * 1024)),
                2 | 3 => (Method::GET, "/echo/unknown", String::new()),
                _ => (Method::GET, "/authz/forward-auth", String::new()),
            };
            // One is no key at all; the other one could be, and only Postgres can say.
            let (credential, wanted): (_, &[u16]) = match turn % 7 {
                2 => ("junk".to_owned(), &[401]),
                3 => (nobodys(), &[401, 503]),
                _ => (key, &[200]),
            };
            let answer = self.ask(method, path, &credential, &body).await;
            assert!(wanted.contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
            self.answered.fetch_add(u64::from(answer.status == 200), SeqCst);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, method: Method, path: &str, credential: &str, body: &str) -> Answer {
        let credential = format!("Bearer {credential}");
        let headers = [("authorization", credential.as_str())];
        self.gateway.http().ask(method, path, &headers, body).await.expect("an answer")
    }

    /// Half a head, half a body, or an answer that nobody waits for.
    async fn leave_early(self: Arc<Self>) {
        let dice = Dice::new();
        let address = self.gateway.http().address().to_owned();
        let head = format!("Host: test\r\nAuthorization: Bearer {}\r\n", self.hasty.key);
        while self.goes_on() {
            let said = match dice.below(3) {
                0 => format!("GET /echo/early HTTP/1.1\r\n{head}"),
                1 => format!("POST /echo/early HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\nhalf"),
                _ => format!("GET /echo/early HTTP/1.1\r\n{head}\r\n"),
            };
            let mut stream = TcpStream::connect(&address).await.expect("it listens");
            stream.write_all(said.as_bytes()).await.expect("it reads");
            tokio::time::sleep(dice.millis(20)).await;
            drop(stream);
            self.aborted.fetch_add(1, SeqCst);
            tokio::time::sleep(ABORT_EVERY).await;
        }
    }

    /// One session, refreshed again and again; each access token is good.
    async fn refresh(self: Arc<Self>) {
        let body = json!({ "subject": "somebody", "client": "web" });
        let mut pair = self.control("/sessions", &body).await;
        while self.goes_on() {
            let body = json!({ "refresh_token": pair["refresh_token"] }).to_string();
            let http = self.gateway.http();
            let answer = http.ask(Method::POST, "/api/auth/refresh", &[], &body).await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            pair = answer.json();
            let access = pair["access_token"].as_str().expect("a token");
            let answer = self.ask(Method::GET, "/authz/forward-auth", access, "").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            self.refreshed.fetch_add(1, SeqCst);
            tokio::time::sleep(REFRESH_EVERY).await;
        }
    }

    /// New keys, which are good at once, and are revoked at once.
    async fn come_and_go(self: Arc<Self>) {
        while self.goes_on() {
            let key = Made::of(&self.control("/keys", &json!({ "client": "passing" })).await);
            assert_eq!(self.gateway.http().verdict(&key.key).await, (200, String::new()));
            self.control(&format!("/keys/{}/revoke", key.id), &json!({})).await;
            let revoked = self.gateway.http().verdict(&key.key).await;
            assert_eq!(revoked, (401, "key_revoked".into()));
            self.came_and_went.fetch_add(1, SeqCst);
            tokio::time::sleep(KEY_EVERY).await;
        }
    }

    /// Upstreams and routes are exchanged under the requests.
    async fn reload(self: Arc<Self>) {
        while self.goes_on() {
            tokio::time::sleep(RELOAD_EVERY).await;
            self.control("/reload", &json!({})).await;
            self.reloaded.fetch_add(1, SeqCst);
        }
    }

    async fn control(&self, path: &str, body: &Value) -> Value {
        let answer = self.gateway.control(Method::POST, path, &body.to_string()).await;
        let answer = answer.expect("an answer");
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
        answer.json()
    }
}

/// A key that nobody ever made.
fn nobodys() -> String {
    let mut seed = [0; SEED_BYTES];
    loop {
        SystemEntropy::new().fill(&mut seed);
        if let Some(key) = ApiKey::make("live", &seed) {
            return key.reveal().to_owned();
        }
    }
}
