//! A real nginx asks the real gateway, by the recipe that docs/nginx.md shows.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use super::recipes::{Front, binary, start, with_addresses};
use super::support::database::Database;
use super::support::house::{Answer, House, declared, get, key, mirror, read_head, server, until};

const RECIPE: &str = include_str!("../../docs/nginx.conf");

/// nginx with the recipe, before `backend`, asking `gatepost`.
pub fn nginx(gatepost: SocketAddr, backend: SocketAddr) -> Front {
    start("nginx", |dir, address| {
        let addresses = [
            ("127.0.0.1:8080", gatepost),
            ("127.0.0.1:9000", backend),
            ("127.0.0.1:8000", address),
        ];
        let recipe = with_addresses(RECIPE, &addresses);
        let at = dir.display();
        let root = rustix::process::geteuid().is_root();
        let user = if root { "user root;\n" } else { "" };
        let config = format!(
            "{user}daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log stderr;\n\
             events {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {at}/body;\n\
             proxy_temp_path {at}/proxy;\nfastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi;\nscgi_temp_path {at}/scgi;\n{recipe}}}\n"
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new(binary("nginx"));
        command.arg("-p").arg(dir).arg("-c").arg(&file).arg("-e").arg("stderr");
        command
    })
}

fn ask(nginx: &Front, target: &str, key: &str, more: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {key}");
    let mut headers = vec![("Authorization", bearer.as_str())];
    headers.extend(more);
    get(nginx.address, target, &headers)
}

const ROUTES: &str = "[[upstreams]]\nname = \"o\"\ntargets = [\"http://127.0.0.1:9\"]\n\
                      [[routes]]\npath = \"/rest/v1/{table}\"\nupstream = \"o\"\n";

#[test]
fn who_is_let_through_arrives_with_a_name_and_without_the_key() {
    let house = House::new(&declared("shop", &key(1)));
    let gateway = house.serve();
    let nginx = nginx(gateway.data, mirror());
    let forged = [
        ("X-Gatepost-Client", "admin"),
        ("X-Gatepost-Subject", "root"),
        ("X-Original-URI", "/free"),
        ("X-Original-URL", "https://other/free"),
        ("X-Forwarded-Host", "other"),
    ];
    let answer = ask(&nginx, "DELETE /rest/v1/orders?id=1", &key(1), &forged);
    assert_eq!(answer.status, 200, "{answer:?}");
    let got = Answer { status: 0, head: answer.body, body: String::new() };
    assert_eq!(got.header("X-Gatepost-Client"), Some("shop"), "{got:?}");
    assert!(got.header("X-Gatepost-Key-Id").is_some_and(|id| id.len() == 36), "{got:?}");
    assert_eq!(got.header("X-Gatepost-Subject"), None, "{got:?}");
    assert_eq!(got.header("Authorization"), None, "{got:?}");
    assert!(got.head.starts_with("DELETE /rest/v1/orders?id=1 "), "{got:?}");
    gateway.stop();
}

#[test]
fn refusals_keep_their_status_and_their_code() {
    let house = House::new(&declared("shop", &key(1)));
    let gateway = house.serve();
    let nginx = nginx(gateway.data, mirror());
    let none = get(nginx.address, "/", &[]);
    assert_eq!(none.status, 401, "{none:?}");
    assert_eq!(none.header("WWW-Authenticate"), Some("Bearer realm=\"gatepost\""), "{none:?}");
    assert_eq!(none.body, r#"{"status":401,"code":"missing_credential"}"#);
    let unknown = ask(&nginx, "/", &key(2), &[]);
    assert_eq!((unknown.status, unknown.header("Retry-After")), (401, None), "{unknown:?}");
    assert!(unknown.body.contains("invalid_credential"), "{unknown:?}");
    let two = ask(&nginx, "/", &key(1), &[("X-API-Key", &key(2))]);
    assert_eq!(two.status, 400, "{two:?}");
    assert!(two.body.contains("ambiguous_credential"), "{two:?}");
    // Nobody asks the gateway past nginx.
    assert_eq!(get(nginx.address, "/_gatepost", &[]).status, 404);
    gateway.stop();
    let away = ask(&nginx, "/", &key(1), &[]);
    assert_eq!((away.status, away.header("Retry-After")), (503, Some("1")), "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_request_counts_and_a_disabled_client_is_forbidden() {
    let database = Database::new().await;
    let house = House::new(&format!("[postgres]\nurl = \"{}\"\n{ROUTES}", database.url));
    let gateway = house.serve();
    let nginx = nginx(gateway.data, mirror());
    let admin = format!("http://{}", gateway.admin);
    let run = |args: &[&str]| {
        let (code, out, err) = house.run(&[&["--admin-url", &admin], args].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    run(&["client", "create", "shop"]);
    let made = run(&["key", "create", "--client", "shop", "--output", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let key = made["key"].as_str().expect("a key");
    let forged = [("X-Original-URI", "/free"), ("X-Original-Method", "GET")];
    // Until a new gateway knows its policies and the key, it answers 503, which counts too.
    until("the key", || Some(ask(&nginx, "/", key, &[])).filter(|answer| answer.status == 200));
    assert_eq!(ask(&nginx, "DELETE /rest/v1/orders?id=1", key, &forged).status, 200);
    run(&["log", "drain"]);
    // What nginx says of the request is believed, and not what a client says of it.
    let counted = "SELECT total_operations FROM gatepost.client_table_statistics
                   WHERE client_name = 'shop' AND table_name = 'orders' AND operation = 'delete'";
    assert_eq!(database.number(counted).await, 1);
    run(&["client", "disable", "shop"]);
    let denied = until("the refusal", || {
        Some(ask(&nginx, "/", key, &[])).filter(|answer| answer.status != 200)
    });
    assert_eq!(denied.status, 403, "{denied:?}");
    assert_eq!(denied.body, r#"{"status":403,"code":"client_disabled"}"#);
    gateway.stop();
}

#[test]
fn what_nobody_can_say_is_a_503_with_a_time_to_come_back() {
    let house = House::new("[postgres]\nurl = \"postgres://nobody@127.0.0.1:1/none\"\n");
    let gateway = house.serve();
    let nginx = nginx(gateway.data, mirror());
    let answer = ask(&nginx, "/", &key(1), &[]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("Retry-After").is_some(), "{answer:?}");
    assert!(answer.body.contains("api_key_validation_unavailable"), "{answer:?}");
}

#[test]
fn a_limit_that_is_reached_is_a_429() {
    // As the contract says a limit is told to nginx.
    let limited = server(|mut stream| {
        read_head(&mut stream);
        let told = "HTTP/1.1 403 Forbidden\r\nX-Gatepost-Deny-Code: rate_limited\r\n\
                    X-Gatepost-Deny-Status: 429\r\nX-Gatepost-Retry-After: 7\r\n\
                    Content-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(told.as_bytes()).expect("nginx reads");
    });
    let nginx = nginx(limited, mirror());
    let answer = ask(&nginx, "/", &key(1), &[]);
    assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("7")), "{answer:?}");
    assert_eq!(answer.body, r#"{"status":429,"code":"rate_limited"}"#);
}
