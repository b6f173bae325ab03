//! `[server.http2]`: what one connection of HTTP/2 may ask for.

use serde::{Deserialize, Serialize};

use crate::model::units::{Size, Span};

/// `[server.http2]`: spoken over TLS, with clients that ask for it in the handshake.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2 {
    /// Whether it is offered.
    pub enabled: bool,
    /// Streams at a time, per connection.
    pub max_streams: u32,
    /// Streams that a client has reset before they were looked at; one more ends the connection.
    pub max_pending_resets: usize,
    /// Streams that were reset because of what the client sent; one more ends the connection.
    pub max_error_resets: usize,
    /// What may be on its way in one stream.
    pub stream_window: Size,
    /// What may be on its way in all streams of a connection.
    pub connection_window: Size,
    /// What is kept of an answer that the client does not take, per stream.
    pub send_buffer: Size,
    /// How often a connection is asked whether anybody is there.
    pub ping_interval: Span,
    /// How long the answer to that may take.
    pub ping_timeout: Span,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            enabled: true,
            max_streams: 100,
            max_pending_resets: 20,
            max_error_resets: 100,
            stream_window: Size::kib(256),
            connection_window: Size::mib(1),
            send_buffer: Size::kib(64),
            ping_interval: Span::secs(20),
            ping_timeout: Span::secs(20),
        }
    }
}

impl Http2 {
    /// What is wrong with it, if anything: the key and the rule.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        // RFC 9113 §6.9.1, and below it nothing moves.
        let window = Size::kib(64)..=Size::mib(1024);
        let rule = "must lie between 64KiB and 1GiB";
        if self.max_streams == 0 {
            Some(("max_streams", "must be at least 1"))
        } else if !window.contains(&self.stream_window) {
            Some(("stream_window", rule))
        } else if !window.contains(&self.connection_window) {
            Some(("connection_window", rule))
        } else if self.send_buffer < Size::kib(16) {
            Some(("send_buffer", "must be at least 16KiB"))
        } else if self.ping_interval.0.is_zero() {
            Some(("ping_interval", "must be more than zero"))
        } else if self.ping_timeout.0.is_zero() {
            Some(("ping_timeout", "must be more than zero"))
        } else {
            None
        }
    }
}
