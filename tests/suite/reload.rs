//! Routes and upstreams are exchanged while requests run, whole or not at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::support::house::{
    Answer, Gateway, House, connect, declared, get, key, mirror, read_head, server, until,
};

/// A configuration with these routes, as path and upstream's address.
fn routed(routes: &[(&str, SocketAddr)]) -> String {
    let mut text = declared("shop", &key(1));
    for (at, (path, address)) in routes.iter().enumerate() {
        text += &format!(
            "[[upstreams]]\nname = \"u{at}\"\ntargets = [\"http://{address}\"]\n\
             [[routes]]\npath = \"{path}\"\nupstream = \"u{at}\"\n"
        );
    }
    text
}

/// Asks on a connection that stays open: the status and the body.
fn ask(stream: &mut TcpStream, path: &str) -> (u16, String) {
    let key = key(1);
    let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is open");
    answer(stream)
}

fn answer(stream: &mut TcpStream) -> (u16, String) {
    let head = read_head(stream).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    stream.read_exact(&mut body).expect("a body");
    (status, String::from_utf8(body).expect("text"))
}

fn reload(house: &House, gateway: &Gateway) -> (i32, serde_json::Value, String) {
    let admin = format!("http://{}", gateway.admin);
    let (code, out, said) = house.run(&["--admin-url", &admin, "--output", "json", "reload"]);
    (code, serde_json::from_str(&out).unwrap_or_default(), said)
}

fn control(house: &House, gateway: &Gateway, target: &str) -> Answer {
    let token = std::fs::read_to_string(house.data().join("admin-token")).expect("a token");
    get(gateway.admin, target, &[("Authorization", &format!("Bearer {}", token.trim()))])
}

fn metric(gateway: &Gateway, line: &str) -> bool {
    get(gateway.admin, "/metrics", &[]).body.lines().any(|found| found == line)
}

#[test]
fn a_connection_survives_and_what_it_asks_next_takes_the_new_routes() {
    let house = House::new(&routed(&[("/a", mirror())]));
    let gateway = house.serve();
    let mut stream = connect(gateway.data);
    assert_eq!(ask(&mut stream, "/a").0, 200);
    assert_eq!(ask(&mut stream, "/b").0, 404);

    house.configure(&house.data(), &routed(&[("/b", mirror())]));
    let (code, answer, said) = reload(&house, &gateway);
    assert_eq!(code, 0, "{said}");
    assert_eq!(answer, serde_json::json!({"routes": 1, "upstreams": 1, "needs_restart": []}));
    assert_eq!(ask(&mut stream, "/b").0, 200);
    assert_eq!(ask(&mut stream, "/a").0, 404);

    house.configure(&house.data(), &routed(&[("/a", mirror()), ("/b", mirror())]));
    gateway.program.signal("-HUP");
    until("the new routes", || (ask(&mut stream, "/a").0 == 200).then_some(()));
    assert!(metric(&gateway, "gatepost_config_reloads_total{outcome=\"ok\"} 2"));
    gateway.stop();
}

#[test]
fn a_broken_configuration_changes_nothing_and_is_told() {
    let house = House::new(&routed(&[("/a", mirror())]));
    let mut gateway = house.serve();
    let mut stream = connect(gateway.data);
    let good = std::fs::read_to_string(house.file()).expect("a file");
    let broken = [
        ("[[routes", "not valid TOML"),
        ("[[routes]]\npath = \"/b\"\nupstream = \"nowhere\"\n", "no upstream named `nowhere`"),
        ("[[routes]]\npath = \"/a\"\nupstream = \"u0\"\n", "match the same requests"),
        ("[[policies]]\nname = \"default\"\nip_deny = [\"::/129\"]\n", "policies[0].ip_deny[0]: "),
        ("[[routes]]\npath = \"/b\"\nupsteam = \"u0\"\n", "did you mean"),
    ];
    for (more, word) in broken {
        std::fs::write(house.file(), good.clone() + more).expect("written");
        // The command reads the file for itself: it cannot even find the gateway by it.
        let (code, _, said) = reload(&house, &gateway);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(word), "{said}");
        let refused = control(&house, &gateway, "POST /admin/v1/reload");
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.body.contains("configuration_invalid"), "{refused:?}");
        assert!(refused.body.contains(word), "{refused:?}");
        assert_eq!(ask(&mut stream, "/a").0, 200);
        assert_eq!(ask(&mut stream, "/b").0, 404);
    }
    assert!(metric(&gateway, "gatepost_config_reloads_total{outcome=\"failed\"} 5"));
    gateway.program.hear("the configuration was not reloaded; the one before holds");
    let status = || {
        let body = control(&house, &gateway, "GET /admin/v1/status").body;
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        status["configuration"]["last_error"].clone()
    };
    assert!(status().as_str().is_some_and(|error| error.contains("did you mean")));
    std::fs::write(house.file(), good).expect("written");
    assert_eq!(reload(&house, &gateway).0, 0);
    assert!(status().is_null());
    gateway.stop();
}

#[test]
fn what_runs_ends_where_it_began() {
    let (held, release) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
    let lock = release.lock().expect("no panic");
    let (here, wait) = (Arc::clone(&held), Arc::clone(&release));
    let slow = server(move |mut stream| {
        read_head(&mut stream);
        let _arrived = here.lock().expect("no panic");
        let _released = wait.lock().expect("no panic");
        let told = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nold-1";
        stream.write_all(told.as_bytes()).expect("the gateway reads");
    });
    let house = House::new(&routed(&[("/a", slow)]));
    let gateway = house.serve();
    let mut stream = connect(gateway.data);
    let head = format!("GET /a HTTP/1.1\r\nHost: test\r\nX-API-Key: {}\r\n\r\n", key(1));
    stream.write_all(head.as_bytes()).expect("sent");
    until("the upstream", || held.try_lock().is_err().then_some(()));

    house.configure(&house.data(), &routed(&[("/b", mirror())]));
    assert_eq!(reload(&house, &gateway).0, 0);
    assert_eq!(ask(&mut connect(gateway.data), "/a").0, 404);
    drop(lock);
    assert_eq!(answer(&mut stream), (200, "old-1".into()));
    assert_eq!(ask(&mut stream, "/a").0, 404);
    gateway.stop();
}

#[test]
fn what_needs_a_restart_is_named_and_nothing_is_reloaded_without_a_gateway() {
    let house = House::new(&format!("max_connections = 9\n{}", routed(&[("/a", mirror())])));
    let gateway = house.serve();
    house
        .configure(&house.data(), &format!("max_connections = 10\n{}", declared("other", &key(2))));
    let (code, answer, said) = reload(&house, &gateway);
    assert_eq!(code, 0, "{said}");
    let restart = serde_json::json!(["server.max_connections", "clients", "keys"]);
    assert_eq!((&answer["routes"], &answer["needs_restart"]), (&0.into(), &restart));
    gateway.stop();
    let (code, _, said) = house.run(&["reload"]);
    assert_eq!(code, 69, "{said}");
}
