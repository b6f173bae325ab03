//! Data directories that are taken, in the way, from the future, or full.

use std::io::Write;
use std::process::Command;

use crate::support::house::{House, declared, get, key, until};

#[test]
fn a_taken_directory_means_try_again() {
    let house = House::new("");
    let _first = house.serve();
    let (code, _, said) = house.run(&["serve"]);
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("in use by another gatepost"), "{said}");
    // The configured admin port is 0, so nobody is found there.
    let (code, _, said) = house.run(&["client", "list"]);
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("--admin-url"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_made_is_a_matter_of_configuration() {
    let house = House::new("");
    house.configure(&house.file().join("data"), "");
    for args in [&["serve"][..], &["client", "list"]] {
        let (code, _, said) = house.run(args);
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("data.dir"), "{said}");
    }
    let (code, out, _) = house.run(&["doctor", "--output", "table"]);
    assert_eq!(code, 1, "{out}");
}

#[test]
fn a_directory_from_the_future_is_not_touched() {
    let house = House::new("");
    house.serve().stop();
    std::fs::write(house.data().join("format"), "99\n").expect("written");
    let (code, _, said) = house.run(&["serve"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("format is 99"), "{said}");
}

#[test]
fn the_development_key_is_shown_by_the_first_serve_whatever_ran_before() {
    let house = House::new(&declared("demo", gatepost::config::development_key().reveal()));
    let (code, _, said) = house.run(&["client", "list"]);
    assert_eq!(code, 0, "{said}");
    let shown = "development key, shown this once";
    let mut first = house.serve();
    first.program.hear("gatepost: try");
    assert!(first.program.said().contains(shown), "{}", first.program.said());
    first.stop();
    let mut second = house.serve();
    second.program.hear("gatepost: try");
    assert!(!second.program.said().contains(shown), "{}", second.program.said());
    second.stop();
}

#[test]
fn a_full_journal_is_ready_on_neither_plane() {
    let tiny = "[journal]\nmax_bytes = \"1B\"\nsegment_max_bytes = \"1B\"\n";
    let house = House::new(&format!("{tiny}{}", declared("shop", &key(1))));
    let gateway = house.serve();
    until("the refusal", || {
        let answer = get(gateway.data, "/authz/forward-auth", &[("X-API-Key", &key(1))]);
        (answer.status == 503).then_some(())
    });
    for address in [gateway.data, gateway.admin] {
        assert_eq!(get(address, "/readyz", &[]).status, 503, "{address}");
    }
    gateway.stop();
}

/// A small file system of its own, unmounted with the value.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where we may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"]).arg(dir.path());
        mount.output().is_ok_and(|done| done.status.success()).then(|| Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Busy until the gateway is gone; lazily, so that a panic leaves nothing behind either.
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_disk_is_said_and_what_was_promised_is_kept() {
    let Some(disk) = Small::mount() else {
        let skipped = "skipped: only root can mount a small file system\n";
        return std::io::stderr().write_all(skipped.as_bytes()).expect("stderr");
    };
    let data = disk.0.path().join("data");
    let rest = format!("[journal]\ncommit = \"before_reply\"\n{}", declared("shop", &key(1)));
    let house = House::new("");
    house.configure(&data, &rest);
    let gateway = house.serve();
    let ask = || get(gateway.data, "/authz/forward-auth", &[("X-API-Key", &key(1))]);
    let mut answered = 0;
    assert_eq!(ask().status, 200);
    answered += 1;
    fill(disk.0.path());
    let refused = until("the refusal", || {
        let answer = ask();
        answered += u64::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("accounting_unavailable"), "{refused:?}");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    let said = gateway.program.said();
    assert!(said.contains("No space left on device"), "{said}");
    // Room again, and it goes on by itself.
    std::fs::remove_file(disk.0.path().join("filler")).expect("it was there");
    until("room", || {
        let answer = ask();
        answered += u64::from(answer.status == 200);
        (answer.status == 200).then_some(())
    });
    gateway.stop();
    let (code, out, said) = house.run(&["usage", "--period", "all", "--output", "json"]);
    assert_eq!(code, 0, "{said}");
    let usage: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let counted = usage[0]["sum"]["requests"].as_u64().expect("a number");
    // A refused one may have reached the disk all the same; none that was answered is missing.
    assert!(counted >= answered, "{counted} counted, {answered} answered");
}

/// Takes all the room that there is.
fn fill(dir: &std::path::Path) {
    let mut filler = std::fs::File::create(dir.join("filler")).expect("made");
    let block = vec![0; 64 << 10];
    for size in [64 << 10, 4 << 10, 1] {
        while filler.write_all(&block[..size]).is_ok() {}
    }
}
