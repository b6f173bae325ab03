//! Access lines of the real program: on stderr, all of them by its end, and never at the cost of a
//! request.

use std::io::Read;
use std::process::{Command, Stdio};

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

#[test]
fn who_does_not_read_them_holds_nobody_up() {
    let house = House::new(&format!("{ROUTE}{}", declared("shop", &key(1))));
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.env_clear().arg("--config").arg(house.file()).arg("serve");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program is there");
    // Its addresses are read, and then nothing more: the pipe fills up.
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
    let agent = "x".repeat(256);
    let dropped = || {
        let metrics = get(admin, "/metrics", &[]).body;
        let line = metrics.lines().find(|l| l.starts_with("gatepost_access_lines_dropped_total"));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).expect("the metric")
    };
    until("a line that is dropped", || {
        for _ in 0..50 {
            let answer = get(data, "/echo/x", &[("User-Agent", &agent)]);
            assert_eq!(answer.status, 401);
        }
        (dropped() > 0).then_some(())
    });
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
}
