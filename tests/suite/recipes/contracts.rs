//! What proxies send that the tests cannot install, by their documents: Traefik's `forwardAuth` and
//! Envoy's `ext_authz` over HTTP. The recipes are read for what they name.

use std::io::Write;
use std::process::Stdio;

use super::forgery::{CLAIMS, spellings};
use super::*;

const TRAEFIK: &str = include_str!("../../../docs/traefik.yml");
const ENVOY: &str = include_str!("../../../docs/envoy.yaml");

const IDENTITY: [&str; 4] =
    ["X-Gatepost-Client", "X-Gatepost-Key-Id", "X-Gatepost-Subject", "X-Gatepost-Scopes"];
const CREDENTIALS: [&str; 3] = ["Authorization", "X-API-Key", "apikey"];

/// A request as it reaches the proxy, and what the gateway must say of it.
struct Case {
    method: &'static str,
    target: &'static str,
    number: Option<u8>,
    status: u16,
}

const CASES: [Case; 9] = [
    Case { method: "GET", target: "/", number: None, status: 401 },
    Case { method: "GET", target: "/", number: Some(1), status: 200 },
    Case { method: "GET", target: "/", number: Some(9), status: 401 },
    Case { method: "DELETE", target: "/rest/v1/orders?id=1", number: Some(1), status: 200 },
    Case { method: "PUT", target: "/rest/v1/orders", number: Some(1), status: 403 },
    Case { method: "POST", target: "/free/x?y", number: None, status: 200 },
    Case { method: "GET", target: "/free/%2e%2e/x", number: None, status: 400 },
    Case { method: "GET", target: "/", number: Some(2), status: 200 },
    Case { method: "GET", target: "/", number: Some(2), status: 429 },
];

fn check(case: &Case, answer: &Answer) {
    assert_eq!(answer.status, case.status, "{} {}: {answer:?}", case.method, case.target);
    let count = |name: &str| {
        let start = format!("{}:", name.to_ascii_lowercase());
        answer.head.lines().filter(|line| line.to_ascii_lowercase().starts_with(&start)).count()
    };
    if answer.status == 200 {
        // All four, once each, whoever it is: a proxy replaces only what is there.
        assert!(IDENTITY.iter().all(|name| count(name) == 1), "{answer:?}");
    } else {
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
        assert_eq!(answer.header("WWW-Authenticate").is_some(), matches!(case.status, 401 | 403));
        assert_eq!(answer.header("Retry-After").is_some(), case.status == 429);
    }
}

#[test]
fn traefik_is_answered_by_its_contract() {
    let house = house();
    let gateway = house.serve();
    for case in &CASES {
        // A GET without a body; what it forwards, it has written itself.
        let bearer = case.number.map(|number| format!("Bearer {}", key(number)));
        let mut headers = vec![
            ("X-Forwarded-Method", case.method),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "api.example.com"),
            ("X-Forwarded-Uri", case.target),
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Server", "edge"),
            ("User-Agent", "curl/8"),
        ];
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        check(case, &get(gateway.data, "/authz/forward-auth", &headers));
    }
    gateway.stop();
}

#[test]
fn envoy_is_answered_by_its_contract() {
    let house = house();
    let gateway = house.serve();
    for case in &CASES {
        // The request's own method, and its path behind the prefix; no body.
        let bearer = case.number.map(|number| format!("Bearer {}", key(number)));
        let mut headers = vec![
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Envoy-Internal", "true"),
            ("X-Request-Id", "0190e2a0-0000-4000-8000-000000000001"),
            ("Content-Length", "0"),
        ];
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let target = format!("{} /authz/ext-authz{}", case.method, case.target);
        check(case, &get(gateway.data, &target, &headers));
    }
    gateway.stop();
}

/// What a recipe must name whatever else it says.
#[test]
fn the_recipes_name_the_endpoint_the_identity_and_the_credentials() {
    let traefik = TRAEFIK.to_ascii_lowercase();
    assert!(traefik.contains("address: \"http://127.0.0.1:8080/authz/forward-auth\""));
    assert!(traefik.contains("trustforwardheader: false"));
    assert!(ENVOY.contains("headers_with_underscores_action: DROP_HEADER"));
    let envoy = ENVOY.to_ascii_lowercase();
    assert!(envoy.contains("path_prefix: /authz/ext-authz\n"));
    assert!(envoy.contains("failure_mode_allow: false"));
    let removed = "request_headers_to_remove: [\"authorization\", \"x-api-key\", \"apikey\"]";
    assert!(envoy.contains(removed));
    for name in IDENTITY.map(str::to_ascii_lowercase) {
        assert!(traefik.contains(&format!("- \"{name}\"")), "{name}");
        assert!(envoy.contains(&format!("exact: {name},")), "{name}");
    }
    for name in CREDENTIALS.map(str::to_ascii_lowercase) {
        assert!(traefik.contains(&format!("- \"{name}\"")), "{name}");
        assert!(traefik.contains(&format!("{name}: \"\"")), "{name}");
        assert!(envoy.contains(&format!("exact: {name},")), "{name}");
    }
}

/// Which of `names` an extended regular expression matches; these mean the same in grep and in RE2.
fn matched(expression: &str, options: &str, names: &[&str]) -> Vec<String> {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args([options, "--", expression]);
    let mut grep = grep.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("grep");
    let mut stdin = grep.stdin.take().expect("piped");
    stdin.write_all((names.join("\n") + "\n").as_bytes()).expect("grep reads");
    drop(stdin);
    let told = grep.wait_with_output().expect("grep ends").stdout;
    String::from_utf8(told).expect("text").lines().map(str::to_owned).collect()
}

fn quoted<'a>(recipe: &'a str, key: &str) -> &'a str {
    let (_, rest) = recipe.split_once(&format!("{key}: \"")).expect("the key");
    rest.split('"').next().expect("its end")
}

/// What the tests of the real programs forge, these two strip by an expression.
#[test]
fn their_expressions_take_what_is_forged_and_leave_the_rest() {
    let forged: Vec<String> = IDENTITY.iter().flat_map(|name| spellings(name)).collect();
    let forged: Vec<&str> = forged.iter().map(String::as_str).chain(CLAIMS).collect();
    let rest = [
        "host",
        "authorization",
        "x-api-key",
        "apikey",
        "cookie",
        "content-type",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "x-request-id",
        "traceparent",
        "x-forwarded-for",
        "x-forwarded-proto",
    ];
    let traefik = quoted(TRAEFIK, "authResponseHeadersRegex");
    let traefik = traefik.strip_prefix("(?i)").expect("any case");
    // These it has dropped before, and written anew.
    let own = |name: &&str| name.starts_with("X-Forwarded-") || *name == "X-Real-IP";
    let strange: Vec<&str> = forged.iter().copied().filter(|name| !own(name)).collect();
    assert_eq!(matched(traefik, "-iE", &strange), strange);
    assert_eq!(matched(traefik, "-iE", &rest), Vec::<String>::new());
    // All names are in small letters here, and matched whole.
    let envoy = quoted(ENVOY, "regex");
    let forged: Vec<String> = forged.iter().map(|name| name.to_ascii_lowercase()).collect();
    let strange: Vec<&str> =
        forged.iter().map(String::as_str).filter(|name| !rest.contains(name)).collect();
    assert_eq!(matched(envoy, "-xE", &strange), strange);
    let pseudo = [":path", ":authority", ":method", ":scheme"];
    assert_eq!(matched(envoy, "-xE", &[&rest[..], &pseudo].concat()), Vec::<String>::new());
}

#[test]
fn their_tunnels_are_websockets() {
    // Traefik asks on both routers, and each says what may become of it.
    for one in ["[\"gatepost\", \"no-tunnel\", ", "[\"gatepost\", \"only-websocket\", "] {
        assert_eq!(TRAEFIK.matches(&format!("middlewares: {one}")).count(), 1);
    }
    assert_eq!(TRAEFIK.matches("rule: ").count(), 2);
    assert!(TRAEFIK.contains("HeaderRegexp(`Upgrade`, `(?i)^websocket$`)\"\n"));
    let sets = |name, value| {
        let set = "headers:\n        customRequestHeaders:\n          Upgrade";
        TRAEFIK.contains(&format!("    {name}:\n      {set}: \"{value}\"\n"))
    };
    assert!(sets("no-tunnel", "") && sets("only-websocket", "websocket"));
    // Envoy grants none that is not named.
    assert!(!ENVOY.contains("upgrade_configs"));
}
