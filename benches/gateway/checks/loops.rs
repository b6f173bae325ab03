//! Both loops, against callers that are slow, refuse, break off, or never answer. The open one in
//! time that the tests move.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::load::closed::Closed;
use crate::load::open::{Open, Timeline};
use crate::load::{Caller, Load};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What becomes of a request, by its number.
#[derive(Clone, Copy)]
enum Fate {
    Hoped,
    Refused,
    Broken,
    /// As hoped, when [`CLOSED`] is over.
    Late,
    Silent,
}

/// Each answer takes a millisecond, and none is given between these moments.
struct Server<F> {
    stall: Option<(Instant, Instant)>,
    asked: AtomicU64,
    fate: F,
}

impl<F: Fn(u64) -> Fate + Sync> Server<F> {
    fn new(stall: Option<(Instant, Instant)>, fate: F) -> Self {
        Self { stall, asked: AtomicU64::new(0), fate }
    }

    async fn answer(&self) -> Result<bool> {
        let fate = (self.fate)(self.asked.fetch_add(1, SeqCst));
        sleep(MS).await;
        if let Some((from, to)) = self.stall
            && (from..to).contains(&Instant::now())
        {
            sleep_until(to).await;
        }
        match fate {
            Fate::Hoped => Ok(true),
            Fate::Refused => Ok(false),
            Fate::Broken => bail!("reset"),
            Fate::Late => {
                sleep(CLOSED.span).await;
                Ok(true)
            }
            Fate::Silent => std::future::pending().await,
        }
    }
}

struct Asking<F: 'static>(&'static Server<F>);

impl<F: Fn(u64) -> Fate + Sync> Caller for Asking<F> {
    async fn ask(&mut self) -> Result<bool> {
        self.0.answer().await
    }

    fn last_answer(&self) -> String {
        "refused".into()
    }
}

impl<F: Fn(u64) -> Fate + Sync + 'static> Load for &'static Server<F> {
    type Caller = Asking<F>;

    async fn caller(&self, _number: usize) -> Result<Asking<F>> {
        Ok(Asking(self))
    }
}

fn kept<F>(server: Server<F>) -> &'static Server<F> {
    Box::leak(Box::new(server))
}

/// For the closed loop, in real time: long enough for a few answers on any machine.
const CLOSED: Closed = Closed { connections: 4, warmup: Duration::ZERO, span: SECOND };

/// 1,000 a second for two seconds.
const OPEN: Open =
    Open { per_second: 1000, connections: 20, span: Duration::from_secs(2), slice: SECOND };

/// What came of it, of a server that stalls from one moment to another after the start.
async fn open<F: Fn(u64) -> Fate + Sync + 'static>(
    stall: Option<(Duration, Duration)>,
    fate: F,
) -> Timeline {
    let begin = Instant::now() + SECOND;
    let stall = stall.map(|(from, to)| (begin + from, begin + to));
    let server = kept(Server::new(stall, fate));
    let (due, coming) = mpsc::unbounded_channel();
    let tick = async {
        for at in OPEN.schedule(begin) {
            sleep_until(at).await;
            if due.send(at).is_err() {
                return;
            }
        }
        drop(due);
    };
    let (timeline, ()) = futures_util::join!(OPEN.answers(&server, begin, coming), tick);
    timeline.expect("callers")
}

#[tokio::test(start_paused = true)]
async fn a_schedule_is_even_and_whole() {
    let begin = Instant::now();
    let all: Vec<Duration> = OPEN.schedule(begin).map(|at| at - begin).collect();
    assert_eq!(all.len(), 2000);
    assert!(all.iter().zip(0..).all(|(at, number)| at.abs_diff(MS * number) < MS / 100));
}

/// A closed loop would have seen the stall with each of its connections once: 20 answers of 1,520.
#[tokio::test(start_paused = true)]
async fn a_stall_costs_all_who_came_in_it() {
    let even = open(None, |_| Fate::Hoped).await.whole();
    assert_eq!((even.latency.count(), even.failed), (2000, 0));
    assert!(even.latency.at(100.0) <= 3000.0, "{}", even.latency.at(100.0));

    let timeline = open(Some((SECOND / 2, SECOND)), |_| Fate::Hoped).await;
    let whole = timeline.whole();
    assert_eq!((whole.latency.count(), whole.failed), (2000, 0), "none is left out");
    // 500 were due meanwhile, and waited for what was left of it: of 2,000, the last one in a
    // hundred came in its first twenty milliseconds.
    let (p99, p90, p50) = (whole.latency.at(99.0), whole.latency.at(90.0), whole.latency.at(50.0));
    assert!((475_000.0..=505_000.0).contains(&p99), "p99 {p99}");
    assert!((290_000.0..=335_000.0).contains(&p90), "p90 {p90}");
    assert!(p50 <= 3000.0, "p50 {p50}");
    // It is told of the second in which they were due, also where it was answered in the next.
    let slices: Vec<_> = timeline.within(0.0, 2.0).collect();
    assert_eq!(slices.iter().map(|slice| slice.latency.count()).collect::<Vec<_>>(), [1000, 1000]);
    assert!(slices[0].answered < 510 && slices[0].answered + slices[1].answered == 2000);
    assert!(slices[0].latency.at(99.0) >= 485_000.0);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_hoped_for_is_no_answer() {
    let fate = |number| match number % 10 {
        0 => Fate::Refused,
        1 => Fate::Broken,
        _ => Fate::Hoped,
    };
    let timeline = open(None, fate).await;
    let whole = timeline.whole();
    assert_eq!((whole.latency.count(), whole.failed), (1600, 400));
    let answered: u64 = timeline.within(0.0, 2.0).map(|slice| slice.answered).sum();
    assert_eq!(answered, 1600);
    assert!(timeline.failure.is_some_and(|said| said == "refused"));
}

/// Every connection hangs for ever: neither those who hang, nor those who found none free, have
/// been answered.
#[tokio::test(start_paused = true)]
async fn who_is_never_answered_has_failed() {
    let whole = open(None, |number| if number < 100 { Fate::Hoped } else { Fate::Silent }).await;
    let whole = whole.whole();
    assert_eq!((whole.latency.count(), whole.failed), (100, 1900));
}

#[test]
fn a_closed_loop_counts_what_was_hoped_for() {
    let half =
        kept(Server::new(
            None,
            |number| {
                if number.is_multiple_of(2) { Fate::Hoped } else { Fate::Refused }
            },
        ));
    let outcome = CLOSED.run(&half).expect("some were answered");
    let asked = half.asked.load(SeqCst);
    assert_eq!(outcome.latency.count() + outcome.refused, asked);
    assert_eq!(outcome.refused, asked / 2);
    assert_eq!(outcome.refusal.as_deref(), Some("refused"));
    assert!(outcome.whole().is_err());

    let none = CLOSED.run(&kept(Server::new(None, |_| Fate::Refused)));
    assert!(none.is_err_and(|error| error.to_string().contains("nothing was answered")));
    let broken = CLOSED.run(&kept(Server::new(None, |_| Fate::Broken)));
    assert!(broken.is_err_and(|error| error.to_string().contains("reset")));
}

/// Or a stall at the end would not be seen, or be part of the rate.
#[test]
fn what_comes_after_the_end_is_waited_for_and_is_no_part_of_the_rate() {
    let server =
        kept(Server::new(None, |number| if number < 4 { Fate::Hoped } else { Fate::Late }));
    let outcome = CLOSED.run(&server).expect("some were answered");
    assert_eq!(outcome.latency.count(), 8);
    assert!(outcome.per_second <= 4.0, "{}", outcome.per_second);
    assert!(outcome.latency.at(99.0) >= 1_000_000.0);
}
