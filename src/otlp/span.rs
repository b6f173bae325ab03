//! One server span, as far as it can be told without saying how it travels.

use std::sync::Arc;

use crate::model::Timestamp;

/// Where spans go; it must not wait.
pub type WriteSpan = Arc<dyn Fn(Span) + Send + Sync>;

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: u128,
    /// Its own id: the parent of what the upstream records.
    pub id: u64,
    /// That of the caller's span; none where the trace begins here.
    pub parent: Option<u64>,
    /// By the route's pattern, not by the path: names are few.
    pub name: String,
    /// From the request's head.
    pub started: Timestamp,
    /// To the end of the answer.
    pub ended: Timestamp,
    /// Whether it is the server's fault that it did not go well.
    pub failed: bool,
    /// By their names in OpenTelemetry's conventions; our own begin with `gatepost.`.
    pub attributes: Vec<(&'static str, Value)>,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Whole(i64),
}
