//! The request behind a forward-auth request, by the headers of the proxy that asks.
//!
//! Each endpoint reads only what its proxies write. A header that comes twice, or two that
//! contradict one another, means that a client slipped one past its proxy: refused.

use axum::http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Method, Uri, Version};

use super::problem::Refusal;
use super::routes::is_host;

/// What the client asked its proxy for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original<'a> {
    /// The method.
    pub method: Method,
    /// The host, with a port if it was given.
    pub host: Option<&'a str>,
    /// The raw path, without its query.
    pub path: &'a str,
}

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// Traefik and Caddy: `X-Forwarded-Method`, `-Host`, `-Uri`. `None` where no URI is named.
pub fn forward_auth(headers: &HeaderMap) -> Result<Option<Original<'_>>, Refusal> {
    let Some(uri) = single(headers, X_FORWARDED_URI)? else { return Ok(None) };
    let method = method(single(headers, X_FORWARDED_METHOD)?)?;
    let host = checked(single(headers, X_FORWARDED_HOST)?)?;
    Ok(Some(Original { method, host, path: path_of(uri)? }))
}

/// nginx: `X-Original-URI` (a path) or `X-Original-URL` (a whole one), `X-Original-Method`.
pub fn auth_request(headers: &HeaderMap) -> Result<Option<Original<'_>>, Refusal> {
    let uri = single(headers, X_ORIGINAL_URI)?;
    let url = single(headers, X_ORIGINAL_URL)?.map(split_url).transpose()?;
    let (path, host) = match (uri.map(path_of).transpose()?, url) {
        (None, None) => return Ok(None),
        (Some(path), None) => (path, None),
        (None, Some((host, path))) => (path, Some(host)),
        (Some(path), Some((host, same))) if path == same => (path, Some(host)),
        _ => return Err(Refusal::bad_request("X-Original-URI and X-Original-URL contradict.")),
    };
    let method = method(single(headers, X_ORIGINAL_METHOD)?)?;
    let host = match host {
        Some(host) => Some(host),
        None => single(headers, X_FORWARDED_HOST)?.or(single(headers, HOST)?),
    };
    Ok(Some(Original { method, host: checked(host)?, path }))
}

/// Envoy: the request itself, with its path behind `prefix`.
pub fn ext_authz<'a>(parts: &'a Parts, prefix: &str) -> Result<Original<'a>, Refusal> {
    let path = parts.uri.path().strip_prefix(prefix).unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    Ok(Original { method: parts.method.clone(), host: host(&parts.uri, &parts.headers)?, path })
}

/// The host that a request itself names: its absolute target (RFC 9112 §3.2.2), else `Host`.
pub fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
    let named = single(headers, HOST)?;
    let authority = uri.authority().map(|authority| authority.as_str());
    checked(authority.or(named))
}

/// Whether no reader can take a head for another than we do: its host, and its length.
///
/// HTTP/1.1 asks for exactly one `Host`, and for 400 without (RFC 9112 §3.2); HTTP/2 for an
/// authority, which a `Host` beside it repeats (RFC 9113 §8.3.1).
pub fn names_its_host(parts: &Parts) -> Result<(), Refusal> {
    let web = |scheme: &str| ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    if !parts.uri.scheme_str().is_none_or(web) {
        return Err(Refusal::bad_request("The target is not one of HTTP."));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(Authority::as_str);
    // HTTP/1 is followed byte by byte before.
    let http2 = parts.version == Version::HTTP_2;
    if http2 && parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("`Content-Length` is given more than once."));
    }
    let clear = match (parts.version, host) {
        _ if another.is_some() => false,
        (Version::HTTP_11, host) => host.is_some(),
        (Version::HTTP_2, None) => authority.is_some(),
        (Version::HTTP_2, Some(host)) => authority
            .is_none_or(|authority| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())),
        _ => true,
    };
    if clear { Ok(()) } else { Err(Refusal::bad_request("A request names its host exactly once.")) }
}

/// A host that can be one.
fn checked(host: Option<&str>) -> Result<Option<&str>, Refusal> {
    match host {
        Some(host) if !is_host(host) => Err(Refusal::bad_request("The host is not a host name.")),
        host => Ok(host),
    }
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::bad_request("A header that says where the request goes came twice."));
    }
    let unreadable =
        |_| Refusal::bad_request("A header that says where the request goes is not text.");
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(unreadable)
}

fn method(text: Option<&str>) -> Result<Method, Refusal> {
    let text = text.unwrap_or("GET");
    Method::from_bytes(text.as_bytes())
        .map_err(|_| Refusal::bad_request("The original method is not a method."))
}

/// The path of a request target. No client has a reason to send a fragment, and what comes behind
/// it is read in many ways.
fn path_of(uri: &str) -> Result<&str, Refusal> {
    if uri.contains('#') {
        return Err(Refusal::bad_request("The original target has a fragment."));
    }
    Ok(uri.split('?').next().unwrap_or(uri))
}

fn split_url(url: &str) -> Result<(&str, &str), Refusal> {
    let (_, rest) =
        url.split_once("://").ok_or(Refusal::bad_request("X-Original-URL is not a whole URL."))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = path_of(path)?;
    Ok((host, if path.is_empty() { "/" } else { path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    fn original(
        method: Method,
        host: Option<&'static str>,
        path: &'static str,
    ) -> Original<'static> {
        Original { method, host, path }
    }

    #[test]
    fn traefik_and_caddy_name_method_host_and_uri() {
        let asked = headers(&[
            ("x-forwarded-method", "DELETE"),
            ("x-forwarded-host", "api.example"),
            ("x-forwarded-uri", "/rest/v1/orders?id=eq.1"),
            ("x-original-uri", "/other"),
        ]);
        let want = original(Method::DELETE, Some("api.example"), "/rest/v1/orders");
        assert_eq!(forward_auth(&asked), Ok(Some(want)));
        assert_eq!(forward_auth(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn nginx_names_a_path_or_a_url() {
        let uri =
            headers(&[("x-original-uri", "/a?b"), ("x-original-method", "POST"), ("host", "h")]);
        assert_eq!(auth_request(&uri), Ok(Some(original(Method::POST, Some("h"), "/a"))));
        let url = headers(&[("x-original-url", "https://api.example:8443?x"), ("host", "h")]);
        let want = original(Method::GET, Some("api.example:8443"), "/");
        assert_eq!(auth_request(&url), Ok(Some(want)));
        let both = headers(&[("x-original-url", "https://h/a?b"), ("x-original-uri", "/a?b")]);
        assert!(matches!(auth_request(&both), Ok(Some(_))));
    }

    #[test]
    fn contradictions_and_duplicates_are_refused() {
        for pairs in [
            [("x-original-uri", "/free"), ("x-original-url", "https://h/paid")],
            [("x-original-uri", "/free"), ("x-original-uri", "/paid")],
            [("x-original-uri", "/free"), ("x-original-method", "G T")],
            [("x-original-uri", "/free"), ("x-original-url", "paid")],
        ] {
            assert!(auth_request(&headers(&pairs)).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn envoy_sends_the_request_itself() {
        let request = axum::http::Request::builder()
            .method("PUT")
            .uri("/authz/ext-authz/rest/v1/orders?x=1")
            .header("host", "api.example");
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let want = original(Method::PUT, Some("api.example"), "/rest/v1/orders");
        assert_eq!(ext_authz(&parts, "/authz/ext-authz"), Ok(want));
    }

    #[test]
    fn in_http2_an_authority_and_a_host_say_the_same() {
        let named = |uri: &'static str, hosts: &[&'static str]| {
            let mut request = axum::http::Request::builder().version(Version::HTTP_2).uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            names_its_host(&request.body(()).expect("a request").into_parts().0).is_ok()
        };
        assert!(named("https://a/x", &[]) && named("https://a/x", &["A"]) && named("/x", &["a"]));
        assert!(!named("https://a/x", &["b"]) && !named("/x", &[]));
        assert!(!named("https://a/x", &["a", "a"]));
    }

    #[test]
    fn a_target_is_one_of_http() {
        let clear = |uri: &'static str| {
            let request = axum::http::Request::builder().uri(uri).header(HOST, "a").body(());
            names_its_host(&request.expect("a request").into_parts().0).is_ok()
        };
        assert!(clear("/x") && clear("http://a/x") && clear("HTTPS://a/x"));
        assert!(!clear("ftp://a/x") && !clear("ws://a/x"));
    }

    #[test]
    fn two_hosts_are_refused() {
        let twice = headers(&[("host", "a"), ("host", "b")]);
        assert!(host(&Uri::from_static("/"), &twice).is_err());
    }

    #[test]
    fn any_bytes_are_a_request_behind_another_or_refused() {
        let good = [
            "x-forwarded-method: GET\nx-forwarded-host: a.example:8443\nx-forwarded-uri: /a?b=c",
            "x-original-method: PUT\nx-original-url: https://a.example/b/c?d\nx-original-uri: /b/c",
            "host: a.example\ncontent-length: 5",
        ];
        crate::fuzz::each("original", &good.map(|text| text.as_bytes().to_vec()), |bytes| {
            let headers = crate::fuzz::fields(bytes);
            for read in [forward_auth, auth_request] {
                let Ok(Some(original)) = read(&headers) else { continue };
                assert!(original.host.is_none_or(is_host));
                assert!(!original.path.contains(['?', '#']));
            }
            let target = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let Ok(uri) = Uri::try_from(target) else { return };
            let mut request = axum::http::Request::builder().uri(uri).body(()).expect("a request");
            *request.headers_mut() = headers;
            let (parts, ()) = request.into_parts();
            let _named = names_its_host(&parts);
            if let Ok(original) = ext_authz(&parts, "/authz/ext-authz") {
                assert!(original.host.is_none_or(is_host) && !original.path.is_empty());
            }
        });
    }
}
