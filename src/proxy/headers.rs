//! Header hygiene of a forwarded request and its answer.
//!
//! Hop-by-hop fields (RFC 9110 §7.6.1) end here in both directions, with every field that
//! `Connection` names. Whatever a client claims about its identity is dropped before the gateway
//! says who it is.

use std::sync::Arc;

use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use axum::http::Version;

use super::{Origin, forwarded};
use crate::model::Principal;

/// The client that the request is counted for.
pub const X_GATEPOST_CLIENT: HeaderName = HeaderName::from_static("x-gatepost-client");
/// The key that it came with.
pub const X_GATEPOST_KEY_ID: HeaderName = HeaderName::from_static("x-gatepost-key-id");
/// The end user, when a token named one.
pub const X_GATEPOST_SUBJECT: HeaderName = HeaderName::from_static("x-gatepost-subject");
/// The key's scopes, separated by spaces.
pub const X_GATEPOST_SCOPES: HeaderName = HeaderName::from_static("x-gatepost-scopes");

/// Headers that a route sets.
pub type Additions = Arc<[(HeaderName, HeaderValue)]>;

const OURS: &str = "x-gatepost-";
/// What nobody may say: that a request is for another path, or of another method, than the one that
/// was authorised. Frameworks serve what stands there, and a proxy in front passes on what its
/// client wrote.
const TARGETS: [&str; 7] = [
    "x-original-",
    "x-rewrite-",
    "x-override-url",
    "x-envoy-original-path",
    "x-forwarded-path",
    "x-forwarded-ur",
    "x-forwarded-method",
];
/// What strangers may not say of where a request came from; besides it, what [`forwarded`] writes.
const CLAIMS: [&str; 1] = ["x-real-ip"];
/// What decides where a message ends, where it goes and who passed it on.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];
/// What `Connection` may name and does not take away: by these a request is found again.
const KEPT: [&str; 3] = ["x-request-id", "traceparent", "tracestate"];
const EVENTS: &[u8] = b"text/event-stream";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Says who the caller is: always all four, empty when unknown, so that no client can fill a gap.
pub fn identify(headers: &mut HeaderMap, principal: &Principal) {
    headers.insert(X_GATEPOST_CLIENT, text(&principal.client));
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    let id: &str = match principal.key() {
        Some(key) => key.as_hyphenated().encode_lower(&mut id),
        None => "",
    };
    headers.insert(X_GATEPOST_KEY_ID, text(id));
    headers.insert(X_GATEPOST_SUBJECT, text(&principal.subject));
    headers.insert(X_GATEPOST_SCOPES, scopes(principal));
}

fn scopes(principal: &Principal) -> HeaderValue {
    match principal.scopes.as_slice() {
        [] => HeaderValue::from_static(""),
        [one] => text(one),
        many => text(&many.join(" ")),
    }
}

/// Names have no control characters, so every one of them can stand in a header; empty otherwise.
pub(super) fn text(value: &str) -> HeaderValue {
    if value.is_empty() {
        return HeaderValue::from_static("");
    }
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

/// What a request wants to become (RFC 9110 §7.8): the protocols of `Upgrade`, where `Connection`
/// names it. HTTP and TLS are none of them: inside of such a tunnel nothing would be authorised any
/// more. A request that asks for nothing else stays what it is.
pub fn upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut named = headers.get_all(CONNECTION).iter().flat_map(tokens);
    if version != Version::HTTP_11 || !named.any(|name| name.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let is_ours = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or_default();
        ["h2c", "h2", "http", "tls"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
    };
    let wanted = headers.get_all(UPGRADE).iter().flat_map(tokens);
    // One that is spelled as none may be would be read by its upstream as it likes.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-./_+".contains(&byte);
    let wanted = wanted.filter(|protocol| !is_ours(protocol) && protocol.bytes().all(plain));
    let wanted: Vec<&str> = wanted.collect();
    if wanted.is_empty() { None } else { HeaderValue::from_str(&wanted.join(", ")).ok() }
}

/// Makes a request's headers fit for the upstream.
pub fn prepare(headers: &mut HeaderMap, origin: &Origin, principal: &Principal) {
    let trailers = headers.get_all(TE).iter().flat_map(tokens).any(is_trailers);
    drop_hop_by_hop(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // The server behind this one has answered it already.
    headers.remove(EXPECT);
    // The client takes it from the address of the upstream.
    headers.remove(HOST);
    one_cookie(headers);
    drop_prefixed(headers, &[OURS]);
    drop_prefixed(headers, &TARGETS);
    if !origin.trusted {
        drop_prefixed(headers, &CLAIMS);
    }
    forwarded::tell(headers, origin);
    for (name, value) in origin.additions.iter() {
        headers.insert(name, value.clone());
    }
    identify(headers, principal);
    drop_twins(headers);
    announce_trailers(headers);
}

/// Drops what is only told from another field by an underscore, a dot or the like, because many
/// upstreams read both as one: from what is there, and from what frames a message.
fn drop_twins(headers: &mut HeaderMap) {
    let is_twin = |name: &&HeaderName| {
        let name = name.as_str();
        !name.bytes().all(is_plain) && {
            let twin = plainly(name);
            headers.contains_key(&twin) || FRAMING.contains(&&*twin)
        }
    };
    let twins: Vec<HeaderName> = headers.keys().filter(is_twin).cloned().collect();
    for name in twins {
        headers.remove(name);
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// A name as upstreams read it that know letters and digits alone.
fn plainly(name: &str) -> String {
    name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect()
}

/// Trailers add nothing to what stands in the head. Only those that it names are passed on; the
/// client sees to that.
fn announce_trailers(headers: &mut HeaderMap) {
    if !headers.contains_key(TRAILER) {
        return;
    }
    let is_new = |name: &&str| {
        let twin = plainly(&name.to_ascii_lowercase());
        !headers.contains_key(&twin) && !FRAMING.contains(&&*twin)
    };
    let named: Vec<&str> =
        headers.get_all(TRAILER).iter().flat_map(tokens).filter(is_new).collect();
    match HeaderValue::from_str(&named.join(", ")) {
        Ok(named) if !named.is_empty() => headers.insert(TRAILER, named),
        _ => headers.remove(TRAILER),
    };
}

/// HTTP/2 may send a cookie in pieces; HTTP/1.1 knows one line of them (RFC 9113 §8.2.3).
fn one_cookie(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// What follows a body is no place for identities either.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    drop_prefixed(trailers, &[OURS, "x-forwarded", "forwarded"]);
    drop_prefixed(trailers, &TARGETS);
    drop_prefixed(trailers, &CLAIMS);
}

/// Whether an answer's length can be read in two ways, or in none: `Content-Length` beside
/// `Transfer-Encoding`, more than one of either, or a coding that nobody has asked for.
pub(super) fn is_ambiguous(answer: &HeaderMap) -> bool {
    let mut lengths = answer.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let clear = length.as_bytes().iter().all(u8::is_ascii_digit);
        return !clear || lengths.next().is_some() || answer.contains_key(TRANSFER_ENCODING);
    }
    let mut codings = answer.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return false };
    let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    !chunked || codings.next().is_some()
}

/// Whether an answer is a stream of events, which has no end that anybody waits for.
pub(super) fn is_endless(answer: &HeaderMap) -> bool {
    let kind = answer.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..EVENTS.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// Makes an answer's headers fit for the client.
pub fn clean_answer(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    drop_prefixed(headers, &[OURS]);
    drop_twins(headers);
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().flat_map(tokens);
    let named: Vec<HeaderName> = named.filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().filter(|name| !KEPT.contains(&name.as_str())) {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Drops every header that starts with one of `prefixes`. Whatever is no letter or digit counts as
/// a hyphen, because many upstreams read all of them as one.
pub(super) fn drop_prefixed(headers: &mut HeaderMap, prefixes: &[&str]) {
    let hit = |name: &&HeaderName| prefixes.iter().any(|prefix| starts_with(name, prefix));
    let names: Vec<HeaderName> = headers.keys().filter(hit).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn starts_with(name: &HeaderName, prefix: &str) -> bool {
    let start = name.as_str().as_bytes().get(..prefix.len());
    start.is_some_and(|start| {
        let same = |(byte, want): (&u8, u8)| {
            *byte == want || (want == b'-' && !byte.is_ascii_alphanumeric())
        };
        start.iter().zip(prefix.bytes()).all(same)
    })
}

fn is_trailers(te: &str) -> bool {
    te.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers"))
}

/// The members of a comma-separated field; one that is not text is none.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let members = value.as_bytes().split(|byte| *byte == b',');
    let texts = members.filter_map(|member| std::str::from_utf8(member).ok());
    texts.map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::http::header::FORWARDED;
    use uuid::Uuid;

    use super::*;
    use crate::proxy::Forwarding;

    const X_FORWARDED_FOR: &str = "x-forwarded-for";
    const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
    const X_FORWARDED_HOST: &str = "x-forwarded-host";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn prepared(pairs: &[(&'static str, &'static str)], trusted: bool) -> HeaderMap {
        let mut headers = headers(pairs);
        let origin = Origin {
            party: None,
            peer: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            secure: false,
            trusted,
            host: Some(HeaderValue::from_static("api.example")),
            additions: Arc::new([(
                HeaderName::from_static("x-tenant"),
                HeaderValue::from_static("t"),
            )]),
            forwarding: Forwarding::XForwarded,
        };
        let principal = Principal {
            client: "acme".into(),
            key_id: Uuid::from_u128(1),
            subject: "".into(),
            scopes: vec!["a".into(), "b".into()],
        };
        prepare(&mut headers, &origin, &principal);
        headers
    }

    #[test]
    fn identity_is_ours_alone_and_complete() {
        let claimed = [
            ("x-gatepost-client", "evil"),
            ("x-gatepost-role", "admin"),
            ("x_gatepost_client", "evil"),
            ("x-gatepost_subject", "root"),
            ("x.gatepost.client", "evil"),
            ("x~gatepost-subject", "root"),
        ];
        let headers = prepared(&claimed, true);
        assert_eq!(headers[X_GATEPOST_CLIENT], "acme");
        assert_eq!(headers[X_GATEPOST_KEY_ID], "00000000-0000-0000-0000-000000000001");
        assert_eq!(headers[X_GATEPOST_SUBJECT], "");
        assert_eq!(headers[X_GATEPOST_SCOPES], "a b");
        let all = headers.keys().filter(|name| name.as_str().contains("gatepost")).count();
        assert_eq!(all, 4);
    }

    #[test]
    fn connection_cannot_name_away_what_a_route_adds() {
        let headers = prepared(&[("connection", "x-tenant"), ("x-tenant", "evil")], false);
        assert_eq!(headers.get_all("x-tenant").iter().collect::<Vec<_>>(), ["t"]);
    }

    #[test]
    fn an_underscore_makes_no_other_field() {
        let claimed = [
            ("x_tenant", "evil"),
            ("x_request_id", "evil"),
            ("x-request-id", "ours"),
            ("content_length", "30"),
            ("transfer_encoding", "chunked"),
            ("x_forwarded_for", "evil"),
            ("x.tenant", "evil"),
            ("content.length", "30"),
            ("only_here", "1"),
        ];
        let headers = prepared(&claimed, true);
        let plain = |name: &&HeaderName| name.as_str().bytes().all(is_plain);
        let odd: Vec<_> = headers.keys().filter(|name| !plain(name)).collect();
        assert_eq!(odd, ["only_here"]);
        assert_eq!(headers["x-request-id"], "ours");
    }

    #[test]
    fn connection_names_what_it_may_whatever_stands_beside_it() {
        let mut headers = headers(&[("x-secret", "1"), ("x-request-id", "r"), ("x-b", "1")]);
        let odd = HeaderValue::from_bytes(b"x-secret, \xff, x-request-id").expect("a value");
        headers.append(CONNECTION, odd);
        headers.append(CONNECTION, HeaderValue::from_static("x-b"));
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-request-id"]);
    }

    #[test]
    fn a_trailer_adds_nothing_to_the_head() {
        let named = |names| {
            let headers = prepared(&[("trailer", names), ("x-here", "1")], false);
            headers.get(TRAILER).map(|names| names.to_str().expect("text").to_owned())
        };
        let claimed = "X-Tenant, X_Tenant, x.gatepost.client, X-Sum, x-here, Host, X-Forwarded-For";
        assert_eq!(named(claimed).as_deref(), Some("X-Sum"));
        assert_eq!(named("x-tenant"), None);
    }

    #[test]
    fn nobody_says_that_a_request_is_for_another_path() {
        let claims = [
            ("x-original-url", "/admin"),
            ("x-original-uri", "/admin"),
            ("x_rewrite_url", "/admin"),
            ("x-forwarded-uri", "/admin"),
            ("x-forwarded-url", "/admin"),
            ("x-forwarded-path", "/admin"),
            ("x-forwarded-method", "DELETE"),
            ("x.envoy.original.path", "/admin"),
            ("x-forwarded-prefix", "/api"),
        ];
        for (trusted, want) in [(true, &["x-forwarded-prefix"][..]), (false, &[])] {
            let headers = prepared(&claims, trusted);
            let there = claims.iter().map(|(name, _)| *name);
            let there: Vec<_> = there.filter(|name| headers.contains_key(*name)).collect();
            assert_eq!(there, want, "trusted: {trusted}");
        }
    }

    #[test]
    fn an_answer_has_one_length() {
        let answer = |pairs: &[_]| is_ambiguous(&headers(pairs));
        assert!(!answer(&[("content-length", "3")]));
        assert!(answer(&[("content-length", "3, 3")]));
        assert!(answer(&[("content-length", "3"), ("content-length", "3")]));
        assert!(!answer(&[("transfer-encoding", "Chunked")]));
        assert!(answer(&[("transfer-encoding", "chunked"), ("content-length", "3")]));
        assert!(answer(&[("transfer-encoding", "gzip, chunked")]));
        assert!(answer(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
    }

    #[test]
    fn connection_cannot_name_our_identity_away() {
        let headers = prepared(&[("connection", "close, X-Gatepost-Client, x-secret")], false);
        assert_eq!(headers[X_GATEPOST_CLIENT], "acme");
    }

    #[test]
    fn a_cookie_in_pieces_becomes_one() {
        let headers = prepared(&[("cookie", "a=1"), ("cookie", "b=2; c=3")], false);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let headers = prepared(
            &[
                ("connection", "keep-alive, x-named"),
                ("connection", "x-other"),
                ("x-named", "1"),
                ("x-other", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic eA=="),
                ("transfer-encoding", "chunked"),
                ("te", "gzip, trailers;q=1"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("host", "api.example"),
                ("x-kept", "1"),
            ],
            false,
        );
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.retain(|name| !name.starts_with(OURS));
        left.sort_unstable();
        let forwarded = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        let want = [&["te"], &forwarded[..], &["x-kept", "x-tenant"]].concat();
        assert_eq!(left, want);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn what_strangers_say_of_forwarding_is_replaced() {
        let claims = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "inner"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let headers = prepared(&claims, false);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.7");
        assert_eq!(headers[X_FORWARDED_HOST], "api.example");
        assert_eq!(headers[X_FORWARDED_PROTO], "http");
        assert!(!headers.contains_key("x-real-ip") && !headers.contains_key(FORWARDED));
    }

    #[test]
    fn what_trusted_proxies_say_is_carried_on() {
        let claims = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "10.0.0.1,10.0.0.2"),
            ("x-forwarded-proto", "https"),
        ];
        let headers = prepared(&claims, true);
        assert_eq!(headers[X_FORWARDED_FOR], "203.0.113.9, 10.0.0.1, 10.0.0.2, 192.0.2.7");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
    }

    #[test]
    fn answers_cannot_speak_in_our_name() {
        let mut answer = headers(&[
            ("x-gatepost-client", "x"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content_length", "30"),
            ("content.type", "text/html"),
            ("content-type", "text/plain"),
        ]);
        clean_answer(&mut answer);
        assert_eq!(answer.len(), 1);
    }

    #[test]
    fn a_request_may_become_anything_but_http() {
        let wanted = |version, connection: &'static str, protocols: &'static str| {
            let asked = headers(&[("connection", connection), ("upgrade", protocols)]);
            upgrade(version, &asked).map(|value| value.to_str().expect("text").to_owned())
        };
        let wants = |connection, protocols| wanted(Version::HTTP_11, connection, protocols);
        assert_eq!(wants("Upgrade", "WebSocket").as_deref(), Some("WebSocket"));
        assert_eq!(wants("x, upgrade", "h2c, foo/2, TLS/1.0").as_deref(), Some("foo/2"));
        assert_eq!(wants("upgrade", "h2c"), None);
        assert_eq!(wants("upgrade", "h2c;x"), None);
        assert_eq!(wants("upgrade", "\"h2c\""), None);
        assert_eq!(wants("upgrade", "HTTP/2.0"), None);
        assert_eq!(wants("keep-alive", "websocket"), None);
        assert_eq!(wanted(Version::HTTP_10, "upgrade", "websocket"), None);
    }
}
