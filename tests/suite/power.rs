//! Power cuts: what the disk was never told to keep may be gone, and everything that was answered
//! is there all the same.
//!
//! The real program runs with the shim between it and its disk. From the record many images are
//! made, each of a cut at a random moment, and looked at as the next start would. Then one of them
//! is what the next life of the gateway starts on. `GATEPOST_SEED` repeats the choices,
//! `GATEPOST_LONG=1` makes more images.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::Method;
use gatepost::cache::{self, Cache, Declared};
use gatepost::clock::SystemClock;
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{self, Journal};
use gatepost::metrics::Metrics;
use gatepost::model::fact::{Lane, StateFact};
use gatepost::model::units::{Size, Span};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use crate::support::dice::{Dice, long};
use crate::support::gateway::{Gateway, Made};
use crate::support::image::{Record, Tree};
use crate::support::shim::Shim;

const KEYS: usize = 3;
const CALLERS: usize = 4;
const TURNS: usize = 25;
/// Only what hangs needs more requests until its commits come, and something is merged.
const TURNS_MAX: usize = 3000;

/// How a gateway is set up, and what that promises.
#[derive(Clone, Copy)]
struct Scene {
    commit: &'static str,
    segment: &'static str,
    /// An answer is on disk.
    strict: bool,
    /// Each life goes on until usage was merged.
    merging: bool,
}

const BEFORE_REPLY: Scene =
    Scene { commit: "before_reply", segment: "4KiB", strict: true, merging: false };
const INTERVAL: Scene = Scene { commit: "interval", strict: false, ..BEFORE_REPLY };
const MERGING: Scene = Scene { segment: "512B", merging: true, ..BEFORE_REPLY };

/// Something that was asked for in one life, by the length of the record before and after.
#[derive(Clone, Copy)]
struct Asked {
    before: u64,
    answered: u64,
}

/// What clients know of one life, and what they knew before it.
#[derive(Clone, Default)]
struct Known {
    /// By key id: requests of earlier lives, at least and at most on disk.
    counts: HashMap<String, (u64, u64)>,
    requests: Vec<(String, Asked)>,
    /// Keys that are there, and those that are revoked, when a cut comes after this length.
    made: Vec<(String, u64)>,
    revoked: Vec<(String, u64)>,
    /// Sequence numbers that were missing in what this life began on: a cut in the middle of a
    /// commit may leave such, and they are told of ever after.
    missing: u64,
}

impl Known {
    /// At least and at most on disk, by key, after a cut. `kept` tells from which length on what
    /// was answered is on disk.
    fn bounds(&self, cut: u64, kept: &dyn Fn(u64) -> Option<u64>) -> HashMap<String, (u64, u64)> {
        let mut bounds = self.counts.clone();
        for (key, asked) in &self.requests {
            let bound = bounds.entry(key.clone()).or_default();
            bound.0 += u64::from(kept(asked.answered).is_some_and(|kept| kept <= cut));
            bound.1 += u64::from(asked.before <= cut);
        }
        bounds
    }

    /// The next life starts on what a cut left.
    fn after(&mut self, cut: u64, found: &Found) {
        self.counts = found.counts.iter().map(|(key, n)| (key.clone(), (*n, *n))).collect();
        self.requests.clear();
        self.missing = found.missing;
        for list in [&mut self.made, &mut self.revoked] {
            list.retain(|(_, length)| *length <= cut);
            list.iter_mut().for_each(|(_, length)| *length = 0);
        }
    }
}

/// What a start finds.
#[derive(Default)]
struct Found {
    counts: HashMap<String, u64>,
    made: Vec<String>,
    revoked: Vec<String>,
    /// Sequence numbers that are reported as missing.
    missing: u64,
}

impl Found {
    /// Opens journal and cache as a start does, and reads all that is there.
    fn on(data: &Path) -> Result<Self, String> {
        let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
        let metrics = Arc::new(Metrics::new());
        let config = journal::Config {
            interval: Span::secs(24 * 3600),
            ballast: Size(0),
            ..journal::Config::default()
        };
        let (journal, state) = Journal::open(data, config, clock.clone(), entropy, metrics.clone())
            .map_err(|error| error.to_string())?;
        let mut found = Self::default();
        for fact in state {
            match fact {
                StateFact::KeyCreated(key) => found.made.push(key.id.to_string()),
                StateFact::Revoked(revocation) => found.revoked.push(revocation.id.to_string()),
                _ => {}
            }
        }
        let mut count = |fact: gatepost::model::fact::UsageFact| {
            *found.counts.entry(fact.counter.key_id.to_string()).or_default() +=
                fact.counts.requests;
        };
        journal.unsettled_usage(None, &mut count).map_err(|error| error.to_string())?;
        journal.examine(&|| false);
        found.missing = Lane::ALL
            .iter()
            .flat_map(|lane| journal.segments(*lane))
            .map(|s| s.missing().chunks)
            .sum();
        journal.shutdown().map_err(|error| error.to_string())?;
        let tasks = TaskTracker::new();
        let config = cache::Config::default();
        Cache::open(data, config, Declared::default(), None, clock, metrics, tasks)
            .map_err(|error| error.to_string())?;
        // The cache is disposable, and began anew; the journal never does. (A state segment that
        // the cut caught in a commit may say that it cannot vouch for what was on its way.)
        let mut aside = journal.status().quarantined;
        aside.retain(|report| report.stream.is_some());
        found.missing += aside.iter().map(|report| report.missing.chunks).sum::<u64>();
        aside.retain(|report| report.missing.exact || report.lane != Lane::State.as_str());
        if aside.is_empty() { Ok(found) } else { Err(format!("set aside: {aside:?}")) }
    }

    /// Whether it is what clients were told.
    fn keeps(
        &self,
        known: &Known,
        cut: u64,
        kept: &dyn Fn(u64) -> Option<u64>,
    ) -> Result<(), String> {
        for (key, (least, most)) in known.bounds(cut, kept) {
            let found = self.counts.get(&key).copied().unwrap_or(0);
            if found < least || found > most {
                return Err(format!("durable {least} ≤ found {found} ≤ issued {most}, key {key}"));
            }
        }
        for (told, here, what) in
            [(&known.made, &self.made, "made"), (&known.revoked, &self.revoked, "revoked")]
        {
            for (id, _) in told.iter().filter(|(_, length)| *length <= cut) {
                if !here.contains(id) {
                    return Err(format!("key {id} was answered as {what}, and is not"));
                }
            }
        }
        Ok(())
    }
}

/// Under `interval` an answer is on disk when two commits have ended that began after it: the first
/// may have taken the window before. A new segment's files are synced besides. Returns the length
/// of the record at which it is.
fn kept_after(commits: &[(u64, u64)], answered: u64) -> Option<u64> {
    commits.iter().filter(|(began, _)| *began >= answered).map(|(_, ended)| *ended).nth(3)
}

async fn ask(gateway: &Gateway, key: &Made) -> (String, Asked) {
    let recorded = || gateway.shim.as_ref().expect("a shim").recorded();
    let before = recorded();
    let answer = gateway.http().authorize(&key.key).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    (key.id.clone(), Asked { before, answered: recorded() })
}

/// One life under load: what was asked and answered, and what reached the disk.
async fn live(gateway: &mut Gateway, known: &mut Known, scene: Scene) -> Record {
    let before = Tree::of(gateway.dir());
    gateway.start().await;
    let path = gateway.shim.as_ref().expect("a shim").record();
    let recorded = |gateway: &Gateway| gateway.shim.as_ref().expect("a shim").recorded();
    // The life before may have left it.
    let made = gateway.control(Method::POST, "/clients", r#"{"name":"acme"}"#).await;
    assert!([201, 409].contains(&made.expect("an answer").status));
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        let made = gateway.create_key("acme").await;
        known.made.push((made.id.clone(), recorded(gateway)));
        keys.push(made);
    }
    let gateway_now = &*gateway;
    let callers = (0..CALLERS).map(|caller| {
        let keys = &keys;
        async move {
            let mut asked = Vec::new();
            for turn in 0..TURNS {
                asked.push(ask(gateway_now, &keys[(caller + turn) % (KEYS - 1)]).await);
            }
            asked
        }
    });
    let revoke = async {
        let id = &keys[KEYS - 1].id;
        let answer = gateway_now.control(Method::POST, &format!("/keys/{id}/revoke"), "").await;
        assert_eq!(answer.expect("an answer").status, 200);
        (id.clone(), recorded(gateway_now))
    };
    let (asked, revoked) = futures_util::join!(futures_util::future::join_all(callers), revoke);
    let first = known.requests.len();
    known.requests.extend(asked.into_iter().flatten());
    known.revoked.push(revoked);
    let mut enough = false;
    for _ in 0..TURNS_MAX {
        let commits = || Record::read(before.clone(), &path).commits("usage");
        enough = (scene.strict
            || kept_after(&commits(), known.requests[first].1.answered).is_some())
            && (!scene.merging || gateway.merged("usage").await.expect("an answer") > 0);
        if enough {
            break;
        }
        known.requests.push(ask(gateway, &keys[0]).await);
    }
    assert!(enough, "in vain: commits, and merges");
    gateway.terminate().await;
    Record::read(before, &path)
}

/// Cuts the power many times in one life; returns what did not hold, and one of the images.
fn cut(
    record: &Record,
    known: &Known,
    scene: Scene,
    images: usize,
    dice: &Dice,
) -> (Vec<String>, Tree, u64, Found) {
    let commits = record.commits("usage");
    let merging = record.merging();
    assert!(merging.is_some() || !scene.merging, "nothing was merged");
    let mut broken = Vec::new();
    let mut last = None;
    for number in 0..images {
        // The last one at the end: nothing is asked for any more, and everything counts.
        let at_end = number == 0;
        let from = if dice.one_in(2) { merging.unwrap_or(0) } else { 0 };
        let calls = if at_end { record.len() } else { record.moment(from, dice) };
        let tree = record.cut(calls, dice);
        let length = record.length_after(calls);
        let dir = TempDir::with_prefix("gp-image-").expect("a directory");
        tree.write(dir.path());
        let data = dir.path().join("data");
        fs::create_dir_all(&data).expect("writable");
        let kept = |answered: u64| match at_end || scene.strict {
            true => Some(answered),
            false => kept_after(&commits, answered),
        };
        let found = Found::on(&data);
        match &found {
            Err(error) => broken.push(format!("cut after {calls} calls: {error}")),
            // (In the middle of a commit, what was on its way may be told of without being there.)
            Ok(Found { missing, .. }) if at_end && *missing > known.missing => {
                let before = known.missing;
                let law =
                    format!("at the end {missing} sequence numbers are missing, not {before}");
                broken.push(law);
            }
            Ok(found) => {
                let held = found.keeps(known, length, &kept);
                broken.extend(held.err().map(|law| format!("cut after {calls} calls: {law}")));
            }
        }
        if let Ok(found) = found
            && !at_end
        {
            last = Some((tree, length, found));
        }
    }
    let (tree, length, found) = last.expect("one image that opens");
    (broken, tree, length, found)
}

async fn whatever_was_answered_is_there(scene: Scene) {
    let dice = Dice::new();
    let (lives, images) = match (long(), scene.merging) {
        (true, false) => (8, 100),
        (true, true) => (4, 50),
        (false, false) => (2, 40),
        // Each has many segments.
        (false, true) => (2, 10),
    };
    let mut known = Known::default();
    let mut left: Option<Tree> = None;
    for life in 1..=lives {
        let mut gateway = Gateway::new(None, &settings(scene));
        let Some(shim) = Shim::below(gateway.dir()) else { return };
        gateway.shim = Some(shim.recording());
        if let Some(left) = left.take() {
            // Its own configuration stays: that of the life before names another directory.
            let file = gateway.dir().join("gatepost.toml");
            let own = fs::read(&file).expect("readable");
            left.write(gateway.dir());
            fs::write(file, own).expect("writable");
        }
        let record = live(&mut gateway, &mut known, scene).await;
        let (seen, there) = (record.whole(), Tree::of(gateway.dir()));
        assert_eq!(seen.unlike(&there), Vec::<PathBuf>::new(), "the shim does not see everything");
        let (broken, tree, length, found) = cut(&record, &known, scene, images, &dice);
        assert!(broken.is_empty(), "life {life}:\n{}", broken.join("\n"));
        known.after(length, &found);
        left = Some(tree);
    }
}

fn settings(Scene { commit, segment, .. }: Scene) -> String {
    format!(
        "[journal]\ncommit = \"{commit}\"\ninterval = \"5ms\"\nsegment_max_bytes = \"{segment}\"\n\
         ballast = \"64KiB\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_answered_before_reply() {
    whatever_was_answered_is_there(BEFORE_REPLY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_no_more_than_the_interval() {
    whatever_was_answered_is_there(INTERVAL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_while_a_backlog_is_merged_loses_nothing_and_counts_nothing_twice() {
    whatever_was_answered_is_there(MERGING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_that_forgets_its_syncs_the_same_look_finds_the_loss() {
    let mut gateway = Gateway::new(None, &settings(BEFORE_REPLY));
    let Some(shim) = Shim::below(gateway.dir()) else { return };
    gateway.shim = Some(shim.recording().forgetful());
    let mut known = Known::default();
    let record = live(&mut gateway, &mut known, BEFORE_REPLY).await;
    let (broken, ..) = cut(&record, &known, BEFORE_REPLY, 20, &Dice::new());
    assert!(!broken.is_empty(), "nothing was lost without syncs: the test sees nothing");
}
