//! EIO in the middle of a merge: nothing is lost or doubled, nothing half made stays, and the next
//! start merges. What a start could not sync it has set aside, and once it is replayed, too.
//!
//! A sample of the calls in a normal run; with `GATEPOST_LONG=1` every one.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::support::dice::long;

/// Embedded, four closed segments of usage are merged by the next start.
const LIVES: usize = 4;
const SETTINGS: &str = "[journal]\ninterval = \"5ms\"\n";

async fn backlog() -> (Gateway, u64) {
    let (mut gateway, mut issued) = (Gateway::new(None, SETTINGS), 0);
    let mut key = None;
    for _ in 0..LIVES {
        gateway.start().await;
        if key.is_none() {
            gateway.create_client("acme").await;
            key = Some(gateway.create_key("acme").await);
        }
        for _ in 0..3 {
            assert!(gateway.allowed(key.as_ref().expect("made")).await);
            issued += 1;
        }
        gateway.terminate().await;
    }
    assert_eq!(segments(&gateway).len(), LIVES);
    (gateway, issued)
}

fn segments(gateway: &Gateway) -> Vec<PathBuf> {
    let lane = gateway.data_dir().join("journal/usage").read_dir().expect("there");
    lane.map(|entry| entry.expect("read").path()).collect()
}

fn is_merged(gateway: &Gateway) -> bool {
    matches!(&segments(gateway)[..], [one] if one.join("sources").exists())
}

/// What stands in quarantine, and was not replayed.
fn aside(gateway: &Gateway) -> Vec<String> {
    let entries = gateway.data_dir().join("quarantine").read_dir().into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("read").path()).filter(|path| path.is_dir());
    let names = paths.map(|path| path.file_name().expect("named").to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with("replayed-") && !name.starts_with('.')).collect()
}

/// A start on a copy of the backlog, with this fault in the usage lane, and one without; whether
/// the fault was met.
async fn fault(backlog: &Gateway, issued: u64, which: &str) -> Option<bool> {
    let mut gateway = Gateway::new(None, SETTINGS);
    fs::create_dir(gateway.data_dir()).expect("writable");
    gatepost::disk::copy_dir(&backlog.data_dir(), &gateway.data_dir()).expect("a copy");
    let shim = Shim::below(gateway.dir())?;
    gateway.shim = Some(shim.only("/journal/usage/").failing(which));
    // It does not start where it cannot sync their names; what else it cannot, it sets aside.
    let mut met = !gateway.start_or_die().await;
    if !met {
        let refused =
            || ["not merged now", "cannot be merged"].map(|say| gateway.said().contains(say));
        let is_aside = || !aside(&gateway).is_empty();
        let over = || async { is_merged(&gateway) || refused().contains(&true) || is_aside() };
        until("the end of the merge", over).await;
        met = refused().contains(&true) || is_aside();
        // sled writes when it opens: while the disk fails, there may be no answer.
        let told = gateway.run(&["usage", "--period", "all"]).await;
        let whole = || told.json()[0]["sum"]["requests"] == issued;
        assert!(told.code == Some(1) || is_aside() || whole(), "{which}");
        gateway.terminate().await;
    }
    gateway.shim = None;
    assert!(gateway.start_or_die().await, "{which}: {}", gateway.said());
    for name in aside(&gateway) {
        let replayed = gateway.run(&["log", "replay", &name]).await;
        assert_eq!(replayed.code, Some(0), "{which}: {replayed:?}");
    }
    until("the merge", || async { is_merged(&gateway) }).await;
    assert_eq!(gateway.counted().await, issued, "{which}");
    gateway.terminate().await;
    assert_eq!(aside(&gateway), [""; 0], "{which}");
    // Nothing took the place of others before it was whole.
    assert!(!gateway.said().contains("end of a merged segment was lost"), "{which}");
    Some(met)
}

#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_meets_an_error_loses_nothing_and_is_made_by_the_next_start() {
    let (backlog, issued) = backlog().await;
    // Most syncs are those of the start, of what it inherits.
    for (kind, on, step) in [("write", "", 2), ("write", "+", 3), ("sync", "", 9), ("sync", "+", 9)]
    {
        let (mut number, step) = (1, if long() { 1 } else { step });
        loop {
            let which = format!("{kind}:{number}{on}");
            let Some(met) = fault(&backlog, issued, &which).await else { return };
            eprintln!("{which} {met}");
            if !met {
                break;
            }
            number += step;
        }
        assert!(number > 1, "{kind}{on}");
    }
}
