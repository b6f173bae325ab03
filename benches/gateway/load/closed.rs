//! The closed loop: so many callers, each asks again when it has its answer. It tells how much
//! there can be; it does not tell how long callers wait that do not hold back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::{JoinSet, LocalSet};

use super::latency::Latency;
use super::{Caller, Load};
use crate::product::process::cpu_micros;

/// How it is done.
#[derive(Clone, Copy)]
pub struct Closed {
    pub connections: usize,
    /// Before the measurement, and not counted.
    pub warmup: Duration,
    pub span: Duration,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    pub per_second: f64,
    /// Answered within the span.
    answered: u64,
    /// Of all that was sent within it: what was still in flight at its end is waited for, or a
    /// stall there would not be seen.
    pub latency: Latency,
    /// Answers that were not hoped for.
    pub refused: u64,
    /// The first of them.
    pub refusal: Option<String>,
    /// Processor time of the server per request, user and system; zero when not asked for.
    pub cpu_micros: f64,
}

impl Outcome {
    /// Errs when an answer was not the one hoped for.
    pub fn whole(self) -> Result<Self> {
        ensure!(self.refused == 0, "{} were refused: {:?}", self.refused, self.refusal);
        Ok(self)
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.answered += other.answered;
        self.refused += other.refused;
        self.refusal = self.refusal.take().or_else(|| other.refusal.clone());
    }
}

impl Closed {
    /// Like [`Closed::run`], and looks what it costs these processes.
    pub fn measured<L: Load>(&self, load: &L, pids: &[u32]) -> Result<Outcome> {
        let spent = || pids.iter().map(|pid| cpu_micros(*pid)).sum::<f64>();
        let before = spent();
        let outcome = self.run(load)?;
        // The warm-up costs as well; it is answered at about the same rate.
        let seconds = (self.warmup + self.span).as_secs_f64();
        let cpu_micros = (spent() - before) / (outcome.per_second * seconds);
        Ok(Outcome { cpu_micros, ..outcome })
    }

    /// Asks on threads of its own, as many as there are processors.
    pub fn run<L: Load>(&self, load: &L) -> Result<Outcome> {
        let threads = std::thread::available_parallelism()?.get().min(self.connections);
        let begin = Instant::now() + self.warmup;
        let parts: Vec<Result<Outcome>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || self.on_one_thread(load, thread, threads, begin)))
                .collect();
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let mut all = Outcome::default();
        for part in parts {
            all.add(&part?);
        }
        ensure!(all.answered > 0, "nothing was answered: {:?}", all.refusal);
        all.per_second = all.answered as f64 / self.span.as_secs_f64();
        Ok(all)
    }

    fn on_one_thread<L: Load>(
        &self,
        load: &L,
        thread: usize,
        threads: usize,
        begin: Instant,
    ) -> Result<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = Rc::new(RefCell::new(Outcome::default()));
        runtime.block_on(LocalSet::new().run_until(async {
            let mut running = JoinSet::new();
            for number in (thread..self.connections).step_by(threads) {
                let caller = load.caller(number).await?;
                running.spawn_local(ask_until(caller, seen.clone(), begin, begin + self.span));
            }
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            Ok::<_, anyhow::Error>(())
        }))?;
        Ok(seen.take())
    }
}

async fn ask_until(
    mut caller: impl Caller,
    seen: Rc<RefCell<Outcome>>,
    begin: Instant,
    end: Instant,
) -> Result<()> {
    let mut sent = Instant::now();
    while sent < end {
        let hoped = caller.ask().await?;
        let now = Instant::now();
        let mut seen = seen.borrow_mut();
        if !hoped {
            seen.refused += 1;
            seen.refusal.get_or_insert_with(|| caller.last_answer());
        } else if sent >= begin {
            seen.answered += u64::from(now < end);
            seen.latency.record(now - sent);
        }
        sent = now;
    }
    Ok(())
}
