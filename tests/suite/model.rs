//! The law of the journal against a model that is a few numbers: random sequences of counting
//! requests and quotas, committing, merging, draining, unknown commits, cut connections, restarts,
//! kills and clones.
//!
//! Per counter, `applied ≤ issued` after every step; in the end `applied = issued` where nothing
//! was killed, and `durable ≤ applied ≤ issued` where something was. Every other seed also
//! restores old copies of the data directory, fails over to a Postgres that lags, merges what a
//! copy drains, and replays what old copies hold, merged or not: there facts are lost with what was
//! replaced, and what must hold is `applied ≤ issued`.
//!
//! A failure names its seed: it goes to `model.seeds`, and is run first ever after. `GATEPOST_SEED`
//! runs one alone, `GATEPOST_LONG` many more.

use std::collections::BTreeSet;
use std::time::Duration;

use gatepost::entropy::{Entropy, SeededEntropy, SystemEntropy};
use gatepost::journal::{MergeError, Scope};
use gatepost::model::Timestamp;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::in_process::{Gateway, clone, drain};
use crate::support::postgres::{id, quota, revoked, usage};

const COUNTERS: usize = 32;
const STEPS: u64 = 25;

const TOTALS: &str = "SELECT table_name, total_operations::bigint \
        FROM gatepost.client_table_statistics \
    UNION ALL SELECT 'clients', coalesce(sum(total_requests), 0)::bigint \
        FROM gatepost.client_statistics \
    UNION ALL SELECT 'hours', coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly \
    UNION ALL SELECT 'q' || scope, used FROM gatepost.quota_usage \
    UNION ALL SELECT 'keys', coalesce(sum(requests), 0)::bigint FROM gatepost.key_activity";

/// What a replica has that lags: everything that is summed, and the ledger.
const REMEMBER: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; \
    DROP TABLE IF EXISTS c, t, k, h, q, l; \
    CREATE TABLE c AS TABLE gatepost.client_totals; \
    CREATE TABLE t AS TABLE gatepost.client_table_totals; \
    CREATE TABLE k AS TABLE gatepost.key_totals; \
    CREATE TABLE h AS TABLE gatepost.hourly_totals; \
    CREATE TABLE q AS TABLE gatepost.quota_totals; \
    CREATE TABLE l AS TABLE gatepost.stream_ledger; COMMIT";
const FAIL_OVER: &str = "BEGIN; \
    LOCK gatepost.stream_ledger, gatepost.client_totals, gatepost.client_table_totals, \
      gatepost.key_totals, gatepost.hourly_totals, gatepost.quota_totals; \
    DELETE FROM gatepost.stream_ledger; DELETE FROM gatepost.client_totals; \
    DELETE FROM gatepost.client_table_totals; DELETE FROM gatepost.key_totals; \
    DELETE FROM gatepost.hourly_totals; DELETE FROM gatepost.quota_totals; \
    INSERT INTO gatepost.stream_ledger SELECT * FROM l; \
    INSERT INTO gatepost.client_totals SELECT * FROM c; \
    INSERT INTO gatepost.client_table_totals SELECT * FROM t; \
    INSERT INTO gatepost.key_totals SELECT * FROM k; \
    INSERT INTO gatepost.hourly_totals SELECT * FROM h; \
    INSERT INTO gatepost.quota_totals SELECT * FROM q; COMMIT";

/// Numbers that follow from a seed.
struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }
}

/// What must be true, whatever happens.
#[derive(Default)]
struct Model {
    /// Counted, per counter.
    issued: [u64; COUNTERS],
    /// Of these, not known to be on disk.
    pending: [u64; COUNTERS],
    /// Of these, those that a kill may have taken.
    perhaps_lost: [u64; COUNTERS],
    /// Revocations whose ticket was answered.
    revoked: BTreeSet<Uuid>,
    killed: bool,
    /// Something durable may be gone: a directory or a Postgres was replaced by an older one.
    replaced: bool,
}

impl Model {
    fn durable(&mut self) {
        self.pending = [0; COUNTERS];
    }

    fn kill(&mut self) {
        self.killed = true;
        for (lost, pending) in self.perhaps_lost.iter_mut().zip(&mut self.pending) {
            *lost += std::mem::take(pending);
        }
    }

    async fn check(&self, db: &Database, end: bool) {
        // One statement is one snapshot: the drainer tries again by itself meanwhile.
        let rows: Vec<(String, i64)> =
            sqlx::query_as(TOTALS).fetch_all(&mut db.connect().await).await.unwrap();
        let (mut applied, mut used) = ([0; COUNTERS], [0; COUNTERS]);
        let mut sums = Vec::new();
        for (name, total) in rows {
            let total = u64::try_from(total).unwrap();
            match name.split_at_checked(1).map(|(lane, counter)| (lane, counter.parse::<usize>())) {
                Some(("t", Ok(counter))) => applied[counter] = total,
                Some(("q", Ok(counter))) => used[counter] = total,
                _ => sums.push((name, total)),
            }
        }
        // Each request used as much of its counter's quota: a lane of its own, and the same law.
        for (lane, applied) in [("usage", applied), ("quota", used)] {
            for (counter, applied) in applied.into_iter().enumerate() {
                let issued = self.issued[counter];
                let seen = format!("{lane} {counter}: {applied} applied, {issued} issued");
                assert!(applied <= issued, "{seen}");
                let durable = issued - self.perhaps_lost[counter];
                assert!(!end || self.replaced || applied >= durable, "{seen}, {durable} durable");
            }
        }
        for (name, sum) in sums {
            assert_eq!(sum, applied.iter().sum::<u64>(), "{name}");
        }
        if end {
            let rows = sqlx::query_scalar("SELECT id FROM gatepost.revocations");
            let there: Vec<String> = rows.fetch_all(&mut db.connect().await).await.unwrap();
            let there: BTreeSet<Uuid> = there.iter().map(|id| id.parse().unwrap()).collect();
            let all = there.is_superset(&self.revoked);
            assert!(all || self.replaced, "a revocation was lost");
        }
    }
}

/// One run of a seed.
struct Run {
    dice: Dice,
    db: Database,
    proxy: FaultProxy,
    url: String,
    model: Model,
    /// None only while it restarts.
    gateway: Option<Gateway>,
    /// Directories and databases are replaced by older ones.
    hostile: bool,
    /// An old copy of the data directory.
    old: Option<TempDir>,
    /// An old copy of Postgres was made.
    remembered: bool,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let db = Database::new().await;
        let proxy = FaultProxy::new(&db.url);
        let url = proxy.url(&db.url);
        let gateway = Some(Gateway::new(&url));
        let dice = Dice(SeededEntropy::new(seed));
        let (hostile, model) = (seed % 2 == 1, Model::default());
        Self { dice, db, proxy, url, model, gateway, hostile, old: None, remembered: false }
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs")
    }

    fn count(&mut self) {
        for _ in 0..1 + self.dice.below(30) {
            let counter = usize::try_from(self.dice.below(COUNTERS as u64)).unwrap();
            let requests = 1 + self.dice.below(4);
            let fact = usage("acme", counter as u128, &format!("t{counter}"), requests);
            let room = self.gateway().journal.reserve().unwrap();
            // Whoever waits for the ticket is another step.
            let used = quota(&counter.to_string(), requests);
            let _unawaited = self.gateway().journal.use_quota(room, used.key, used.used);
            let _unawaited = self.gateway().journal.count(room, fact.counter, fact.counts);
            self.model.issued[counter] += requests;
            self.model.pending[counter] += requests;
        }
    }

    async fn flush(&mut self) {
        self.gateway().journal.flush().durable().await.unwrap();
        self.model.durable();
    }

    async fn revoke(&mut self) {
        let id = id(1000 + u128::from(self.dice.below(1 << 40)));
        let facts = vec![revoked(id, Timestamp::NEG_INFINITY)];
        self.gateway().journal.append(facts).unwrap().durable().await.unwrap();
        self.model.revoked.insert(id);
    }

    /// A drain during which something breaks; whether it succeeds is not known.
    async fn broken_drain(&mut self, fault: Fault) {
        self.proxy.set(fault);
        drop(self.gateway().drainer.drain_now().await);
        self.proxy.set(Fault::None);
    }

    /// The gateway ends in the middle of a drain, wherever that is.
    async fn broken_off_drain(&mut self) {
        let drainer = self.gateway().drainer.clone();
        let pause = Duration::from_micros(self.dice.below(20_000));
        drop(tokio::time::timeout(pause, drainer.drain_now()).await);
        self.gateway.as_mut().expect("it runs").stop_draining().await;
    }

    async fn restart(&mut self) {
        let data = self.gateway.take().expect("it runs").shut_down().await;
        self.model.durable();
        self.gateway = Some(Gateway::open(data, &self.url, None));
    }

    async fn kill(&mut self) {
        let data = self.gateway.take().expect("it runs").kill().await;
        self.model.kill();
        self.gateway = Some(Gateway::open(data, &self.url, None));
    }

    /// A backup of the stopped gateway is started beside it: both drain the same streams.
    async fn twins(&mut self) {
        self.restart().await;
        let twin = Gateway::open(clone(self.gateway().data.path()), &self.url, None);
        let both = tokio::join!(self.gateway().drainer.drain_now(), twin.drainer.drain_now());
        drop(both);
        drop(twin.shut_down().await);
    }

    /// What several commits left becomes one segment, if it is enough.
    async fn merge(&mut self) {
        for _ in 0..self.dice.below(12) {
            self.count();
            self.flush().await;
        }
        let merged = self.gateway().journal.merge(Scope::Own, &|| false);
        // A drain that failed before is tried again by itself, and goes first.
        assert!(matches!(merged, Ok(_) | Err(MergeError::Stopped)), "{merged:?}");
    }

    /// A copy is made of what is merged then, or drained; the copy drains before or after.
    async fn copy_of_the_merged(&mut self) {
        let twin = clone(self.gateway().data.path());
        self.merge().await;
        let later = self.dice.below(2) == 0;
        if later {
            drop(self.gateway().drainer.drain_now().await);
        }
        let twin = Gateway::open(twin, &self.url, None);
        drop(twin.drainer.drain_now().await);
        drop(twin.shut_down().await);
        // What the copy has drained takes what was merged with it out of the count.
        drop(self.gateway().drainer.drain_now().await);
        self.model.replaced |= self.gateway().metrics.drain.conflicts.get() > 0;
    }

    /// The directory is lost, and an old copy of it put in its place.
    async fn restore(&mut self) {
        let now = clone(self.gateway().data.path());
        let Some(old) = self.old.replace(now) else { return };
        drop(self.gateway.take().expect("it runs").kill().await);
        self.model.kill();
        self.model.replaced = true;
        self.gateway = Some(Gateway::open(old, &self.url, None));
    }

    /// Segments of an old copy are replayed, whatever became of their streams meanwhile: some are
    /// here or merged into what is here, and refused; of the others the ledger knows.
    fn replay_old(&mut self) {
        let Some(old) = &self.old else { return };
        for lane in ["quota", "usage"] {
            let Ok(streams) = old.path().join("journal").join(lane).read_dir() else { continue };
            for stream in streams.map(|entry| entry.unwrap().path()) {
                let journal = &self.gateway().journal;
                let Ok(replay) = journal.prepare_replay(stream.to_str().unwrap()) else { continue };
                journal.replay(&replay).unwrap();
                self.model.replaced = true;
            }
        }
    }

    async fn fail_over(&mut self) {
        if std::mem::replace(&mut self.remembered, true) {
            self.db.execute(FAIL_OVER).await;
            self.model.replaced = true;
        }
        self.db.execute(REMEMBER).await;
    }

    async fn step(&mut self) {
        if self.hostile {
            match self.dice.below(8) {
                0 => self.restore().await,
                1 => self.fail_over().await,
                2 => self.copy_of_the_merged().await,
                3 => self.replay_old(),
                _ => {}
            }
            self.model.check(&self.db, false).await;
        }
        match self.dice.below(23) {
            0..7 => self.count(),
            7..10 => self.flush().await,
            10 => self.revoke().await,
            11 => drain(self.gateway()).await,
            12 => self.broken_drain(Fault::CutBeforeCommit).await,
            13 | 14 => self.broken_drain(Fault::CutAfterCommit).await,
            15 => self.broken_drain(Fault::Cut).await,
            16 => {
                self.broken_off_drain().await;
                self.kill().await;
            }
            17 => self.restart().await,
            18 => self.kill().await,
            19..22 => self.merge().await,
            _ => self.twins().await,
        }
        self.model.check(&self.db, false).await;
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            self.step().await;
        }
        drain(self.gateway()).await;
        self.model.durable();
        self.model.check(&self.db, true).await;
        if !self.model.killed && !self.model.replaced {
            assert_eq!(self.model.perhaps_lost, [0; COUNTERS]);
        }
        // And nothing is left to send, also for those who come later.
        self.restart().await;
        drain(self.gateway()).await;
        self.model.check(&self.db, true).await;
        drop(self.gateway.take().expect("it runs").shut_down().await);
    }
}

/// Kept seeds first, then some that never were.
fn seeds() -> Vec<u64> {
    if let Some(seed) = std::env::var_os("GATEPOST_SEED") {
        return vec![seed.to_str().and_then(|seed| seed.parse().ok()).expect("a number")];
    }
    let kept = include_str!("model.seeds").lines().map(str::trim);
    let kept = kept.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let kept = kept.map(|line| line.parse().expect("a number"));
    let new = if std::env::var_os("GATEPOST_LONG").is_some() { 400 } else { 16 };
    let entropy = SystemEntropy::new();
    let fresh = (0..new).map(|_| {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    kept.chain(fresh).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_lies_between_what_is_durable_and_what_was_issued() {
    let at_once = tokio::sync::Semaphore::new(4);
    let runs = seeds().into_iter().map(async |seed| {
        let _turn = at_once.acquire().await.unwrap();
        let run = tokio::spawn(async move { Run::new(seed).await.run().await });
        run.await.unwrap_or_else(|error| {
            panic!("seed {seed}: {error}; add it to tests/suite/model.seeds")
        });
    });
    futures_util::future::join_all(runs).await;
}
