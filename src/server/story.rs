//! The access log: a JSON line for each request, written when it is over.
//!
//! A [`Story`] is filled in on the way of a request and told when it is dropped: at the end of the
//! answer's body, or when the client has gone. It holds handles, not copies; only telling makes
//! text: a line, and of those that are traced a span. Never in it: a credential, and the query.

mod line;
mod span;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{HOST, HeaderValue, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::response::Response;
use hyper::body::Body;
use line::Line;
use serde::{Deserialize, Serialize};
use span::Place;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::routes::{Access, Route};
use super::trace::TraceParent;
use crate::authn::Caller;
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::model::Name;
use crate::proxy::Upstream;
use crate::usage::Ended;

pub use span::Spans;

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
    spans: Option<Spans>,
    clock: SharedClock,
}

impl AccessLog {
    /// A log of these requests; of those that went well, of a `share` from 0 to 1.
    pub fn new(
        which: AccessLines,
        share: f64,
        write: WriteLine,
        spans: Option<Spans>,
        clock: SharedClock,
        entropy: SharedEntropy,
    ) -> Self {
        Self { which, share, entropy, write, spans, clock }
    }

    /// The story of a request, unless none is told.
    pub fn begin(self: &Arc<Self>, parts: &Parts, id: &HeaderValue) -> Telling {
        let place = self.spans.as_ref().and_then(|spans| spans.begin(parts, &*self.entropy));
        Telling((self.which != AccessLines::Off || place.is_some()).then(|| {
            Box::new(Story {
                log: Arc::clone(self),
                started: self.clock.monotonic(),
                id: id.clone(),
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                host: parts.headers.get(HOST).cloned(),
                asked: None,
                agent: parts.headers.get(USER_AGENT).cloned(),
                trace: TraceParent::of(&parts.headers),
                place,
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

    /// Whether it has a line.
    fn has_line(&self, story: &Story) -> bool {
        match self.which {
            AccessLines::Off => false,
            AccessLines::Errors => !story.went_well(),
            AccessLines::All => !story.went_well() || self.entropy.draws(self.share),
        }
    }

    fn tell(&self, story: &Story) {
        let has_line = self.has_line(story);
        if !has_line && story.place.is_none() {
            return;
        }
        let now = self.clock.now();
        let took = self.clock.monotonic().saturating_sub(story.started);
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now.0) * 1000);
        let at = at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
        let line = Line::of(story, &at, took);
        if let (Some(spans), Some(place)) = (&self.spans, &story.place) {
            spans.record(place, &line, now, took);
        }
        if has_line {
            // Plain fields: there is nothing that could fail.
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            (self.write)(text);
        }
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

    /// The `traceparent` for whoever is asked on behalf of this request, if it has a span: what
    /// they do is a part of it.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        Some(self.0.as_ref()?.place.as_ref()?.traceparent())
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
    trace: Option<TraceParent>,
    /// Where its span stands, if it has one.
    place: Option<Place>,
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

    /// The trace that it is a part of: the caller's, or one that began here.
    fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref().or(self.place.as_ref().map(Place::own))
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

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or(text)
}
