//! Spans on their way: a bounded queue, and one task that sends batches, one after the other.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::collector::{Collector, Failure, Unusable};
use super::message::Teller;
use super::{Config, Span, WriteSpan};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::metrics::{Metrics, ReasonLabel};

/// How long it is waited before a batch is tried again: up to this, and each time twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the end of the gateway waits for a collector that takes its time.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// How often it is said that nothing gets through.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The queue.
pub struct Exporter {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
    task: TaskTracker,
    stop: CancellationToken,
}

impl Exporter {
    /// Begins to export what `node` records, until [`Exporter::end`].
    ///
    /// # Errors
    /// When no connection could ever be made. Whether a collector is there, nobody asks.
    pub fn start(
        config: &Config,
        node: &str,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Unusable> {
        let (queue, spans) = mpsc::channel(config.max_waiting);
        let (task, stop) = (TaskTracker::new(), CancellationToken::new());
        let worker = Worker {
            spans,
            teller: Teller::new(&config.service_name, node),
            collector: Collector::new(config)?,
            config: config.clone(),
            clock,
            entropy,
            metrics: Arc::clone(&metrics),
            stop: stop.clone(),
            warned: None,
        };
        task.spawn(worker.run());
        task.close();
        Ok(Self { queue, metrics, task, stop })
    }

    /// What records a span.
    pub fn sink(&self) -> WriteSpan {
        let (queue, metrics) = (self.queue.clone(), Arc::clone(&self.metrics));
        Arc::new(move |span| {
            if queue.try_send(span).is_err() {
                dropped(&metrics, "queue_full", 1);
            }
        })
    }

    /// Sends what waits, as far as the collector takes it at once.
    pub async fn end(self) {
        self.stop.cancel();
        if tokio::time::timeout(FLUSH_MAX, self.task.wait()).await.is_err() {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

fn dropped(metrics: &Metrics, reason: &'static str, count: u64) {
    metrics.otlp.dropped.get_or_create(&ReasonLabel { reason }).inc_by(count);
}

struct Worker {
    spans: mpsc::Receiver<Span>,
    teller: Teller,
    collector: Collector,
    config: Config,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// When it was last said that nothing gets through.
    warned: Option<Duration>,
}

impl Worker {
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.deliver(batch).await;
        }
    }

    /// The next batch: full, or as old as it may become. None at the end.
    async fn gather(&mut self) -> Option<Vec<Span>> {
        let (spans, stop, most) = (&mut self.spans, &self.stop, self.config.batch_max);
        let mut batch = Vec::new();
        tokio::select! {
            count = spans.recv_many(&mut batch, most) => if count == 0 { return None },
            () = stop.cancelled() => {}
        }
        let filled = async {
            let mut room = most - batch.len();
            while room > 0 {
                match spans.recv_many(&mut batch, room).await {
                    0 => break,
                    count => room -= count,
                }
            }
        };
        tokio::select! {
            () = filled => {}
            () = tokio::time::sleep(self.config.interval.0) => {}
            () = stop.cancelled() => {}
        }
        if stop.is_cancelled() {
            // What is in it comes out yet.
            spans.close();
            while batch.len() < most
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn deliver(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = Bytes::from(self.teller.request(batch).encode_to_vec());
        let within = self.config.deadline.0;
        let delivered = tokio::time::timeout(within, self.insist(body)).await;
        let delivered = delivered.unwrap_or_else(|_| Err(format!("it took more than {within:?}")));
        match delivered {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.metrics.otlp.exported.inc_by(count - rejected);
                dropped(&self.metrics, "rejected", rejected);
            }
            Err(why) => {
                dropped(&self.metrics, "undelivered", count);
                let now = self.clock.monotonic();
                if self.warned.is_none_or(|at| now.saturating_sub(at) >= WARN_EVERY) {
                    self.warned = Some(now);
                    tracing::warn!(error = %why, spans = count, "the collector takes no spans");
                }
            }
        }
    }

    /// Tries until it is taken, or never will be. Near the end of the gateway once.
    async fn insist(&self, body: Bytes) -> Result<u64, String> {
        let mut pause = PAUSE_MIN;
        loop {
            let (why, after) = match self.collector.post(body.clone()).await {
                Ok(rejected) => return Ok(rejected),
                Err(Failure::Never(why)) => return Err(why),
                Err(Failure::Again { why, after }) => (why, after),
            };
            self.metrics.otlp.attempts_failed.inc();
            if self.stop.is_cancelled() {
                return Err(why);
            }
            let pausing = tokio::time::sleep(after.unwrap_or(self.entropy.jitter(pause)));
            tokio::select! {
                () = pausing => {}
                () = self.stop.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
