//! The access log: a JSON line for each request, written when it is over.
//!
//! A [`Story`] is filled in on the way of a request and told when it is dropped: at the end of the
//! answer's body, or when the client has gone. It holds handles, not copies; only telling makes
//! text. Never in it: a credential, and the query.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{HOST, HeaderValue, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use hyper::body::Body;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::routes::{Access, Route};
use super::trace::TraceId;
use crate::authn::Caller;
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::model::Name;
use crate::proxy::Upstream;
use crate::usage::Ended;

/// The longest text in a line: what a client sends is told up to here.
const TEXT_MAX: usize = 256;

/// The decision of an answer that ended before its end.
const BROKE_OFF: &str = "broke_off";
/// That of one whose client left before its end.
const CLIENT_GONE: &str = "client_gone";

/// Which requests have a line.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AccessLines {
    /// Each.
    #[default]
    All,
    /// Those that were refused, failed, or not answered.
    Errors,
    /// None.
    Off,
}

/// Where lines go; it must not wait.
pub type WriteLine = Arc<dyn Fn(Vec<u8>) + Send + Sync>;

/// Begins stories and tells them.
pub struct AccessLog {
    which: AccessLines,
    /// The share of those that went well, from 0 to 1.
    share: f64,
    entropy: SharedEntropy,
    write: WriteLine,
    clock: SharedClock,
}

impl AccessLog {
    /// A log of these requests; of those that went well, of a `share` from 0 to 1.
    pub fn new(
        which: AccessLines,
        share: f64,
        write: WriteLine,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Self {
        Self { which, share, entropy, write, clock }
    }

    /// The story of a request, unless none is told.
    pub fn begin(self: &Arc<Self>, parts: &Parts, id: &HeaderValue) -> Telling {
        Telling((self.which != AccessLines::Off).then(|| {
            Box::new(Story {
                log: Arc::clone(self),
                started: self.clock.monotonic(),
                id: id.clone(),
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                host: parts.headers.get(HOST).cloned(),
                asked: None,
                agent: parts.headers.get(USER_AGENT).cloned(),
                trace: TraceId::of(&parts.headers),
                ip: None,
                endpoint: "proxy",
                route: None,
                upstream: None,
                client: None,
                key_id: None,
                policy: None,
                decision: None,
                status: None,
                bytes_in: 0,
                bytes_out: 0,
            })
        }))
    }

    /// Whether this one is told, of those that need not be.
    fn draws(&self) -> bool {
        if self.share >= 1.0 {
            return true;
        }
        let mut random = [0; 4];
        self.entropy.fill(&mut random);
        f64::from(u32::from_le_bytes(random)) < self.share * f64::from(u32::MAX)
    }

    fn tell(&self, story: &Story) {
        if story.went_well() && (self.which == AccessLines::Errors || !self.draws()) {
            return;
        }
        let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.clock.now().0) * 1000);
        let now = now.ok().and_then(|now| now.format(&Rfc3339).ok()).unwrap_or_default();
        let took = self.clock.monotonic().saturating_sub(story.started);
        // Plain fields: there is nothing that could fail.
        let mut line = serde_json::to_vec(&Line::of(story, &now, took)).unwrap_or_default();
        line.push(b'\n');
        (self.write)(line);
    }
}

/// The story of a request, if it is told.
#[derive(Default)]
pub struct Telling(Option<Box<Story>>);

impl Telling {
    /// Adds to it.
    pub fn note(&mut self, what: impl FnOnce(&mut Story)) {
        if let Some(story) = &mut self.0 {
            what(story);
        }
    }

    /// Hands it on to whoever knows the end.
    pub fn take(&mut self) -> Option<Box<Story>> {
        self.0.take()
    }
}

/// What another proxy asks about.
struct Asked {
    method: Method,
    host: Option<String>,
    path: String,
}

/// What is known of one request.
pub struct Story {
    log: Arc<AccessLog>,
    started: Duration,
    id: HeaderValue,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    asked: Option<Asked>,
    agent: Option<HeaderValue>,
    trace: Option<TraceId>,
    /// Who really asks, where that can be said.
    pub ip: Option<IpAddr>,
    endpoint: &'static str,
    /// The route's pattern.
    pub route: Option<Name>,
    upstream: Option<Arc<Upstream>>,
    client: Option<Name>,
    key_id: Option<Uuid>,
    policy: Option<Name>,
    /// `allowed`, `anonymous`, or the code of what refused it or went wrong.
    pub decision: Option<&'static str>,
    /// None while nobody has answered.
    status: Option<u16>,
    /// Of the request's body.
    pub bytes_in: u64,
    bytes_out: u64,
}

impl Story {
    /// What another proxy asks about: that is what the line is about then.
    pub fn asks_about(&mut self, method: &Method, host: Option<&str>, path: &str) {
        let host = host.map(|host| bounded(host).to_owned());
        self.asked = Some(Asked { method: method.clone(), host, path: bounded(path).to_owned() });
    }

    /// The route that it takes.
    pub fn takes(&mut self, route: &Route) {
        self.route = Some(Arc::clone(route.pattern()));
        self.upstream = Some(Arc::clone(&route.upstream));
        self.decision = (route.access == Access::Anonymous).then_some("anonymous");
    }

    /// Who it turned out to be.
    pub fn identified(&mut self, caller: &Caller) {
        self.client = Some(Arc::clone(&caller.principal().client));
        self.key_id = caller.principal().key();
        self.policy = caller.enforcement().rules.map(|rules| Arc::clone(&rules.name));
    }

    /// The client that it turned out to be about.
    pub fn is_of(&mut self, client: &Name) {
        self.client = Some(Arc::clone(client));
    }

    fn went_well(&self) -> bool {
        self.status.is_some_and(|status| status < 400)
            && self.decision.is_none_or(|decision| ![BROKE_OFF, CLIENT_GONE].contains(&decision))
    }

    /// What was answered, where no body of an upstream is still to come. `code` says why not.
    pub fn answered(
        &mut self,
        endpoint: &'static str,
        code: Option<&'static str>,
        with: &Response,
    ) {
        self.endpoint = endpoint;
        self.decision = code.or(self.decision).or(Some("allowed"));
        self.status = Some(with.status().as_u16());
        self.bytes_out = with.body().size_hint().exact().unwrap_or_default();
    }

    /// How a forwarded request ended.
    pub fn ended(mut self: Box<Self>, ended: &Ended) {
        self.status = Some(ended.status).filter(|status| *status > 0);
        (self.bytes_in, self.bytes_out) = (ended.bytes_in, ended.bytes_out);
        if ended.broke_off {
            self.decision = Some(BROKE_OFF);
        } else if ended.left {
            self.decision = Some(CLIENT_GONE);
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let log = Arc::clone(&self.log);
        log.tell(self);
    }
}

/// A line as it is written; `timestamp`, `level` and `target` as in the lines of the log.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'static str,
    target: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    endpoint: &'static str,
    method: &'a str,
    host: Option<&'a str>,
    path: &'a str,
    route: Option<&'a str>,
    status: Option<u16>,
    decision: &'static str,
    client: Option<&'a str>,
    key_id: Option<Uuid>,
    policy: Option<&'a str>,
    ip: Option<IpAddr>,
    bytes_in: u64,
    bytes_out: u64,
    duration_s: f64,
    upstream: Option<&'a str>,
    user_agent: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(story: &'a Story, now: &'a str, took: Duration) -> Self {
        let host = story.uri.authority().map(|authority| authority.as_str());
        let host = host.or(story.host.as_ref().and_then(text));
        // A name and a password may stand before it.
        let host = host.map(|host| bounded(host.rsplit('@').next().unwrap_or_default()));
        let own = (story.method.as_str(), host, story.uri.path());
        let (method, host, path) = story.asked.as_ref().map_or(own, |asked| {
            (asked.method.as_str(), asked.host.as_deref(), asked.path.as_str())
        });
        Self {
            timestamp: now,
            level: "INFO",
            target: "access",
            request_id: text(&story.id).unwrap_or_default(),
            trace_id: story.trace.as_ref().map(TraceId::as_str),
            endpoint: story.endpoint,
            method: bounded(method),
            host,
            path: bounded(path),
            route: story.route.as_deref(),
            status: story.status,
            // Nobody was left to hear an answer.
            decision: match story.status {
                None if std::thread::panicking() => "internal",
                None => CLIENT_GONE,
                Some(_) => story.decision.unwrap_or("allowed"),
            },
            client: story.client.as_deref(),
            key_id: story.key_id,
            policy: story.policy.as_deref(),
            ip: story.ip,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            duration_s: took.as_secs_f64(),
            upstream: story.upstream.as_ref().map(|upstream| upstream.name()),
            user_agent: story.agent.as_ref().and_then(text),
        }
    }
}

/// What is not text is not told.
fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(bounded)
}

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or(text)
}
