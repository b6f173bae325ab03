//! `[server]`

mod http2;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::certificates::TlsConfig;
use super::story::AccessLines;
use crate::model::network::networks;
use crate::model::units::{Size, Span};
use crate::proxy::{Forwarding, Limits};

pub use http2::Http2;

/// The most threads that serve connections.
const WORKERS_MAX: usize = 1024;

/// `[server]`: the data plane's listener, and the bounds of what it forwards.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the data plane listens.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Networks whose `X-Forwarded-*` and `X-Original-*` count, and who may call `/v1/keys/verify`.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Where trusted proxies say who asks, and upstreams are told: `X-Forwarded-*`, `Forwarded`
    /// (RFC 7239), or both.
    pub forwarded: Forwarding,
    /// The certificate of the data plane; absent: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// What one connection of HTTP/2 may ask for.
    pub http2: Http2,
    /// Threads that serve connections; 0: as many as there are processors.
    pub workers: usize,
    /// Connections at a time; beyond it accepting pauses.
    pub max_connections: usize,
    /// Connections at a time from one address (in IPv6 from one network of 64 bits), trusted
    /// proxies excepted; one more is closed at once.
    pub max_connections_per_address: usize,
    /// Requests at a time; beyond it they get 503 `overloaded`.
    pub max_requests: usize,
    /// How long a request's head may take.
    pub header_read_timeout: Span,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Span,
    /// How long a request may take until its answer begins, and the answer after that.
    pub request_timeout: Span,
    /// How long a caller may take nothing of what is sent.
    pub send_timeout: Span,
    /// The largest head of a request: request line and headers.
    pub head_max: Size,
    /// The headers of a request.
    pub headers_max: usize,
    /// The largest body that is forwarded.
    pub body_max: Size,
    /// How long a request body may stand still.
    pub body_idle_timeout: Span,
    /// For the head of an upstream's answer, after the request's body made its last progress. Then
    /// for each further piece of the answer: one that stands still for longer is broken off.
    pub upstream_response_timeout: Span,
    /// Tunnels at a time: WebSockets and other upgraded connections.
    pub max_tunnels: usize,
    /// Tunnels at a time from one address (in IPv6 from one network of 64 bits), as far as trusted
    /// proxies can say.
    pub max_tunnels_per_address: usize,
    /// A tunnel through which nothing goes for so long is ended.
    pub tunnel_idle_timeout: Span,
    /// How long running requests may take when the gateway shuts down.
    pub shutdown_deadline: Span,
    /// Which requests have a line in the access log.
    pub access_log: AccessLines,
    /// The share of requests that went well that have a line, from 0 to 1; all others have one.
    pub access_log_sample: f64,
    /// Access lines that wait to be written; beyond it they are dropped, and counted.
    pub access_log_waiting: usize,
    /// What is told of single requests.
    #[serde(skip)]
    pub events: Events,
    /// For development: an upstream named `echo` that answers with what it got, behind `/echo`.
    pub echo: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            trusted_proxies: ["127.0.0.0/8", "::1/128"]
                .into_iter()
                .filter_map(|network| network.parse().ok())
                .collect(),
            forwarded: Forwarding::XForwarded,
            tls: None,
            http2: Http2::default(),
            workers: 0,
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            max_requests: 10_000,
            header_read_timeout: Span::secs(10),
            idle_timeout: Span::secs(60),
            request_timeout: Span::secs(3600),
            send_timeout: Span::secs(60),
            head_max: Size::kib(32),
            headers_max: 100,
            body_max: Size::mib(1024),
            body_idle_timeout: Span::secs(30),
            upstream_response_timeout: Span::secs(60),
            max_tunnels: 1024,
            max_tunnels_per_address: 128,
            tunnel_idle_timeout: Span::secs(300),
            shutdown_deadline: Span::secs(30),
            access_log: AccessLines::All,
            access_log_sample: 1.0,
            access_log_waiting: 8192,
            events: Events::default(),
            echo: false,
        }
    }
}

/// `[events]`: what is told of single requests, in `auth_attempts`, `admission_events` and
/// `request_log`. It may yield to counts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Credentials that are refused.
    pub auth_attempts: bool,
    /// What policies deny, or would.
    pub admissions: bool,
    /// The share of forwarded requests that are told, from 0 to 1.
    pub requests: f64,
}

impl Default for Events {
    fn default() -> Self {
        Self { auth_attempts: true, admissions: true, requests: 0.0 }
    }
}

/// Why `[server]` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// hyper needs room to read, and nobody needs more.
    #[error("`server.head_max` is {0}; it must lie between 8KiB and 1MiB")]
    HeadMax(Size),
    /// A queue has room for one, and is no store.
    #[error("`server.access_log_waiting` is {0}; it must lie between 1 and 1000000")]
    AccessLogWaiting(usize),
    /// Not a share.
    #[error("`server.access_log_sample` must lie between 0 and 1")]
    AccessLogSample,
    /// Nobody could connect, or the counter cannot hold it.
    #[error("`server.max_connections` is {0}; it must lie between 1 and 1000000")]
    MaxConnections(usize),
    /// More threads than that only wait for one another.
    #[error("`server.workers` is {0}; it must lie between 0 (as many as processors) and 1024")]
    Workers(usize),
    /// No parser has room for more, and less is no HTTP.
    #[error("`server.headers_max` is {0}; it must lie between 10 and 1000")]
    HeadersMax(usize),
    /// Nothing could come in.
    #[error("`server.{0}` must be at least 1")]
    None(&'static str),
    /// Nothing could be done in it.
    #[error("`server.{0}` must be more than zero")]
    NoTime(&'static str),
    /// A key of `[server.http2]`, and its rule.
    #[error("`server.http2.{0}` {1}")]
    Http2(&'static str, &'static str),
}

impl Config {
    /// Checks what types alone do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(Size::kib(8)..=Size::mib(1)).contains(&self.head_max) {
            return Err(ConfigError::HeadMax(self.head_max));
        }
        if !(1..=1_000_000).contains(&self.max_connections) {
            return Err(ConfigError::MaxConnections(self.max_connections));
        }
        if self.workers > WORKERS_MAX {
            return Err(ConfigError::Workers(self.workers));
        }
        if !(10..=1_000).contains(&self.headers_max) {
            return Err(ConfigError::HeadersMax(self.headers_max));
        }
        let counts = [
            ("max_connections_per_address", self.max_connections_per_address),
            ("max_requests", self.max_requests),
            ("max_tunnels_per_address", self.max_tunnels_per_address),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ConfigError::None(key));
        }
        let handshake = self.tls.as_ref().map(|tls| tls.handshake_timeout);
        let times = [
            ("header_read_timeout", Some(self.header_read_timeout)),
            ("idle_timeout", Some(self.idle_timeout)),
            ("request_timeout", Some(self.request_timeout)),
            ("send_timeout", Some(self.send_timeout)),
            ("tls.handshake_timeout", handshake),
        ];
        let none = |span: Option<Span>| span.is_some_and(|span| span.0.is_zero());
        if let Some((key, _)) = times.into_iter().find(|(_, span)| none(*span)) {
            return Err(ConfigError::NoTime(key));
        }
        if !(1..=1_000_000).contains(&self.access_log_waiting) {
            return Err(ConfigError::AccessLogWaiting(self.access_log_waiting));
        }
        if !(0.0..=1.0).contains(&self.access_log_sample) {
            return Err(ConfigError::AccessLogSample);
        }
        match self.http2.problem() {
            Some((key, rule)) => Err(ConfigError::Http2(key, rule)),
            None => Ok(()),
        }
    }

    /// The bounds of forwarding.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            response_timeout: self.upstream_response_timeout.0,
            body_max: self.body_max.0,
            body_idle: self.body_idle(),
            answer_max: self.request_timeout.0,
        }
    }

    /// How long a request body may stand still.
    pub(super) fn body_idle(&self) -> Duration {
        self.body_idle_timeout.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_trust_loopback_only() {
        let config = Config::default();
        assert_eq!(config.check(), Ok(()));
        let trusted: Vec<String> = config.trusted_proxies.iter().map(IpNet::to_string).collect();
        assert_eq!(trusted, ["127.0.0.0/8", "::1/128"]);
    }

    #[test]
    fn a_section_is_read_over_the_defaults_and_unknown_keys_are_refused() {
        let read = serde_json::from_str::<Config>;
        let config = read(r#"{"trusted_proxies":["10.0.0.0/8"],"body_max":"2MiB","echo":true}"#);
        let config = config.expect("a section");
        assert_eq!((config.body_max, config.echo), (Size::mib(2), true));
        assert_eq!(config.trusted_proxies.len(), 1);
        assert_eq!(config.listen, Config::default().listen);
        let written = serde_json::to_string(&config).expect("JSON");
        assert_eq!(read(&written).expect("the same"), config);
        assert!(read(r#"{"max_conections":1}"#).is_err());
    }

    #[test]
    fn bounds_that_cannot_work_are_refused() {
        let tiny = Config { head_max: Size::kib(1), ..Config::default() };
        assert_eq!(tiny.check(), Err(ConfigError::HeadMax(Size::kib(1))));
        let many = Config { headers_max: 5000, ..Config::default() };
        assert_eq!(many.check(), Err(ConfigError::HeadersMax(5000)));
        let nobody = Config { max_requests: 0, ..Config::default() };
        assert_eq!(nobody.check(), Err(ConfigError::None("max_requests")));
        let none = Config { max_tunnels_per_address: 0, ..Config::default() };
        assert_eq!(none.check(), Err(ConfigError::None("max_tunnels_per_address")));
        let at_once = Config { idle_timeout: Span::millis(0), ..Config::default() };
        assert_eq!(at_once.check(), Err(ConfigError::NoTime("idle_timeout")));
        let http2 = Http2 { stream_window: Size::kib(1), ..Http2::default() };
        let narrow = Config { http2, ..Config::default() };
        assert!(matches!(narrow.check(), Err(ConfigError::Http2("stream_window", _))));
        for share in [-0.1, 1.1, f64::NAN] {
            let odd = Config { access_log_sample: share, ..Config::default() };
            assert_eq!(odd.check(), Err(ConfigError::AccessLogSample));
        }
        let none = Config { max_connections: 0, ..Config::default() };
        assert_eq!(none.check(), Err(ConfigError::MaxConnections(0)));
    }
}
