//! Reads of what is not in memory, on a disk that takes its time: who holds a lock that they need
//! stands for it. Each test has one thread that answers.

use std::sync::mpsc::RecvTimeoutError::Disconnected;

use super::*;
use crate::model::{Advance, Session};

/// Holds what a read needs until [`Slow::ends`].
struct Slow {
    end: std::sync::mpsc::Sender<()>,
    holding: std::thread::JoinHandle<bool>,
}

impl Slow {
    /// `hold` calls what it is given with the lock in its hands.
    async fn begin(hold: impl FnOnce(&mut dyn FnMut()) + Send + 'static) -> Self {
        let (end, ended) = std::sync::mpsc::channel();
        let (held, holds) = oneshot::channel();
        let holding = std::thread::spawn(move || {
            let (mut held, mut in_time) = (Some(held), false);
            hold(&mut || {
                held.take().expect("once").send(()).expect("the test waits");
                // Who waits for it on the thread of the test would wait for ever.
                in_time = ended.recv_timeout(Duration::from_secs(10)) == Err(Disconnected);
            });
            in_time
        });
        holds.await.expect("it holds");
        Self { end, holding }
    }

    fn ends(self) {
        drop(self.end);
        assert!(self.holding.join().expect("no panic"), "the thread that answers has waited");
    }
}

impl Bench {
    /// Whoever reads a key waits.
    async fn slow_disk(&self) -> Slow {
        let cache = self.cache.clone();
        Slow::begin(move |hold| {
            let _overlay = cache.overlay_mut();
            hold();
        })
        .await
    }

    /// How many are being read.
    fn reading(&self) -> usize {
        self.cache.config.disk_reads - self.cache.reads.free()
    }

    fn forget(&self, text: &str) {
        self.cache.hot.remove(&api_key::digest(text));
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let patience = Duration::from_secs(10);
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, waiting).await.expect("it comes to that");
}

#[tokio::test]
async fn a_key_that_is_read_from_a_slow_disk_holds_nobody_else_up() {
    let bench = Bench::new();
    bench.feed(1, vec![Change::Client(client_row(true, 1)), fed("cold", 1), fed("hot", 1)]);
    bench.find("hot").await.expect("no panic").expect("an answer").expect("a key");
    let strange = bench.find("strange");
    bench.hand.asked().await.send(nobody(1)).expect("it waits");
    assert!(strange.await.expect("no panic").expect("an answer").is_none());

    let slow = bench.slow_disk().await;
    let cold = bench.find("cold");
    until(|| bench.reading() == 1).await;
    assert!(bench.find("hot").await.expect("no panic").expect("an answer").is_some());
    let strange = bench.find("strange").await.expect("no panic").expect("an answer");
    assert!(strange.is_none(), "what is known to be absent is not looked for");
    assert!(!cold.is_finished());
    assert_eq!(bench.reading(), 1);
    slow.ends();
    let entry = cold.await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Active));
    assert_eq!(bench.cache.metrics.cache.disk_hits.get(), 2);
}

#[tokio::test]
async fn a_session_that_is_read_from_a_slow_disk_holds_nobody_else_up() {
    let config = Config { hot_sessions: 1, ..patient() };
    let bench = Bench::with(config, Declared { node: "gw".into(), ..Declared::default() });
    let id = Uuid::from_u128(1);
    bench.cache.keep_session(&session(id)).expect("a disk");
    bench.feed(1, vec![Change::Client(client_row(true, 1)), fed("hot", 1)]);
    bench.find("hot").await.expect("no panic").expect("an answer").expect("a key");

    let cache = bench.cache.clone();
    let slow = Slow::begin(move |hold| {
        let _turn = cache.session_turn(id);
        hold();
    });
    let slow = slow.await;
    let cache = bench.cache.clone();
    let cold = TaskTracker::new().spawn(async move { cache.find_session(id).await });
    until(|| bench.reading() == 1).await;
    assert!(bench.find("hot").await.expect("no panic").expect("an answer").is_some());
    assert!(!cold.is_finished());
    slow.ends();
    assert!(cold.await.expect("no panic").expect("an answer").is_some());
}

#[tokio::test]
async fn so_many_are_read_at_a_time_and_so_many_wait() {
    let config = Config { disk_reads: 2, max_waiting: 3, ..patient() };
    let bench = Bench::with(config, Declared::default());
    bench.feed(1, ["a", "b", "c", "d"].map(|text| fed(text, 1)).into());
    let slow = bench.slow_disk().await;
    let reading = ["a", "b"].map(|text| bench.find(text));
    until(|| bench.reading() == 2).await;
    let waiting = bench.find("c");
    until(|| bench.cache.metrics.cache.disk_waits.get() == 1).await;
    bench.find("d").await.expect("no panic").expect_err("three wait already");
    assert_eq!(bench.cache.metrics.cache.waiting_full.get(), 1);
    assert_eq!(bench.reading(), 2);
    slow.ends();
    for finding in reading.into_iter().chain([waiting]) {
        assert!(finding.await.expect("no panic").expect("an answer").is_some());
    }
    until(|| bench.reading() == 0).await;
}

/// It was revoked, and that was answered, while another who has it was being read.
#[tokio::test]
async fn nobody_joins_a_read_that_began_before_it_came() {
    let bench = Bench::new();
    bench.feed(1, vec![Change::Client(client_row(true, 1)), fed("k", 1)]);
    bench.find("k").await.expect("no panic").expect("an answer").expect("a key");
    bench.forget("k");
    let early = bench.find("k");
    tokio::task::yield_now().await;
    bench.cache.pin(&revoked("k"));
    let entry = bench.find("k").await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Revoked));
    early.await.expect("no panic").expect("an answer").expect("a key");
    let entry = bench.find("k").await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Revoked));
}

fn session(id: Uuid) -> Session {
    Session {
        id,
        node: "gw".into(),
        subject: "alice".into(),
        client: "acme".into(),
        scopes: Vec::new(),
        created_at: START,
        expires_at: Timestamp(i64::MAX),
        advance: Advance { generation: 0, at: START },
        revoked_at: None,
        recovered_at: None,
    }
}
