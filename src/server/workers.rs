//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays where it was begun, at the worker that had the fewest: nothing of a request
//! moves from one processor to another, no queue is shared, and whoever is woken is woken by its
//! own thread. (But for what waits for Postgres, and a kept connection to an upstream that another
//! worker has made, which is woken from there: `proxy/kept.rs`.) The price is that one connection's
//! work is one processor's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// How long what was begun on other threads may go on at the end: it is on its way to the disk.
const LAST: Duration = Duration::from_secs(5);
/// And how long a thread that is stuck is waited for besides.
const MOMENT: Duration = Duration::from_secs(1);

/// See the module. When they are dropped, whatever they still do is; one that is stuck is left.
pub struct Workers {
    workers: Vec<Worker>,
    over: CancellationToken,
    /// Each thread has its other end, and says nothing there: when all have ended, so has this.
    threads: Receiver<Infallible>,
    patience: Duration,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place at a worker, for as long as it lives.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Workers {
    /// So many threads; 0: as many as there are processors.
    ///
    /// # Errors
    /// When there are no more threads or descriptors to be had.
    pub fn start(many: usize) -> io::Result<Self> {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let many = if many == 0 { processors() } else { many };
        let (running, threads) = channel();
        let (over, patience) = (CancellationToken::new(), LAST + MOMENT);
        let mut started = Self { workers: Vec::new(), over, threads, patience };
        let all = (0..many).try_for_each(|number| started.add(number, running.clone()));
        // Theirs alone keep them from having ended.
        drop(running);
        all.map(|()| started)
    }

    fn add(&mut self, number: usize, running: Sender<Infallible>) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        self.workers.push(Worker::on(runtime.handle().clone()));
        let over = self.over.clone();
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        thread.spawn(move || {
            runtime.block_on(over.cancelled());
            runtime.shutdown_timeout(LAST);
            drop(running);
        })?;
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Worker> {
        self.workers.clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.over.cancel();
        if self.threads.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a thread that serves connections does not end: it is left");
        }
    }
}

impl Worker {
    /// The runtime that this is called in.
    pub fn here() -> Self {
        Self::on(Handle::current())
    }

    fn on(runtime: Handle) -> Self {
        Self { runtime, connections: Arc::default() }
    }

    /// Where it works.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Connections that it has.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Gives it one more.
    pub(super) fn take(&self) -> Seat {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(&self.connections))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_works_on_its_own_thread_and_all_end() {
        let workers = Workers::start(3).expect("threads");
        let name = || async { std::thread::current().name().map(str::to_owned) };
        let names: Vec<_> = (workers.all().iter())
            .map(|worker| {
                let (sender, receiver) = std::sync::mpsc::channel();
                let tracker = tokio_util::task::TaskTracker::new();
                let name = name();
                tracker.spawn_on(async move { sender.send(name.await) }, worker.runtime());
                receiver.recv().expect("it is run").expect("it has a name")
            })
            .collect();
        assert_eq!(names, ["worker-0", "worker-1", "worker-2"]);
        let never = workers.all()[0].clone();
        let tracker = tokio_util::task::TaskTracker::new();
        tracker.spawn_on(std::future::pending::<()>(), never.runtime());
        drop(workers);
        assert!(tracker.is_empty(), "what was left is dropped with them");
    }

    #[test]
    fn one_that_is_stuck_is_left() {
        let mut workers = Workers::start(2).expect("threads");
        workers.patience = Duration::from_millis(100);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (stands, stuck) = std::sync::mpsc::channel();
        let tracker = tokio_util::task::TaskTracker::new();
        let stand_still = async move {
            stands.send(()).expect("the test waits");
            held.recv()
        };
        tracker.spawn_on(stand_still, workers.all()[0].runtime());
        stuck.recv().expect("it begins");
        let (ended, end) = std::sync::mpsc::channel();
        let ending = std::thread::spawn(move || {
            drop(workers);
            ended.send(()).is_ok()
        });
        let left = end.recv_timeout(Duration::from_secs(20));
        drop(hold);
        assert_eq!(left, Ok(()));
        assert!(ending.join().expect("no panic"));
    }

    #[test]
    fn a_seat_counts_until_it_is_dropped() {
        let workers = Workers::start(1).expect("a thread");
        let worker = &workers.all()[0];
        let seats = [worker.take(), worker.take()];
        assert_eq!(worker.connections(), 2);
        drop(seats);
        assert_eq!(worker.connections(), 0);
    }
}
