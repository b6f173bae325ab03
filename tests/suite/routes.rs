//! No spelling of a path slips past a route: what is authorised is, byte for byte, what the
//! upstream gets, on the proxy's way and when another proxy asks.

use std::net::SocketAddr;

use super::support::house::{Gateway, House, declared, exchange, get, key, mirror};

/// Everything is open, but what lies below `/paid`.
fn house(upstream: SocketAddr) -> House {
    House::new(&format!(
        "{}[[upstreams]]\nname = \"u\"\ntargets = [\"http://{upstream}\"]\n\
         [[routes]]\npath = \"/{{*rest}}\"\nupstream = \"u\"\naccess = \"anonymous\"\n\
         [[routes]]\npath = \"/paid/{{*rest}}\"\nupstream = \"u\"\n\
         [[routes]]\nhost = \"*.paid.example\"\npath = \"/{{*rest}}\"\nupstream = \"u\"\n",
        declared("shop", &key(1))
    ))
}

/// Sends a request whose target is these bytes: the status, and what the upstream got of it.
fn send(gateway: &Gateway, method: &str, target: &[u8], host: &str) -> (u16, String) {
    let mut bytes = format!("{method} ").into_bytes();
    bytes.extend(target);
    bytes.extend(format!(" HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").bytes());
    let answer = exchange(gateway.data, &bytes);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    // The mirror answers 200 with the request's first line; nobody else does.
    let seen = body.split(' ').nth(1).filter(|_| status == Some(200)).unwrap_or_default();
    (status.unwrap_or_else(|| panic!("no status: {answer:?}")), seen.to_owned())
}

/// Whatever readers might take for `/paid`, or for anything else than it says.
const DISPUTED: [&str; 27] = [
    "/open/../paid/x",
    "/open/..",
    "/../paid/x",
    "/./paid/x",
    "/paid/..",
    "/open/%2e%2e/paid/x",
    "/open/%2E./paid/x",
    "/open/.%2e/paid/x",
    "/%2e/paid/x",
    "//paid/x",
    "/open//paid/x",
    "/paid//x",
    "/paid;x/y",
    "/paid;/y",
    "/paid%3bx/y",
    "/open/..;/paid/x",
    "/open%2fpaid",
    "/paid%2Fx",
    "/open%5c..%5cpaid",
    "/open\\..\\paid",
    "/open/%c0%ae%c0%ae/paid",
    "/open/%ff",
    "/open/x%00",
    "/open/%0d%0aX:1",
    "/open/%7f",
    "/open/%",
    "/open/%zz",
];

#[test]
fn what_readers_disagree_on_never_reaches_the_upstream() {
    let house = house(mirror());
    let gateway = house.serve();
    for target in DISPUTED {
        let (status, seen) = send(&gateway, "GET", target.as_bytes(), "test");
        assert_eq!((status, &*seen), (400, ""), "{target}");
    }
    for (method, target) in [
        ("GET", &b"*"[..]),
        ("OPTIONS", b"*"),
        ("CONNECT", b"test:80"),
        ("GET", b"open"),
        ("GET", b"/open/\xff"),
        ("GET", b"http://user@test/open"),
        ("GET", b"http://user:secret@a.paid.example/open"),
        ("GET", b"http://test/open/../paid/x"),
        ("GET", b"http://test//paid/x"),
    ] {
        let (status, seen) = send(&gateway, method, target, "test");
        assert_eq!((status, &*seen), (400, ""), "{}", String::from_utf8_lossy(target));
    }
    for host in ["user@a.paid.example", "a.paid.example/open", "a.paid.example,test", "a%2eb"] {
        assert_eq!(send(&gateway, "GET", b"/open", host).0, 400, "{host}");
    }
    gateway.stop();
}

#[test]
fn what_is_protected_is_protected_in_every_spelling() {
    let house = house(mirror());
    let gateway = house.serve();
    for (target, host) in [
        ("/paid/x", "test"),
        ("/paid", "test"),
        ("/paid/", "test"),
        ("/%70aid/x", "test"),
        ("/p%61%69d?a=/open", "test"),
        ("http://test/paid/x", "other"),
        ("/open", "a.paid.example"),
        ("/open", "A.b.PAID.example:8080"),
        ("/open", "a.paid.example."),
        ("http://a.paid.example/open", "test"),
        ("http://a.paid.example:1/open", "test"),
    ] {
        assert_eq!(send(&gateway, "GET", target.as_bytes(), host).0, 401, "{target} {host}");
    }
    gateway.stop();
}

#[test]
fn what_some_upstreams_take_for_what_is_protected_is_refused() {
    let house = house(mirror());
    let gateway = house.serve();
    for target in [
        "/PAID/x",
        "/Paid",
        "/paid%20/x",
        "/paid./x",
        "/%2570aid/x",
        "/%EF%BD%90aid/x",
        "/open/%252e%252e/paid/x",
    ] {
        assert_eq!(send(&gateway, "GET", target.as_bytes(), "test"), (400, "".into()), "{target}");
    }
    gateway.stop();
}

#[test]
fn what_passes_arrives_byte_for_byte() {
    let house = house(mirror());
    let gateway = house.serve();
    for target in [
        "/",
        "/open/",
        "/open/a%20b/%C3%A9/%41-%7E?x=/../paid&y=%2e%2e;z//",
        "/paidx",
        "/open/.x/x.",
        "/open/%252e%252e/x",
        "/open/é",
        "/open/a+b,c@d:e!$&'()*=",
        "/open?",
        "/?/paid",
    ] {
        assert_eq!(send(&gateway, "GET", target.as_bytes(), "test"), (200, target.into()));
    }
    // A fragment is no part of a target: it ends here, and the path before it is what was asked.
    let (status, seen) = send(&gateway, "GET", b"/open/x#/../../paid/x", "test");
    assert!(status == 400 || (status, &*seen) == (200, "/open/x"), "{status} {seen}");
    // An absolute target's host is the one that counts (RFC 9112 §3.2.2).
    let (status, seen) = send(&gateway, "GET", b"http://test/open/x?y", "a.paid.example");
    assert_eq!((status, &*seen), (200, "/open/x?y"));
    gateway.stop();
}

#[test]
fn a_proxy_that_asks_hears_the_same() {
    let house = house(mirror());
    let gateway = house.serve();
    let ask = |path: &str, headers: &[(&str, &str)]| get(gateway.data, path, headers);
    let fragments = ["/open#/paid", "/open?x#y"];
    for target in DISPUTED.into_iter().chain(fragments) {
        let asked = ask("/authz/forward-auth", &[("X-Forwarded-Uri", target)]);
        assert_eq!(asked.status, 400, "{target}");
        let url = format!("https://test{target}");
        for original in [("X-Original-URI", target), ("X-Original-URL", &url)] {
            let asked = ask("/authz/auth-request", &[original]);
            assert_eq!(asked.status, 403, "{target}");
            assert_eq!(asked.header("X-Gatepost-Deny-Status"), Some("400"), "{target}");
        }
    }
    for target in DISPUTED {
        assert_eq!(ask(&format!("/authz/ext-authz{target}"), &[]).status, 400, "{target}");
    }
    for (target, open) in [("/paid/x", false), ("/%70aid", false), ("/open/x?/paid", true)] {
        let status = |yes| if open { yes } else { 401 };
        let asked = ask("/authz/forward-auth", &[("X-Forwarded-Uri", target)]);
        assert_eq!(asked.status, status(200), "{target}");
        let asked = ask("/authz/auth-request", &[("X-Original-URI", target)]);
        assert_eq!(asked.status, status(204), "{target}");
        let asked = ask(&format!("/authz/ext-authz{target}"), &[]);
        assert_eq!(asked.status, status(200), "{target}");
    }
    let host = [("X-Forwarded-Uri", "/open"), ("X-Forwarded-Host", "a.paid.example:443")];
    assert_eq!(ask("/authz/forward-auth", &host).status, 401);
    let url = [("X-Original-URL", "https://u@a.paid.example/open")];
    assert_eq!(ask("/authz/auth-request", &url).header("X-Gatepost-Deny-Status"), Some("400"));
    gateway.stop();
}
