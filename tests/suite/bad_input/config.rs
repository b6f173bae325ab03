//! Configurations and command lines that cannot work.

use std::process::Command;

use crate::support::house::House;

/// What `args` say about `rest` of a configuration, and the exit code.
fn refused(rest: &str, args: &[&str]) -> (i32, String) {
    let (code, stdout, stderr) = House::new(rest).run(args);
    assert_eq!(stdout, "");
    (code, stderr)
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    let (code, said) = refused("[journal]\nintervall = \"50ms\"\n", &["config", "check"]);
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("intervall") && said.contains("did you mean `journal.interval`"),
        "{said}"
    );
    assert!(said.contains("gatepost.toml"), "{said}");
}

#[test]
fn a_route_to_no_upstream_is_answered_with_those_there_are() {
    let rest = "[[upstreams]]\nname = \"orders\"\ntargets = [\"http://127.0.0.1:9\"]\n\
                [[routes]]\npath = \"/a\"\nupstream = \"order\"\n";
    for args in [&["config", "check"][..], &["serve"]] {
        let (code, said) = refused(rest, args);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("routes[0].upstream") && said.contains("known: `orders`"), "{said}");
    }
}

#[test]
fn a_missing_file_and_a_broken_one_are_named() {
    let house = House::new("[journal\n");
    let (code, _, said) = house.run(&["config", "check"]);
    assert_eq!(code, 78, "{said}");
    std::fs::remove_file(house.file()).expect("it was there");
    let (code, _, said) = house.run(&["config", "check"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("gatepost.toml"), "{said}");
}

#[test]
fn an_address_in_use_is_said() {
    let first = House::new("").serve();
    let taken = House::new("");
    let text = std::fs::read_to_string(taken.file()).expect("written");
    let free = "[server]\nlisten = \"127.0.0.1:0\"";
    let used = format!("[server]\nlisten = \"{}\"", first.data);
    std::fs::write(taken.file(), text.replace(free, &used)).expect("written");
    let (code, _, said) = taken.run(&["serve"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("server.listen") && said.contains("cannot be bound"), "{said}");
}

#[test]
fn an_admin_url_that_does_not_answer_is_unavailable() {
    let house = House::new("");
    let (code, _, said) = house.run(&["--admin-url", "http://127.0.0.1:1", "client", "list"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("http://127.0.0.1:1"), "{said}");
    let (code, _, said) = house.run(&["--admin-url", "nonsense", "client", "list"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn a_policy_that_is_wrong_is_named_with_its_field() {
    let house = House::new("[[policies]]\nname = \"a\"\nconcurrency = { limit = 0 }\n");
    let (code, _, said) = house.run(&["serve"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("policies[0].concurrency.limit: must be at least 1"), "{said}");
}

#[test]
fn the_usage_of_nobody_is_no_empty_list() {
    let house = House::new("[[clients]]\nname = \"shop\"\n");
    let (code, stdout, said) = house.run(&["usage", "--client", "nope"]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{said}");
    assert!(said.contains("there is no client `nope`"), "{said}");
    let (code, _, said) = house.run(&["usage", "--client", "shop"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn usage_is_told_without_a_configuration() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    let output = command.env_clear().arg("srve").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("serve"), "{output:?}");
}
