//! What is said of where a request came from: `X-Forwarded-*`, or `Forwarded` (RFC 7239).
//!
//! The same policy says what is written for upstreams and what is read of trusted proxies. Of the
//! other header nothing is believed: who writes the one passes on the other as a stranger sent it.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use axum::http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::Origin;
use super::headers::{drop_prefixed, text, tokens};

/// Also without anything behind it, as some once wrote.
const X_FORWARDED: &str = "x-forwarded";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// In which headers it is said where a request came from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` alone.
    Rfc7239,
    /// Both are written; of trusted proxies `X-Forwarded-*` is read.
    Both,
}

/// Says where a request came from. What is there of a stranger is replaced; what a trusted proxy
/// says is carried on.
pub(super) fn tell(headers: &mut HeaderMap, origin: &Origin) {
    if !origin.trusted {
        drop_prefixed(headers, &[X_FORWARDED]);
        headers.remove(FORWARDED);
    }
    let written = match origin.forwarding {
        Forwarding::XForwarded => None,
        Forwarding::Rfc7239 => Some(element(carried(headers), origin)),
        Forwarding::Both => Some(element(translated(headers), origin)),
    };
    headers.remove(FORWARDED);
    if let Some(written) = written {
        headers.insert(FORWARDED, text(&written));
    }
    if origin.forwarding == Forwarding::Rfc7239 {
        drop_prefixed(headers, &[X_FORWARDED]);
    } else {
        x_forwarded(headers, origin);
    }
}

/// What is left in them comes from a trusted proxy and is carried on.
fn x_forwarded(headers: &mut HeaderMap, origin: &Origin) {
    let mut chain = String::new();
    for before in headers.get_all(X_FORWARDED_FOR).iter().flat_map(tokens) {
        chain.push_str(before);
        chain.push_str(", ");
    }
    if write!(chain, "{}", origin.peer).is_ok() {
        headers.insert(X_FORWARDED_FOR, text(&chain));
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(
            X_FORWARDED_PROTO,
            HeaderValue::from_static(if origin.secure { "https" } else { "http" }),
        );
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = &origin.host
    {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
}

/// The elements of a trusted proxy; none where they cannot be told apart, for ours would not be
/// either behind them.
fn carried(headers: &HeaderMap) -> String {
    let mut chain = String::new();
    for line in headers.get_all(FORWARDED) {
        let Some(line) = line.to_str().ok().filter(|line| senders(line).is_some()) else {
            return String::new();
        };
        chain.push_str(line.trim());
        chain.push_str(", ");
    }
    chain
}

/// The same of the addresses in `X-Forwarded-For`.
fn translated(headers: &HeaderMap) -> String {
    let hops = headers.get_all(X_FORWARDED_FOR).iter().flat_map(tokens);
    hops.map(|hop| format!("for={}, ", node(address(hop)))).collect()
}

/// Ours, behind those before it.
fn element(mut chain: String, origin: &Origin) -> String {
    let proto = if origin.secure { "https" } else { "http" };
    chain += &format!("for={};proto={proto}", node(Some(origin.peer)));
    if let Some(host) = origin.host.as_ref().and_then(|host| host.to_str().ok()) {
        // A host with a port is no token.
        chain += &format!(";host=\"{}\"", host.replace(['"', '\\'], ""));
    }
    chain
}

/// RFC 7239 §6.
fn node(ip: Option<IpAddr>) -> String {
    match ip {
        None => "unknown".into(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
    }
}

/// An address as proxies write it: `192.0.2.1`, `2001:db8::1`, and both with a port.
pub fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let plain = bare.parse().ok();
    plain.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Who sent it, by each element of a line of `Forwarded`; empty where an element does not say.
/// `None` where the line is not a list of elements.
pub fn senders(line: &str) -> Option<Vec<&str>> {
    let mut senders = Vec::new();
    for element in split(line, b',')? {
        if element.trim().is_empty() {
            continue;
        }
        let mut sender = "";
        for pair in split(element, b';')? {
            let (name, value) = pair.trim().split_once('=')?;
            if name.eq_ignore_ascii_case("for") {
                let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                sender = quoted.unwrap_or(value);
            }
        }
        senders.push(sender);
    }
    Some(senders)
}

/// Splits outside of quotes; `None` where a quote does not end.
fn split(text: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn told(
        forwarding: Forwarding,
        trusted: bool,
        claims: &[(&'static str, &'static str)],
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in claims {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let origin = Origin {
            party: None,
            peer: "192.0.2.7".parse().expect("an address"),
            secure: true,
            trusted,
            host: Some(HeaderValue::from_static("api.example:8443")),
            additions: Arc::new([]),
            forwarding,
        };
        tell(&mut headers, &origin);
        headers
    }

    const OURS: &str = "for=192.0.2.7;proto=https;host=\"api.example:8443\"";
    const CLAIMS: [(&str, &str); 4] = [
        ("x-forwarded-for", "203.0.113.9, 2001:db8::1"),
        ("forwarded", "for=\"[2001:db8::2]:4711\";proto=http"),
        ("forwarded", "for=_hidden, for=198.51.100.1"),
        ("x-forwarded-port", "1"),
    ];

    #[test]
    fn each_policy_writes_its_own_and_drops_the_other() {
        let x = told(Forwarding::XForwarded, true, &CLAIMS);
        assert_eq!(x[X_FORWARDED_FOR], "203.0.113.9, 2001:db8::1, 192.0.2.7");
        assert_eq!(x[X_FORWARDED_PROTO], "https");
        assert_eq!(x[X_FORWARDED_HOST], "api.example:8443");
        assert!(!x.contains_key(FORWARDED));

        let alone = told(Forwarding::Rfc7239, true, &CLAIMS);
        let before = "for=\"[2001:db8::2]:4711\";proto=http, for=_hidden, for=198.51.100.1";
        assert_eq!(alone[FORWARDED], format!("{before}, {OURS}"));
        assert_eq!(alone.len(), 1, "{alone:?}");

        let both = told(Forwarding::Both, true, &CLAIMS);
        assert_eq!(both[FORWARDED], format!("for=203.0.113.9, for=\"[2001:db8::1]\", {OURS}"));
        assert_eq!(both[X_FORWARDED_FOR], x[X_FORWARDED_FOR]);
    }

    #[test]
    fn strangers_say_nothing() {
        for forwarding in [Forwarding::Rfc7239, Forwarding::Both] {
            let headers = told(forwarding, false, &CLAIMS);
            assert_eq!(headers.get_all(FORWARDED).iter().collect::<Vec<_>>(), [OURS]);
            assert!(!headers.contains_key("x-forwarded-port"));
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_carried_on() {
        for odd in ["for=\"1.2.3.4", "1.2.3.4", "for=a;;by=b"] {
            let headers = told(Forwarding::Rfc7239, true, &[("forwarded", odd)]);
            assert_eq!(headers[FORWARDED], OURS, "{odd}");
        }
    }

    #[test]
    fn senders_are_found_in_quotes_and_out_of_them() {
        let line = "For=192.0.2.1;by=\"a,b;c\\\"\" , proto=http,, for=\"[::1]:80\"";
        assert_eq!(senders(line), Some(vec!["192.0.2.1", "", "[::1]:80"]));
        assert_eq!(senders("for=\"a"), None);
        assert_eq!(address("[::1]:80"), "::1".parse().ok());
        assert_eq!(address("_hidden"), None);
    }

    #[test]
    fn any_bytes_are_carried_on_so_that_they_can_be_read() {
        let good =
            CLAIMS.map(|(name, value)| format!("{name}: {value}\nforwarded: a=b").into_bytes());
        crate::fuzz::each("forwarded", &good, |bytes| {
            for forwarding in [Forwarding::XForwarded, Forwarding::Rfc7239, Forwarding::Both] {
                let mut headers = crate::fuzz::fields(bytes);
                let origin = Origin {
                    party: None,
                    peer: "192.0.2.7".parse().expect("an address"),
                    secure: true,
                    trusted: true,
                    host: Some(HeaderValue::from_static("api.example:8443")),
                    additions: Arc::new([]),
                    forwarding,
                };
                tell(&mut headers, &origin);
                assert!(headers.get_all(FORWARDED).iter().count() <= 1);
                let Some(line) = headers.get(FORWARDED) else { continue };
                let line = line.to_str().expect("it was written as text");
                assert_eq!(senders(line).expect("a list").last(), Some(&"192.0.2.7"), "{line}");
            }
        });
    }
}
