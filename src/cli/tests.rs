//! What is typed, what is asked, and what is printed.

use serde_json::json;

use super::args::{ClientCommand, KeyCommand};
use super::output::{Shape, as_table};
use super::*;

fn parsed(line: &str) -> Cli {
    let words = std::iter::once("gatepost").chain(line.split(' '));
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn asked(line: &str) -> (String, Option<serde_json::Value>) {
    let ask = commands::ask(&parsed(line).command).expect("a request");
    (format!("{} {}", ask.method, ask.path), ask.body)
}

#[test]
fn verify_cli() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_there() {
    let id = "0190e2a0-0000-7000-8000-000000000001";
    for line in [
        "serve",
        "config check",
        "config print",
        "config schema",
        "migrate",
        "doctor",
        "client create acme --policy gold",
        "client list",
        "client show acme",
        "client disable acme",
        "client enable acme",
        "key create --client acme --policy p --scope a --scope b --expires-in 90d --env live",
        "key list",
        "key list --client acme",
        &format!("key show {id}"),
        &format!("key revoke {id}"),
        &format!("key disable {id}"),
        &format!("key enable {id}"),
        &format!("key rotate {id} --overlap 24h"),
        "session create --subject alice --client acme --scope a --scope b --ttl 30d",
        "session list",
        &format!("session list --subject alice --client acme --after {id} --limit 5"),
        &format!("session show {id}"),
        &format!("session revoke {id}"),
        "session revoke --subject alice",
        "session revoke --client acme",
        "session recover --for 24h",
        "token keys list",
        "token keys rotate",
        "token keys generate",
        "token keys generate --from keys.json",
        "usage",
        "usage --client acme --period month",
        "usage --period all",
        &format!("usage --client acme --after {id}"),
        "log status",
        "log drain",
        "log verify",
        "log inspect",
        &format!("log inspect {id}"),
        "log replay data/quarantine/usage-x",
        "reload",
        "completions bash",
        "--config x.toml serve",
        "client list --config x.toml --output json --admin-url http://127.0.0.1:1",
    ] {
        parsed(line);
    }
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    for line in [
        "key create",
        "key show not-an-id",
        "key create --client a --expires-in soon",
        "session create --subject alice",
        "session create --client acme",
        "session create --subject alice --client acme --ttl long",
        "session revoke",
        "session revoke --subject alice --client acme",
        "session revoke 0190e2a0-0000-7000-8000-000000000001 --subject alice",
        "session revoke not-an-id",
        "session recover",
        "session recover --for ever",
        "token keys",
        "usage --period week",
        "usage --after 0190e2a0-0000-7000-8000-000000000001",
        "key list --limit 0",
        "key list --limit 1001",
        "clients list",
        "client list --output xml",
    ] {
        let words = std::iter::once("gatepost").chain(line.split(' '));
        let error = Cli::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), i32::from(failure::USAGE), "{line}");
    }
}

#[test]
fn help_names_the_exit_codes() {
    let help = Cli::command().render_long_help().to_string();
    for code in ["  0 ", "  1 ", "  2 ", "  69 ", "  75 ", "  78 "] {
        assert!(help.contains(code), "{code} is not in\n{help}");
    }
}

#[test]
fn commands_are_requests() {
    let id = "0190e2a0-0000-7000-8000-000000000001";
    let expected = ("POST /admin/v1/clients".to_owned(), Some(json!({"name": "acme"})));
    assert_eq!(asked("client create acme"), expected);
    assert_eq!(asked("client show a/b?").0, "GET /admin/v1/clients/a%2Fb%3F");
    assert_eq!(asked("client list").0, "GET /admin/v1/clients?limit=1000");
    let (path, body) = asked("key create --client acme --scope a --expires-in 90d");
    assert_eq!(path, "POST /admin/v1/keys");
    let expected = json!({"client": "acme", "scopes": ["a"], "expires_in": "90d", "env": "live"});
    assert_eq!(body, Some(expected));
    assert_eq!(
        asked(&format!("key list --client a --after {id} --limit 5")).0,
        format!("GET /admin/v1/keys?limit=5&client=a&after={id}")
    );
    let rotated = asked(&format!("key rotate {id}"));
    assert_eq!(rotated.0, format!("POST /admin/v1/keys/{id}/rotate"));
    assert_eq!(rotated.1, Some(json!({"overlap": "24h"})));
    let created = asked("session create --subject alice --client acme --ttl 30d");
    assert_eq!(created.0, "POST /admin/v1/sessions");
    let body = json!({"subject": "alice", "client": "acme", "scopes": [], "ttl": "30d"});
    assert_eq!(created.1, Some(body));
    let listed = asked(&format!("session list --subject a&b --after {id}"));
    assert_eq!(listed.0, format!("GET /admin/v1/sessions?limit=1000&subject=a%26b&after={id}"));
    assert_eq!(asked(&format!("session show {id}")).0, format!("GET /admin/v1/sessions/{id}"));
    let revoked = asked(&format!("session revoke {id}"));
    assert_eq!(revoked.0, format!("POST /admin/v1/sessions/{id}/revoke"));
    let everywhere = ("POST /admin/v1/sessions/revoke".to_owned(), Some(json!({"client": "acme"})));
    assert_eq!(asked("session revoke --client acme"), everywhere);
    let recovery = ("POST /admin/v1/sessions/recover".to_owned(), Some(json!({"for": "24h"})));
    assert_eq!(asked("session recover --for 24h"), recovery);
    assert_eq!(asked("reload"), ("POST /admin/v1/reload".to_owned(), Some(json!({}))));
    assert_eq!(asked("token keys list").0, "GET /admin/v1/token-keys");
    assert_eq!(asked("token keys rotate").0, "POST /admin/v1/token-keys/rotate");
    assert_eq!(asked("usage").0, "GET /admin/v1/usage?period=month");
    let id = "0190e2a0-0000-7000-8000-000000000001";
    let more = format!("GET /admin/v1/usage?period=month&client=acme&after={id}");
    assert_eq!(asked(&format!("usage --client acme --after {id}")).0, more);
    assert_eq!(asked("log drain").0, "POST /admin/v1/log/drain");
    assert_eq!(asked("log status").0, "GET /admin/v1/log");
    assert_eq!(asked("log verify").0, "GET /admin/v1/log/verify");
    assert_eq!(asked("log inspect").0, "GET /admin/v1/log/streams");
    assert_eq!(asked(&format!("log inspect {id}")).0, format!("GET /admin/v1/log/facts?of={id}"));
    let replay = asked("log replay usage-x");
    assert_eq!(replay.0, "POST /admin/v1/log/replay");
    assert_eq!(replay.1, Some(json!({"path": "usage-x"})));
    let whole = std::fs::canonicalize("src").expect("there");
    assert_eq!(asked("log replay src").1, Some(json!({"path": whole})), "the gateway is elsewhere");
}

#[test]
fn global_flags_stand_anywhere() {
    let cli = parsed("key list --output json --config a.toml");
    assert_eq!(cli.config.as_deref(), Some(std::path::Path::new("a.toml")));
    assert!(Output::new(cli.output).is_json());
    assert!(!Output::new(parsed("--output table doctor").output).is_json());
    let Command::Key { command: KeyCommand::List { client: None, .. } } = cli.command else {
        panic!("another command: {:?}", cli.command);
    };
    let Command::Client { command: ClientCommand::List(page) } = parsed("client list").command
    else {
        panic!("another command");
    };
    assert_eq!(page.limit, crate::admin::LIST_MAX);
}

#[test]
fn answers_become_tables() {
    let list = json!([
        {"name": "acme", "policy": null, "enabled": true},
        {"name": "b", "policy": "gold", "enabled": false},
    ]);
    let shape = commands::ask(&parsed("client list").command).expect("a request").shape;
    let text = as_table(&shape, &list);
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "POLICY", "ENABLED", "MODE"]);
    assert_eq!(lines[1], ["acme", "-", "true", "-"]);
    assert_eq!(lines[2], ["b", "gold", "false", "-"]);

    let counts = |requests| json!({"requests": requests, "failed": 1, "last_seen": null});
    let usage = json!([
        {"client": "known", "settled": counts(5), "unsettled": counts(2), "sum": counts(7)},
        {"client": "away", "settled": null, "unsettled": counts(2), "sum": null},
    ]);
    let shape = commands::ask(&parsed("usage").command).expect("a request").shape;
    let text = as_table(&shape, &usage);
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..6], ["known", "5", "2", "7", "-", "1"]);
    assert_eq!(lines[2][..6], ["away", "-", "2", "-", "-", "1"], "what is known is shown");

    let text = as_table(&Shape::One, &json!({"a": {"b": 1}, "scopes": ["x", "y"], "z": []}));
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines, [["a.b", "1"], ["scopes", "x,y"], ["z", "-"]]);
}

#[test]
fn a_configuration_error_is_78_and_a_usage_error_2() {
    let code = |words: &[&str]| {
        let words = std::iter::once("gatepost").chain(words.iter().copied());
        let code = run(words.map(OsString::from), &Environment::default());
        format!("{code:?}")
    };
    let expected = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(code(&["config", "check", "--config", "/nonexistent.toml"]), expected(78));
    assert_eq!(code(&["nonsense"]), expected(2));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/gatepost.toml");
    assert_eq!(code(&["config", "check", "--config", shipped]), expected(0));
    assert_eq!(code(&["migrate", "--config", shipped]), expected(78));
    let elsewhere = ["client", "list", "--config", shipped, "--admin-url", "https://gateway"];
    assert_eq!(code(&elsewhere), expected(2));
}
