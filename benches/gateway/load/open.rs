//! The open loop: requests come on a schedule, whatever becomes of them. Latency counts from the
//! moment at which each should have been sent: a stall costs all who came in it, also those who
//! found no connection free.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Mutex, mpsc};
// (The real one, unless a test moves it.)
use tokio::time::Instant;

use super::closed::Closed;
use super::latency::Latency;
use super::{Caller, Load};

/// How long is waited for a connection that could not be had.
const AGAIN: Duration = Duration::from_millis(20);
/// For how long the last are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it is done.
#[derive(Clone, Copy)]
pub struct Open {
    pub per_second: u32,
    /// As many are in flight, at most; who comes then waits, and the wait counts.
    pub connections: usize,
    pub span: Duration,
    /// What is told of it is told by slices of this length.
    pub slice: Duration,
}

/// One slice of time, by when requests were due.
#[derive(Clone, Default)]
pub struct Slice {
    pub latency: Latency,
    /// Without an answer, or not with the one hoped for.
    pub failed: u64,
    /// Whenever they were due: answered in this slice, or after the last.
    pub answered: u64,
}

/// All that came of it.
pub struct Timeline {
    pub slice: Duration,
    pub slices: Vec<Slice>,
    /// The first that failed.
    pub failure: Option<String>,
}

impl Timeline {
    /// All that was due from one moment to another, in seconds from the start.
    pub fn between(&self, from: f64, to: f64) -> Slice {
        let mut all = Slice::default();
        for one in self.within(from, to) {
            all.latency.add(&one.latency);
            all.failed += one.failed;
        }
        all
    }

    /// The slices that lie between.
    pub fn within(&self, from: f64, to: f64) -> impl Iterator<Item = &Slice> {
        let slice = self.slice.as_secs_f64();
        let lies = move |at: usize| {
            at as f64 * slice >= from - 1e-9 && (at + 1) as f64 * slice <= to + 1e-9
        };
        self.slices.iter().enumerate().filter(move |(at, _)| lies(*at)).map(|(_, one)| one)
    }

    fn of(&mut self, due: Instant, begin: Instant) -> &mut Slice {
        let at = (due - begin).as_secs_f64() / self.slice.as_secs_f64();
        let last = self.slices.len() - 1;
        &mut self.slices[(at as usize).min(last)]
    }

    /// What was due then has its answer, or its failure.
    fn told(&mut self, due: Instant, begin: Instant, answer: Result<(), String>) {
        match answer {
            Ok(()) => {
                let slice = self.of(due, begin);
                slice.failed -= 1;
                slice.latency.record(due.elapsed());
                self.of(Instant::now(), begin).answered += 1;
            }
            Err(failure) => {
                self.failure.get_or_insert(failure);
            }
        }
    }

    /// All of it.
    pub fn whole(&self) -> Slice {
        self.between(0.0, f64::INFINITY)
    }

    /// What `value` says of each slice, at the slice's middle.
    pub fn points(&self, value: impl Fn(&Slice) -> f64) -> Vec<(f64, f64)> {
        let slice = self.slice.as_secs_f64();
        let all = self.slices.iter().enumerate();
        all.map(|(at, one)| ((at as f64 + 0.5) * slice, value(one))).collect()
    }
}

impl Open {
    /// The same at a third of what a closed loop gets, if that is less: a schedule that nobody can
    /// keep tells of its own queue only.
    pub fn bearable<L: Load>(mut self, load: &L) -> Result<Self> {
        let (warmup, span) = (Duration::from_millis(200), Duration::from_millis(800));
        let most = Closed { connections: self.connections, warmup, span }.run(load)?.per_second;
        self.per_second = self.per_second.min((most / 3.0) as u32).max(1);
        Ok(self)
    }

    pub fn run<L: Load>(&self, load: &L) -> Result<Timeline> {
        Ok(self.beside(load, |_| Ok(()))?.0)
    }

    /// Asks while `work` is done on this thread. It is told when the schedule begins.
    pub fn beside<L: Load, T>(
        &self,
        load: &L,
        work: impl FnOnce(std::time::Instant) -> Result<T>,
    ) -> Result<(Timeline, T)> {
        let (due, coming) = mpsc::unbounded_channel();
        // Time to connect.
        let begin = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || self.ask(load, begin, coming));
            scope.spawn(move || self.tick(begin, &due));
            let done = work(begin.into_std());
            let timeline = asking.join().expect("no panic")?;
            Ok((timeline, done?))
        })
    }

    /// When each request should be sent.
    pub fn schedule(&self, begin: Instant) -> impl Iterator<Item = Instant> {
        let (span, all) =
            (self.span, (self.span.as_secs_f64() * f64::from(self.per_second)) as u32);
        (0..all).map(move |number| begin + span.mul_f64(f64::from(number) / f64::from(all)))
    }

    /// A thread of its own: a runtime's timers are a millisecond coarse, and late with it.
    fn tick(&self, begin: Instant, due: &mpsc::UnboundedSender<Instant>) {
        for at in self.schedule(begin) {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send(at).is_err() {
                return;
            }
        }
    }

    fn ask<L: Load>(
        &self,
        load: &L,
        begin: Instant,
        coming: mpsc::UnboundedReceiver<Instant>,
    ) -> Result<Timeline> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.answers(load, begin, coming))
    }

    /// Asks for what is `coming` as soon as it is due, until nothing more will be.
    pub async fn answers<L: Load>(
        &self,
        load: &L,
        begin: Instant,
        coming: mpsc::UnboundedReceiver<Instant>,
    ) -> Result<Timeline> {
        let slices = self.span.as_secs_f64() / self.slice.as_secs_f64();
        let slices = vec![Slice::default(); slices.ceil() as usize];
        let timeline = Timeline { slice: self.slice, slices, failure: None };
        let (mut coming, timeline) = (Mutex::new(coming), RefCell::new(timeline));
        let mut callers = Vec::new();
        for number in 0..self.connections {
            callers.push(load.caller(number).await?);
        }
        let asking = callers
            .into_iter()
            .enumerate()
            .map(|(number, caller)| turn_by_turn(load, number, caller, begin, &coming, &timeline));
        let all = futures_util::future::join_all(asking);
        // What is not answered by then has failed.
        drop(tokio::time::timeout(self.span + PATIENCE, all).await);
        let mut timeline = timeline.into_inner();
        while let Ok(due) = coming.get_mut().try_recv() {
            timeline.of(due, begin).failed += 1;
        }
        Ok(timeline)
    }
}

/// One connection: takes the next request that is due as soon as it is free.
async fn turn_by_turn<L: Load>(
    load: &L,
    number: usize,
    caller: L::Caller,
    begin: Instant,
    coming: &Mutex<mpsc::UnboundedReceiver<Instant>>,
    timeline: &RefCell<Timeline>,
) {
    let mut connected = Some(caller);
    loop {
        let Some(due) = coming.lock().await.recv().await else { return };
        // Until it is answered as hoped.
        timeline.borrow_mut().of(due, begin).failed += 1;
        let asked = async {
            let mut caller = match connected.take() {
                Some(caller) => caller,
                None => load.caller(number).await?,
            };
            let hoped = caller.ask().await?;
            Ok::<_, anyhow::Error>((caller, hoped))
        };
        let answered = asked.await;
        let hoped = matches!(answered, Ok((_, true)));
        let refusal = match answered {
            Ok((caller, hoped)) => {
                let said = if hoped { String::new() } else { caller.last_answer() };
                connected = Some(caller);
                said
            }
            Err(error) => format!("{error:#}"),
        };
        timeline.borrow_mut().told(due, begin, hoped.then_some(()).ok_or(refusal));
        if connected.is_none() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}
