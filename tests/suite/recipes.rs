//! The recipes of docs/ for proxies that ask the gateway: Caddy and HAProxy as real programs,
//! Traefik and Envoy by requests shaped as their documents say. (nginx has a file of its own.)

mod contracts;
mod forgery;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::house::{Answer, House, Program, declared, get, key, mirror, until};

const CADDY: &str = include_str!("../../docs/Caddyfile");
const HAPROXY: &str = include_str!("../../docs/haproxy.cfg");
const LUA: &str = include_str!("../../docs/gatepost.lua");

/// A proxy that asks the gateway.
pub struct Front {
    _program: Program,
    pub address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// The recipe with real addresses; each of those shown stands in it once.
pub fn with_addresses(recipe: &str, addresses: &[(&str, SocketAddr)]) -> String {
    addresses.iter().fold(recipe.to_owned(), |recipe, (shown, real)| {
        assert_eq!(recipe.matches(shown).count(), 1, "{shown} stands once in the recipe");
        recipe.replace(shown, &real.to_string())
    })
}

pub fn binary(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/usr/local/bin"];
    let places = std::env::split_paths(&path).chain(usual.map(PathBuf::from));
    let mut found = places.map(|dir| dir.join(name)).filter(|file| file.is_file());
    found.next().unwrap_or_else(|| {
        panic!("{name} is not installed: run tests/run.sh, or install the package `{name}`")
    })
}

fn free_port() -> SocketAddr {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    port.expect("a free port")
}

pub fn start(name: &str, make: impl FnOnce(&Path, SocketAddr) -> Command) -> Front {
    let dir = tempfile::Builder::new().prefix("gp-front-").tempdir().expect("a directory");
    let address = free_port();
    let mut program = Program::start(make(dir.path(), address));
    until(name, || {
        let said = program.said();
        assert!(program.runs(), "{said}");
        TcpStream::connect(address).ok()
    });
    Front { _program: program, address, _dir: dir }
}

fn caddy(gatepost: SocketAddr, backend: SocketAddr) -> Front {
    start("Caddy", |dir, address| {
        let addresses = [("127.0.0.1:8080", gatepost), ("127.0.0.1:9000", backend)];
        let site = with_addresses(CADDY, &addresses);
        assert_eq!(site.matches(":8000 {").count(), 1, "it listens at one place");
        let site = site.replace(":8000 {", &format!(":{} {{", address.port()));
        let file = dir.join("Caddyfile");
        std::fs::write(&file, format!("{{\n\tadmin off\n}}\n{site}")).expect("written");
        let mut command = Command::new(binary("caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        command.env("HOME", dir).env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
        command
    })
}

fn haproxy(gatepost: SocketAddr, backend: SocketAddr) -> Front {
    start("HAProxy", |dir, address| {
        let script = dir.join("gatepost.lua");
        let lua = with_addresses(LUA, &[("127.0.0.1:8080", gatepost)]);
        std::fs::write(&script, lua).expect("written");
        let addresses = [("127.0.0.1:9000", backend), ("127.0.0.1:8000", address)];
        let recipe = with_addresses(HAPROXY, &addresses);
        let recipe = recipe.replace("docs/gatepost.lua", &script.display().to_string());
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, recipe).expect("written");
        let mut command = Command::new(binary("haproxy"));
        command.arg("-db").arg("-f").arg(file);
        command
    })
}

/// Key 1 is good, key 2 may ask once.
fn house() -> House {
    let routes = "[[upstreams]]\nname = \"o\"\ntargets = [\"http://127.0.0.1:9\"]\n\
                  [[routes]]\npath = \"/free/{*rest}\"\nupstream = \"o\"\naccess = \"anonymous\"\n\
                  [[routes]]\npath = \"/hosted/{*rest}\"\nhost = \"free.example\"\n\
                  upstream = \"o\"\naccess = \"anonymous\"\n\
                  [[routes]]\npath = \"/rest/v1/{table}\"\nupstream = \"o\"\n\
                  [[policies]]\nname = \"few\"\n\
                  rate_limits = [{ name = \"few\", limit = 1, window = \"1h\", per = \"key\" }]\n\
                  [[policies]]\nname = \"default\"\nrights = [\"orders.delete\", \"gateway.*\"]\n";
    let slow = declared("slow", &key(2)) + "policy = \"few\"\n";
    House::new(&format!("{}{slow}{routes}", declared("shop", &key(1))))
}

fn ask(front: &Front, target: &str, number: u8, more: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {}", key(number));
    let mut headers = vec![("Authorization", bearer.as_str())];
    headers.extend(more);
    get(front.address, target, &headers)
}

/// What every recipe keeps.
fn laws(make: fn(SocketAddr, SocketAddr) -> Front, away: u16) {
    let house = house();
    let gateway = house.serve();
    let front = make(gateway.data, mirror());
    passes_with_a_name(&front);
    is_refused_as_the_gateway_says(&front);
    the_request_itself_decides(&front);
    gateway.stop();
    // Nothing passes unasked.
    let answer = ask(&front, "/", 1, &[]);
    assert_eq!(answer.status, away, "{answer:?}");
}

fn passes_with_a_name(front: &Front) {
    let forged = [
        ("X-Gatepost-Client", "admin"),
        ("X-Gatepost-Subject", "root"),
        ("X-Gatepost-Role", "root"),
        ("X_Gatepost_Client", "root"),
        ("X-Request-Id", "mine-1"),
    ];
    let answer = ask(front, "DELETE /rest/v1/orders?id=1", 1, &forged);
    assert_eq!(answer.status, 200, "{answer:?}");
    let got = Answer { status: 0, head: answer.body, body: String::new() };
    assert!(got.head.starts_with("DELETE /rest/v1/orders?id=1 "), "{got:?}");
    assert_eq!(got.header("X-Gatepost-Client"), Some("shop"), "{got:?}");
    assert!(got.header("X-Gatepost-Key-Id").is_some_and(|id| id.len() == 36), "{got:?}");
    for name in ["X-Gatepost-Subject", "X-Gatepost-Scopes"] {
        assert_eq!(got.header(name).unwrap_or_default(), "", "{got:?}");
    }
    for name in ["Authorization", "X-API-Key", "apikey", "X-Gatepost-Role", "X_Gatepost_Client"] {
        assert_eq!(got.header(name), None, "{got:?}");
    }
    let free = get(front.address, "/free/x", &[("X-Gatepost-Client", "admin")]);
    assert_eq!(free.status, 200, "{free:?}");
    let got = Answer { status: 0, head: free.body, body: String::new() };
    assert_eq!(got.header("X-Gatepost-Client").unwrap_or_default(), "", "{got:?}");
}

fn is_refused_as_the_gateway_says(front: &Front) {
    let none = get(front.address, "/", &[]);
    assert_eq!(none.status, 401, "{none:?}");
    assert_eq!(none.header("WWW-Authenticate"), Some("Bearer realm=\"gatepost\""), "{none:?}");
    assert_eq!(none.header("Content-Type"), Some("application/problem+json"), "{none:?}");
    assert!(none.body.contains("missing_credential"), "{none:?}");
    let two = ask(front, "/", 1, &[("X-API-Key", &key(2))]);
    assert_eq!(two.status, 400, "{two:?}");
    assert!(two.body.contains("ambiguous_credential"), "{two:?}");
    let right = ask(front, "PUT /rest/v1/orders", 1, &[]);
    assert_eq!(right.status, 403, "{right:?}");
    assert!(right.body.contains("insufficient_scope"), "{right:?}");
    assert_eq!(ask(front, "/", 2, &[]).status, 200);
    let limited = ask(front, "/", 2, &[]);
    assert_eq!(limited.status, 429, "{limited:?}");
    assert!(limited.header("Retry-After").is_some(), "{limited:?}");
    assert!(limited.header("RateLimit").is_some(), "{limited:?}");
}

fn the_request_itself_decides(front: &Front) {
    let claims = [
        ("X-Forwarded-Uri", "/free/x"),
        ("X-Forwarded-Method", "DELETE"),
        ("X-Original-URI", "/free/x"),
        ("X-Original-URL", "https://test/free/x"),
    ];
    assert_eq!(get(front.address, "/", &claims).status, 401);
    assert_eq!(ask(front, "PUT /rest/v1/orders", 1, &claims).status, 403);
    for target in ["/free/../x", "/free/%2e%2e/x", "//free/x", "/free;x/y", "/free%2fx"] {
        // Whoever of the two refuses it, it does not pass.
        let answer = get(front.address, target, &[]);
        assert!(answer.status >= 300, "{target}: {answer:?}");
    }
}

#[test]
fn caddy_asks_and_does_as_it_is_told() {
    laws(caddy, 502);
}

#[test]
fn haproxy_asks_and_does_as_it_is_told() {
    laws(haproxy, 503);
}
