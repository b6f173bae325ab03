//! Access lines and log lines of the real program: on stderr, all of them by its end, and never at
//! the cost of a request.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStderr, Command, Stdio};

use super::support::house::{House, declared, get, key, until};

const ROUTE: &str = "echo = true\naccess_log_waiting = 100\n";

#[test]
fn lines_are_on_stderr_and_the_end_waits_for_them() {
    let house = House::new(&format!("{ROUTE}{}", declared("shop", &key(1))));
    let mut gateway = house.serve();
    let key = key(1);
    for number in 0..50 {
        let id = format!("request-{number}.");
        let headers = [("X-API-Key", &*key), ("X-Request-Id", &id)];
        assert_eq!(get(gateway.data, "/echo/x?secret=1", &headers).status, 200);
    }
    gateway.program.signal("-TERM");
    assert!(gateway.program.end().success());
    let said = until("the last line", || {
        let said = gateway.program.said();
        said.contains("\"request-49.\"").then_some(said)
    });
    let lines: Vec<serde_json::Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("a line is whole"))
        .collect();
    assert_eq!(lines.len(), 50, "{said}");
    for line in &lines {
        assert_eq!((&line["target"], &line["client"]), (&"access".into(), &"shop".into()));
        assert_eq!((&line["path"], &line["decision"]), (&"/echo/x".into(), &"allowed".into()));
    }
    assert!(!said.contains(&key) && !said.contains("secret=1"), "{said}");
}

/// A gateway whose stderr is a pipe of which nothing is read behind its addresses.
struct Unread {
    child: Child,
    _stderr: ChildStderr,
    data: SocketAddr,
    admin: SocketAddr,
}

impl Unread {
    fn start(house: &House) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.env_clear().env("GATEPOST__LOG__WAITING", "10");
        command.arg("--config").arg(house.file()).arg("serve");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is there");
        let mut stderr = child.stderr.take().expect("piped");
        let mut said = String::new();
        let mut byte = [0];
        while !said.contains("control plane on http://") || !said.ends_with('\n') {
            assert_eq!(stderr.read(&mut byte).expect("it speaks"), 1, "{said}");
            said.push(char::from(byte[0]));
        }
        let address = |words: &str| {
            let rest = said.split(words).nth(1).expect("an address");
            rest.split([',', '\n']).next().expect("its end").parse().expect("an address")
        };
        let (data, admin) = (address("listening on http://"), address("control plane on http://"));
        Self { child, _stderr: stderr, data, admin }
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = get(self.admin, "/metrics", &[]).body;
        let line = metrics.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("the metric")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn who_does_not_read_them_holds_nobody_up() {
    // A port where nobody listens any more: each target fails once, and is then left out.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let port = gone.port();
    let targets = (1..50).map(|n| format!("\"http://127.0.0.{n}:{port}\"")).collect::<Vec<_>>();
    let house = House::new(&format!(
        "workers = 2\n{ROUTE}[[upstreams]]\nname = \"gone\"\ntargets = [{}]\n\
         breaker_failures = 1\nretries = 0\n\
         [[routes]]\npath = \"/gone\"\nupstream = \"gone\"\n{}",
        targets.join(", "),
        declared("shop", &key(1))
    ));
    let mut gateway = Unread::start(&house);
    let (agent, key) = ("x".repeat(256), key(1));
    let refused = || {
        let answer = get(gateway.data, "/echo/x", &[("User-Agent", &agent)]);
        assert_eq!(answer.status, 401);
    };
    until("an access line that is dropped", || {
        (0..50).for_each(|_| refused());
        (gateway.metric("gatepost_access_lines_dropped_total") > 0).then_some(())
    });
    // Each failure is a line of the log, told by the worker that has met it.
    until("a line of the log that is dropped", || {
        for _ in 0..10 {
            let answer = get(gateway.data, "/gone", &[("X-API-Key", &key)]);
            assert!([502, 503].contains(&answer.status), "{answer:?}");
            refused();
        }
        (gateway.metric("gatepost_log_lines_dropped_total") > 0).then_some(())
    });
    let pid = gateway.child.id().to_string();
    assert!(Command::new("kill").arg("-TERM").arg(pid).status().expect("kill").success());
    let ended = until("the end", || gateway.child.try_wait().expect("a child"));
    assert!(ended.success(), "{ended:?}");
}
