//! Hosts: what a route is for, and what a request names.
//!
//! Compared without case, without a port and without the dot at the end.

use std::cmp::Reverse;
use std::fmt;

/// `api.example.com`, or `*.example.com` for every name below it, however deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name only.
    Exact(String),
    /// Every name that ends with this text, which starts with a dot.
    Below(String),
}

/// The longest host name (RFC 1035 §2.3.4).
const HOST_MAX: usize = 253;

impl HostPattern {
    /// Reads the `host` of a route; `None` when no request could name such a host.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let name = text.strip_suffix('.').unwrap_or(&text);
        match name.strip_prefix("*.") {
            Some(rest) => is_name(rest).then(|| Self::Below(format!(".{rest}"))),
            None => (is_name(name) || is_ipv6(name)).then(|| Self::Exact(name.to_owned())),
        }
    }

    /// Whether it is for the `host` of a request.
    pub fn takes(&self, host: &str) -> bool {
        let host = bare(host);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(rest) => {
                let start = host.len().checked_sub(rest.len()).filter(|start| *start > 0);
                let end = start.and_then(|start| host.as_bytes().get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(rest.as_bytes()))
            }
        }
    }

    /// A name before names below another, and of these the longer first.
    pub fn order(&self) -> (bool, Reverse<usize>, &str) {
        match self {
            Self::Exact(name) => (false, Reverse(name.len()), name),
            Self::Below(rest) => (true, Reverse(rest.len()), rest),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(rest) => write!(f, "*{rest}"),
        }
    }
}

/// Whether a request can name this host, with or without a port. No user, no path, nothing that
/// two readers could take for two hosts (RFC 9112 §3.2).
pub fn is_host(text: &str) -> bool {
    let end = text.find(']').map_or_else(|| text.find(':'), |end| Some(end + 1));
    let (name, port) = text.split_at(end.unwrap_or(text.len()));
    let port_fits = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => {
            let digit = |byte: u8| byte.is_ascii_digit();
            digits.is_empty() || (digits.bytes().all(digit) && digits.parse::<u16>().is_ok())
        }
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    port_fits && name.len() <= HOST_MAX && (is_ipv6(name) || name.bytes().all(plain))
}

/// The name alone; an IPv6 address keeps its brackets.
fn bare(host: &str) -> &str {
    let end = host.find(']').map_or_else(|| host.find(':'), |end| Some(end + 1));
    let name = host.get(..end.unwrap_or(host.len())).unwrap_or(host);
    name.strip_suffix('.').unwrap_or(name)
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !label.is_empty() && label.bytes().all(plain)
    };
    text.len() <= HOST_MAX && text.split('.').all(label)
}

fn is_ipv6(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, host: &str) -> bool {
        HostPattern::parse(pattern).expect("a pattern").takes(host)
    }

    #[test]
    fn case_port_and_the_last_dot_do_not_matter() {
        for host in
            ["api.example.com", "API.example.COM:8443", "api.example.com.", "api.example.com.:80"]
        {
            assert!(takes("Api.Example.com.", host), "{host}");
        }
        assert!(takes("[::1]", "[::1]:8080") && takes("127.0.0.1", "127.0.0.1:80"));
        for host in ["example.com", "xapi.example.com", "api.example.com.evil", ""] {
            assert!(!takes("api.example.com", host), "{host}");
        }
    }

    #[test]
    fn a_star_stands_for_one_or_more_labels() {
        for host in ["a.example.com", "a.b.Example.com:443"] {
            assert!(takes("*.example.com", host), "{host}");
        }
        for host in ["example.com", ".example.com", "badexample.com", "a.example.com.evil", "é"] {
            assert!(!takes("*.example.com", host), "{host}");
        }
    }

    #[test]
    fn what_no_request_can_name_is_no_pattern() {
        for bad in ["", "*", "*.", "a.*.b", "a*.b", "*.*.b", "a..b", "a:80", "a/b", "u@a", "[::x]"]
        {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn requests_cannot_hide_a_host_behind_another() {
        for good in ["", "a", "a.b:80", "a:", "[::1]:80", "[::1]", "a_b-c.d."] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["[:::a]x:b", "[::1]x", "[::1", "::1", "a:99999", "a:b", "a:+1", "a:1:2", "]a"] {
            assert!(!is_host(bad), "{bad}");
        }
        for bad in
            ["u@a", "u:p@a", "a/b", "a b", "a,b", "a\\b", "a?b", "a#b", "a%2eb", "é", "a\u{7f}"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
