//! Callers who ask at a fixed rate, whatever becomes of them: latency counts from the moment at
//! which each request should have been sent, so that a stall costs all who came in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::http::Method;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::gateway::Http;
use crate::clock::SharedClock;

/// Requests a second, of all callers.
const RATE: u32 = 500;

/// Callers, each with its share of the schedule and one request under way at most. One that is
/// behind catches up, and its delay counts.
const CALLERS: u32 = 64;

/// One counter, and what its callers know.
pub(super) struct Known {
    pub client: String,
    pub key_id: String,
    pub table: &'static str,
    pub operation: &'static str,
    method: &'static str,
    uri: String,
    credential: String,
    /// Requests that were sent.
    issued: AtomicU64,
    /// Those among them that were answered, and so are on disk.
    answered: AtomicU64,
}

impl Known {
    /// Requests of `table` with `key`, which has `key_id` and belongs to `client`.
    pub fn new(
        client: &str,
        (key_id, key): &(String, String),
        table: &'static str,
        (operation, method): (&'static str, &'static str),
    ) -> Self {
        Self {
            client: client.to_owned(),
            key_id: key_id.clone(),
            table,
            operation,
            method,
            uri: format!("/{table}"),
            credential: format!("Bearer {key}"),
            issued: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// How many were answered, and how many sent.
    pub fn counts(&self) -> (u64, u64) {
        (self.answered.load(SeqCst), self.issued.load(SeqCst))
    }
}

/// What callers saw in one phase.
#[derive(Default)]
pub(super) struct Seen {
    /// From the intended moment to the answer, of all that were answered with 200.
    pub micros: Vec<u32>,
    /// Other answers, and none, from a gateway that lived.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// What callers saw in all.
#[derive(Default)]
pub(super) struct Outcome {
    /// By phase, in order.
    pub phases: Vec<Seen>,
    /// Not answered because the gateway was killed meanwhile, or not yet back.
    pub down: u64,
}

impl Outcome {
    /// Of a caller that has ended before the others, and what it knew with it.
    fn broken(ended: &JoinError) -> Self {
        let mut outcome = Self::default();
        let seen = outcome.of(0);
        (seen.errors, seen.first_error) = (1, Some(format!("a caller of the drill: {ended}")));
        outcome
    }

    fn of(&mut self, phase: usize) -> &mut Seen {
        if self.phases.len() <= phase {
            self.phases.resize_with(phase + 1, Seen::default);
        }
        &mut self.phases[phase]
    }
}

/// One life of the gateway, or none.
type Life = Option<Arc<Http>>;

struct Shared {
    known: Vec<Known>,
    clock: SharedClock,
    phase: AtomicUsize,
    life: watch::Sender<Life>,
    stop: CancellationToken,
}

/// See the module. Dropping it ends the callers where they are.
pub(super) struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<Outcome>,
}

impl Load {
    /// Begins the first phase.
    pub fn start(known: Vec<Known>, http: Http, clock: SharedClock) -> Self {
        let now = clock.monotonic();
        let shared = Arc::new(Shared {
            known,
            clock,
            phase: AtomicUsize::new(0),
            life: watch::Sender::new(Some(Arc::new(http))),
            stop: CancellationToken::new(),
        });
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(Arc::clone(&shared).call(caller, now));
        }
        Self { shared, callers }
    }

    /// From now on requests belong to the next phase.
    pub fn next_phase(&self) {
        self.shared.phase.fetch_add(1, SeqCst);
    }

    /// The gateway is about to be killed.
    pub fn lost(&self) {
        self.shared.life.send_replace(None);
    }

    /// The gateway serves again.
    pub fn found(&self, http: Http) {
        self.shared.life.send_replace(Some(Arc::new(http)));
    }

    /// Lets every request under way come to its end. What was known of each counter, and what was
    /// seen.
    pub async fn end(mut self) -> (Vec<(Known, (u64, u64))>, Outcome) {
        self.shared.stop.cancel();
        let mut all = Outcome::default();
        while let Some(outcome) = self.callers.join_next().await {
            let outcome = outcome.unwrap_or_else(|ended| Outcome::broken(&ended));
            all.down += outcome.down;
            for (phase, seen) in outcome.phases.into_iter().enumerate() {
                all.of(phase).add(seen);
            }
        }
        let known = Arc::try_unwrap(self.shared).map(|shared| shared.known).unwrap_or_default();
        let known = known.into_iter().map(|known| {
            let counts = known.counts();
            (known, counts)
        });
        (known.collect(), all)
    }
}

impl Shared {
    /// One caller's share of the schedule, until stopped.
    async fn call(self: Arc<Self>, caller: u32, start: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        for turn in (caller..).step_by(CALLERS as usize) {
            let due = start + Duration::from_secs(1) * turn / RATE;
            let wait = due.saturating_sub(self.clock.monotonic());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
            if self.stop.is_cancelled() {
                break;
            }
            self.ask(turn as usize, due, &mut outcome).await;
        }
        outcome
    }

    async fn ask(&self, turn: usize, due: Duration, outcome: &mut Outcome) {
        let mut life = self.life.subscribe();
        let Some(http) = life.borrow_and_update().clone() else {
            outcome.down += 1;
            return;
        };
        let known = &self.known[turn % self.known.len()];
        let phase = self.phase();
        known.issued.fetch_add(1, SeqCst);
        let headers = [
            ("authorization", known.credential.as_str()),
            ("x-forwarded-method", known.method),
            ("x-forwarded-uri", known.uri.as_str()),
        ];
        let answer = http.ask(Method::GET, "/authz/forward-auth", &headers, None).await;
        let took = self.clock.monotonic().saturating_sub(due);
        let error = match answer {
            Some(answer) if answer.status == 200 => {
                known.answered.fetch_add(1, SeqCst);
                let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                outcome.of(phase).micros.push(micros);
                return;
            }
            Some(answer) => {
                format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body))
            }
            // Told before the signal was sent: what broke before was no kill.
            None if life.has_changed().unwrap_or(true) => {
                outcome.down += 1;
                return;
            }
            None => "no answer".to_owned(),
        };
        let seen = outcome.of(phase);
        seen.errors += 1;
        seen.first_error.get_or_insert(error);
    }

    /// What is going on. A request belongs to the phase in which it was sent, also where it waits
    /// for its answer until another one: what holds it up is what came then.
    fn phase(&self) -> usize {
        self.phase.load(SeqCst)
    }
}
