//! `kill -9` of the real program at random moments, under load, through outages of Postgres: the
//! law of the journal, key by key, again after every ten rounds.
//!
//! 25 rounds in each commit mode; 500 with `GATEPOST_LONG=1`, or as many as `GATEPOST_ROUNDS` says.
//! `GATEPOST_SEED` repeats the choices of a run; what the operating system does in between is not
//! repeatable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::http::Method;
use tokio::task::JoinSet;

use crate::support::database::Database;
use crate::support::dice::{Dice, long, setting};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Made, until};

const KEYS: usize = 4;
const CALLERS: usize = 6;

/// Rounds from one comparison to the next: what was sent and not answered is all that may be
/// counted or not, and of many rounds that would be much.
const COMPARED: u32 = 10;

/// Whoever takes longer to start is not well, on any machine. On one that is idle it is a tenth of
/// the two seconds that are promised.
const START_MAX: Duration = Duration::from_secs(40);

fn any_fault(dice: &Dice) -> Fault {
    match dice.below(9) {
        0 => Fault::Cut,
        1 => Fault::BlackHole,
        2 => Fault::CutBeforeCommit,
        3 => Fault::CutAfterCommit,
        4 => Fault::FreezeAfterCommit,
        5 => Fault::Delay(Duration::from_millis(20)),
        _ => Fault::None,
    }
}

/// One key, and what its callers know.
struct Known {
    made: Made,
    /// Requests that were sent: I.
    sent: AtomicU64,
    /// Requests that were answered.
    answered: AtomicU64,
    /// Those among them that a successful drain has covered, in the rounds before and in this one.
    drained: [AtomicU64; 2],
}

impl Known {
    fn counts(&self) -> (u64, u64) {
        (self.answered.load(SeqCst), self.sent.load(SeqCst))
    }

    /// What the gateway has said to be durable, by an answer or only by a drain: D.
    fn durable(&self, strict: bool) -> u64 {
        let [before, now] = &self.drained;
        if strict { self.counts().0 } else { before.load(SeqCst) + now.load(SeqCst) }
    }

    /// The gateway was killed: what it said holds, and the next one says nothing yet.
    fn next_round(&self) {
        let [before, now] = &self.drained;
        before.fetch_add(now.swap(0, SeqCst), SeqCst);
    }
}

/// A gateway, and Postgres behind a bad line.
struct Scene {
    db: Database,
    line: FaultProxy,
    gateway: Gateway,
    keys: Arc<Vec<Known>>,
    dice: Dice,
    /// The longest that a start took.
    slowest: Duration,
    /// What was durable, in Postgres and sent when it was compared last, by key.
    compared: Vec<[u64; 3]>,
}

/// Callers at work.
struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Returns when all callers have stopped of themselves, or have lost the gateway.
    async fn ended(mut self) {
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
    }
}

impl Scene {
    async fn new(commit: &str) -> Self {
        let db = Database::new().await;
        let line = FaultProxy::new(&db.url);
        // Longer than most lives: it goes on over restarts, or each start would read all there is.
        let settings = format!(
            "[journal]\ncommit = \"{commit}\"\ninterval = \"5ms\"\nretention = \"2s\"\n\
             [drain]\ninterval = \"20ms\"\ndeadline = \"1s\"\n\
             [postgres]\nconnect_timeout = \"300ms\"\npoll_interval = \"200ms\"\n"
        );
        let mut gateway = Gateway::new(Some(&line.url(&db.url)), &settings);
        gateway.start_ready().await;
        gateway.create_client("acme").await;
        let mut keys = Vec::new();
        for _ in 0..KEYS {
            let made = gateway.create_key("acme").await;
            let (sent, answered, drained) = Default::default();
            keys.push(Known { made, sent, answered, drained });
        }
        gateway.kill9();
        let (slowest, compared) = (Duration::ZERO, vec![[0; 3]; KEYS]);
        Self { db, line, gateway, keys: Arc::new(keys), dice: Dice::new(), slowest, compared }
    }

    async fn start(&mut self) {
        let begin = Instant::now();
        self.gateway.start().await;
        self.slowest = self.slowest.max(begin.elapsed());
        assert!(begin.elapsed() < START_MAX, "it starts in {:?}", begin.elapsed());
    }

    /// Callers that ask as fast as they are answered, until told to stop or the gateway is gone.
    fn load(&self) -> Load {
        let (mut callers, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for caller in 0..CALLERS {
            let (http, keys) = (self.gateway.http().clone(), Arc::clone(&self.keys));
            let stopped = Arc::clone(&stop);
            callers.spawn(async move {
                for turn in caller.. {
                    if stopped.load(SeqCst) {
                        return;
                    }
                    let known = &keys[turn % KEYS];
                    known.sent.fetch_add(1, SeqCst);
                    let Some(answer) = http.authorize(&known.made.key).await else { return };
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    known.answered.fetch_add(1, SeqCst);
                }
            });
        }
        Load { callers, stop }
    }

    /// Start, load, some faults, and a kill, at moments that the dice choose.
    async fn round(&mut self) {
        self.line.set(any_fault(&self.dice));
        if self.dice.one_in(8) {
            let moment = self.dice.millis(100);
            return self.gateway.start_and_kill9_after(moment).await;
        }
        self.start().await;
        let at_first: Vec<_> = self.keys.iter().map(|known| known.counts().0).collect();
        let load = self.load();
        for _ in 0..self.dice.below(4) {
            tokio::time::sleep(self.dice.millis(100)).await;
            match self.dice.below(4) {
                0 => self.acknowledge(&at_first).await,
                1 => {
                    let carried_out = self.dice.one_in(2);
                    let (before, after) = (Fault::CutBeforeCommit, Fault::CutAfterCommit);
                    self.doubt(if carried_out { after } else { before }, &at_first).await;
                }
                _ => self.line.set(any_fault(&self.dice)),
            }
        }
        tokio::time::sleep(self.dice.millis(100)).await;
        self.gateway.kill9();
        load.ended().await;
        self.keys.iter().for_each(Known::next_round);
    }

    /// A COMMIT whose fate the gateway cannot know, and then the chance to send again what it must
    /// not.
    async fn doubt(&self, fault: Fault, at_first: &[u64]) {
        self.acknowledge(at_first).await;
        let before = self.line.lost();
        self.line.set(fault);
        until("a COMMIT is lost", async || {
            self.drain().await;
            self.line.lost() != before
        })
        .await;
        self.acknowledge(at_first).await;
    }

    /// The law, of what came since it was looked at last. All is in Postgres, and nobody asks.
    async fn compare(&mut self, strict: bool) -> HashMap<String, u64> {
        let applied = self.settled().await;
        for (known, compared) in self.keys.iter().zip(&mut self.compared) {
            let (_, issued) = known.counts();
            let now =
                [known.durable(strict), applied.get(&known.made.id).copied().unwrap_or(0), issued];
            let [durable, applied, issued] = [0, 1, 2].map(|at| now[at] - compared[at]);
            let law = format!("durable {durable} ≤ applied {applied} ≤ issued {issued}");
            assert!(durable <= applied && applied <= issued, "{law}, key {}", known.made.id);
            *compared = now;
        }
        applied
    }

    /// Whether everything that was recorded before is in Postgres now.
    async fn drain(&self) -> bool {
        let answer = self.gateway.control(Method::POST, "/log/drain", "").await;
        answer.unwrap().status == 200
    }

    /// What was answered before a successful drain began is durable, in both modes. `at_first` were
    /// the answers of earlier rounds.
    async fn acknowledge(&self, at_first: &[u64]) {
        self.line.set(Fault::None);
        let answered: Vec<u64> = self.keys.iter().map(|known| known.counts().0).collect();
        if self.drain().await {
            let counts = answered.iter().zip(at_first).map(|(now, before)| now - before);
            for (known, count) in self.keys.iter().zip(counts) {
                known.drained[1].store(count, SeqCst);
            }
        }
    }

    /// What Postgres has, by key id. Every table of sums must tell the same.
    async fn applied(&self) -> HashMap<String, u64> {
        let sql = "SELECT key_id::text, requests FROM gatepost.key_activity";
        let mut conn = self.db.connect().await;
        let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut conn).await.unwrap();
        let applied: HashMap<_, _> =
            rows.into_iter().map(|(id, requests)| (id, requests.try_into().unwrap())).collect();
        let total = i64::try_from(applied.values().sum::<u64>()).unwrap();
        for other in [
            "SELECT total_requests FROM gatepost.client_statistics",
            "SELECT successful_requests FROM gatepost.client_statistics",
            "SELECT total_operations FROM gatepost.client_table_statistics",
            "SELECT sum(requests)::bigint FROM gatepost.usage_hourly",
        ] {
            assert_eq!(self.db.number(other).await, total, "{other}");
        }
        assert_eq!(self.db.number("SELECT count(*) FROM gatepost.dead_letters").await, 0);
        applied
    }

    /// Heals the line, starts once more, and drains.
    async fn settled(&mut self) -> HashMap<String, u64> {
        self.line.set(Fault::None);
        self.start().await;
        self.gateway.drain().await;
        self.applied().await
    }
}

#[expect(clippy::print_stderr, reason = "the figures of a long run are kept")]
fn say(line: &str) {
    eprintln!("kill: {line}");
}

fn rounds() -> u32 {
    setting("GATEPOST_ROUNDS").unwrap_or(if long() { 500 } else { 25 })
}

async fn the_law_holds(commit: &str, strict: bool) {
    let mut scene = Scene::new(commit).await;
    let begin = Instant::now();
    for round in 1..=rounds() {
        scene.round().await;
        if round % COMPARED == 0 {
            scene.compare(strict).await;
            scene.gateway.kill9();
        }
    }
    // One of each kind at least, whatever the dice have said.
    scene.start().await;
    let at_first: Vec<_> = scene.keys.iter().map(|known| known.counts().0).collect();
    let load = scene.load();
    for fault in [Fault::CutBeforeCommit, Fault::CutAfterCommit] {
        scene.doubt(fault, &at_first).await;
    }
    scene.gateway.kill9();
    load.ended().await;
    scene.keys.iter().for_each(Known::next_round);
    let before = scene.compare(strict).await;
    assert!(scene.keys.iter().all(|known| known.counts().0 > 0), "no load");
    let (lost, slowest, took) = (scene.line.lost(), scene.slowest, begin.elapsed());
    say(&format!(
        "{commit}: {} rounds in {took:.0?}, the slowest start {slowest:.1?}, {lost:?}",
        rounds()
    ));
    assert!(lost.unanswered > 0 && lost.unsent > 0, "{lost:?}");

    // No crash: to the last one, in both modes.
    let at_first: Vec<_> = scene.keys.iter().map(Known::counts).collect();
    let load = scene.load();
    tokio::time::sleep(Duration::from_millis(200)).await;
    load.stop.store(true, SeqCst);
    load.ended().await;
    scene.gateway.terminate().await;
    let after = scene.settled().await;
    for (known, (answered, issued)) in scene.keys.iter().zip(at_first) {
        let (now_answered, now_issued) = known.counts();
        let applied = after[&known.made.id] - before.get(&known.made.id).copied().unwrap_or(0);
        assert_eq!((applied, applied), (now_answered - answered, now_issued - issued));
    }
    scene.gateway.terminate().await;
    assert!(!scene.gateway.data_dir().join("quarantine").exists(), "nothing was damaged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_what_was_answered_is_counted_once_before_reply() {
    the_law_holds("before_reply", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_is_counted_twice_with_an_interval() {
    the_law_holds("interval", false).await;
}
