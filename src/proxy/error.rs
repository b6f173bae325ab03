//! Why nothing can be passed on: what the client reports, told apart.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::BoxError;

/// Why a request was not answered by its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The upstream is at fault.
    #[error(transparent)]
    Upstream(#[from] Fault),
    /// The request's body is larger than `body_max`.
    #[error("the request body is larger than `server.body_max`")]
    BodyTooLarge,
    /// The request's body stood still for longer than `body_idle_timeout`.
    #[error("the request body stood still for too long")]
    BodyStalled,
    /// The request's body goes on as none may.
    #[error("the request body broke off")]
    BodyBroken,
    /// The client left in the middle of the request's body.
    #[error("the client left before the request body had ended")]
    ClientGone,
    /// The request asks to become a tunnel of a kind that is not forwarded.
    #[error("CONNECT is not forwarded")]
    Connect,
    /// The request asks to be shown as it arrives.
    #[error("TRACE is not forwarded")]
    Trace,
    /// The request has been here before.
    #[error("the request goes in circles")]
    Loop,
    /// `max_tunnels` are open, or from its address `max_tunnels_per_address`.
    #[error("`server.max_tunnels` are open, or `server.max_tunnels_per_address`")]
    TunnelsFull,
}

/// What is wrong with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody listens there, or its name means nothing.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// No connection within `connect_timeout`.
    #[error("no connection to the upstream in time")]
    ConnectTimeout,
    /// A connection, but no trust: a certificate that is not good, or no TLS at all.
    #[error("no TLS with the upstream")]
    Tls,
    /// The connection ended or was reset before the answer's head.
    #[error("the upstream broke off before it answered")]
    BrokeOff,
    /// What came is not HTTP, or its head is too large.
    #[error("what the upstream said is not HTTP")]
    Garbled,
    /// No head of an answer in time, or not the next piece of its body.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// Not asked: it failed too often in a row.
    #[error("the upstream is left out after failures in a row")]
    CircuitOpen {
        /// When it is tried again.
        retry_after: Duration,
    },
    /// Not asked: by its checks it is not well.
    #[error("by its checks the upstream is not well")]
    Unhealthy {
        /// When it is checked again.
        retry_after: Duration,
    },
    /// Not asked: it works at `max_in_flight` requests.
    #[error("the upstream works at as many requests as it may")]
    Busy,
}

impl Fault {
    /// The word for it in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls_failed",
            Self::BrokeOff => "broke_off",
            Self::Garbled => "garbled",
            Self::Timeout => "timeout",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Busy => "busy",
        }
    }

    /// Whether the request cannot have been sent.
    pub(super) fn is_unsent(self) -> bool {
        matches!(self, Self::Unreachable | Self::ConnectTimeout | Self::Tls)
    }
}

impl ProxyError {
    /// What an attempt says of itself that failed on a connection. A fault of the request's own
    /// body comes first: it is what broke the connection.
    pub(super) fn of(error: &hyper::Error) -> Self {
        let own = chain(error).find_map(|cause| cause.downcast_ref::<Self>());
        let fault = if error.is_parse() { Fault::Garbled } else { Fault::BrokeOff };
        own.copied().unwrap_or(fault.into())
    }
}

impl ProxyError {
    /// Why a request's body cannot be read on. Whoever sent what cannot be read is still there.
    pub(super) fn of_body(error: &(dyn Error + 'static)) -> Self {
        let wrong = |cause: &(dyn Error + 'static)| {
            let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            io.is_some_and(|kind| kind == io::ErrorKind::InvalidData)
        };
        if chain(error).any(wrong) { Self::BodyBroken } else { Self::ClientGone }
    }
}

/// Why there is no connection.
pub(super) fn connecting(error: &BoxError) -> Fault {
    let error: &(dyn Error + 'static) = &**error;
    if chain(error).any(|cause| cause.is::<rustls::Error>()) {
        return Fault::Tls;
    }
    let timed_out = |cause: &&(dyn Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
    };
    if chain(error).any(|cause| timed_out(&cause)) {
        Fault::ConnectTimeout
    } else {
        Fault::Unreachable
    }
}

/// An error and its causes. One that stands inside of an `io::Error` is a cause too, which
/// `source` alone passes over.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        let error = *error;
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}
