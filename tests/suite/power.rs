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

/// One life under load: what was asked and answered, and what reached the disk.
async fn live(gateway: &mut Gateway, known: &mut Known) -> Record {
    let before = Tree::of(gateway.dir());
    gateway.start().await;
    let recorded = |gateway: &Gateway| gateway.shim.as_ref().expect("a shim").recorded();
    // The life before may have left it.
    let made = gateway.control(Method::POST, "/clients", r#"{"name":"acme"}"#).await;
    assert!([201, 409].contains(&made.expect("an answer").status));
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        let Made { id, key } = gateway.create_key("acme").await;
        known.made.push((id.clone(), recorded(gateway)));
        keys.push((id, key));
    }
    let gateway_now = &*gateway;
    let callers = (0..CALLERS).map(|caller| {
        let keys = &keys;
        async move {
            let mut asked = Vec::new();
            for turn in 0..TURNS {
                let (id, key) = &keys[(caller + turn) % (KEYS - 1)];
                let before = recorded(gateway_now);
                let answer = gateway_now.http().authorize(key).await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.body);
                asked.push((id.clone(), Asked { before, answered: recorded(gateway_now) }));
            }
            asked
        }
    });
    let revoke = async {
        let (id, _) = &keys[KEYS - 1];
        let answer = gateway_now.control(Method::POST, &format!("/keys/{id}/revoke"), "").await;
        assert_eq!(answer.expect("an answer").status, 200);
        (id.clone(), recorded(gateway_now))
    };
    let (asked, revoked) = futures_util::join!(futures_util::future::join_all(callers), revoke);
    known.requests.extend(asked.into_iter().flatten());
    known.revoked.push(revoked);
    gateway.terminate().await;
    let record = gateway.shim.as_ref().expect("a shim").record();
    Record::read(before, &record)
}

/// Cuts the power many times in one life; returns what did not hold, and one of the images.
fn cut(
    record: &Record,
    known: &Known,
    strict: bool,
    images: usize,
    dice: &Dice,
) -> (Vec<String>, Tree, u64, Found) {
    let usage = record.syncs(|path| path.contains("/journal/usage/") && path.ends_with("/db"));
    // Under `interval` an answer is on disk when two commits have ended that began after it: the
    // first may have taken the window before. A new segment's files are synced besides.
    let kept = |answered: u64| {
        if strict {
            return Some(answered);
        }
        usage.iter().filter(|(began, _)| *began >= answered).map(|(_, ended)| *ended).nth(3)
    };
    let mut broken = Vec::new();
    let mut last = None;
    for number in 0..images {
        // The last one at the end: nothing is asked for any more, and everything counts.
        let calls = if number == 0 { record.len() } else { record.moment(dice) };
        let tree = record.cut(calls, dice);
        let length = record.length_after(calls);
        let dir = TempDir::with_prefix("gp-image-").expect("a directory");
        tree.write(dir.path());
        let data = dir.path().join("data");
        fs::create_dir_all(&data).expect("writable");
        let found = Found::on(&data);
        match &found {
            Err(error) => broken.push(format!("cut after {calls} calls: {error}")),
            // (In the middle of a commit, what was on its way may be told of without being there.)
            Ok(Found { missing, .. }) if number == 0 && *missing > 0 => {
                broken.push(format!("at the end {missing} sequence numbers are missing"));
            }
            Ok(found) => {
                let held = found.keeps(known, length, &kept);
                broken.extend(held.err().map(|law| format!("cut after {calls} calls: {law}")));
            }
        }
        if let Ok(found) = found
            && number > 0
        {
            last = Some((tree, length, found));
        }
    }
    let (tree, length, found) = last.expect("one image that opens");
    (broken, tree, length, found)
}

async fn whatever_was_answered_is_there(commit: &str, strict: bool) {
    let dice = Dice::new();
    let (lives, images) = if long() { (8, 100) } else { (2, 40) };
    let mut known = Known::default();
    let mut left: Option<Tree> = None;
    for _ in 0..lives {
        let mut gateway = Gateway::new(None, &settings(commit));
        let Some(shim) = Shim::below(gateway.dir()) else { return };
        gateway.shim = Some(shim.recording());
        if let Some(left) = left.take() {
            // Its own configuration stays: that of the life before names another directory.
            let file = gateway.dir().join("gatepost.toml");
            let own = fs::read(&file).expect("readable");
            left.write(gateway.dir());
            fs::write(file, own).expect("writable");
        }
        let record = live(&mut gateway, &mut known).await;
        let (seen, there) = (record.whole(), Tree::of(gateway.dir()));
        assert_eq!(seen.unlike(&there), Vec::<PathBuf>::new(), "the shim does not see everything");
        let (broken, tree, length, found) = cut(&record, &known, strict, images, &dice);
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        known.after(length, &found);
        left = Some(tree);
    }
}

fn settings(commit: &str) -> String {
    format!(
        "[journal]\ncommit = \"{commit}\"\ninterval = \"5ms\"\nsegment_max_bytes = \"4KiB\"\n\
         ballast = \"64KiB\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_answered_before_reply() {
    whatever_was_answered_is_there("before_reply", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_no_more_than_the_interval() {
    whatever_was_answered_is_there("interval", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_that_forgets_its_syncs_the_same_look_finds_the_loss() {
    let mut gateway = Gateway::new(None, &settings("before_reply"));
    let Some(shim) = Shim::below(gateway.dir()) else { return };
    gateway.shim = Some(shim.recording().forgetful());
    let mut known = Known::default();
    let record = live(&mut gateway, &mut known).await;
    let (broken, ..) = cut(&record, &known, true, 20, &Dice::new());
    assert!(!broken.is_empty(), "nothing was lost without syncs: the test sees nothing");
}
