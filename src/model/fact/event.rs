//! Events: what happened to requests, for people to look at. They may yield; counts never do.

use std::net::IpAddr;

use bincode::{Decode, Encode};
use uuid::Uuid;

use crate::model::Name;

/// The longest path and host that are kept of a request, in bytes.
pub const EVENT_TEXT_MAX: usize = 256;

/// Something that happened; merges by set union.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    /// A uuid v7: tells its moment.
    #[bincode(with_serde)]
    pub event_id: Uuid,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Happened {
    /// A credential was refused.
    AuthAttempt(AuthAttempt),
    /// A policy denied, or would have.
    Admission(AdmissionEvent),
    /// A request that was let through, one of a sample.
    Request(RequestLine),
}

/// A credential that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AuthAttempt {
    /// Whose it was, if that is known.
    pub client: Option<Name>,
    /// Which key, if that is known.
    #[bincode(with_serde)]
    pub key_id: Option<Uuid>,
    /// Where it came from.
    pub ip: Option<IpAddr>,
    /// The answer's code.
    pub code: Name,
}

/// A policy that denied, or would have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AdmissionEvent {
    /// Whose request.
    pub client: Name,
    /// With which key, if it came with one.
    #[bincode(with_serde)]
    pub key_id: Option<Uuid>,
    /// By which policy.
    pub policy: Option<Name>,
    /// The answer's code.
    pub code: Name,
    /// Whether the request passed all the same.
    pub observed: bool,
    /// The limit that denied.
    pub limit: Option<Name>,
}

/// A request that was let through.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestLine {
    /// `X-Request-Id`.
    pub request_id: Name,
    /// Whose.
    pub client: Name,
    /// With which key, if it came with one.
    #[bincode(with_serde)]
    pub key_id: Option<Uuid>,
    /// Its method.
    pub method: Name,
    /// The host that was asked for.
    pub host: Name,
    /// Its path, without the query: that may hold secrets.
    pub path: Name,
    /// The answer's status; 0: there was none.
    pub status: u16,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From its admission to its end.
    pub duration_us: u64,
}

impl Event {
    /// The word for its kind, in metrics.
    pub fn kind(&self) -> &'static str {
        match &self.what {
            Happened::AuthAttempt(_) => "auth_attempt",
            Happened::Admission(_) => "admission",
            Happened::Request(_) => "request",
        }
    }
}

/// At most [`EVENT_TEXT_MAX`] bytes of a text.
pub fn event_text(text: &str) -> Name {
    text[..text.floor_char_boundary(EVENT_TEXT_MAX)].into()
}
