//! Lines on their way to stderr, of the log and of the access log: a bounded queue, and a thread
//! that writes. Whoever tells a line never waits; one that finds as many of its kind waiting as may
//! is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::Error;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::server::WriteLine;

/// Lines that are written at once at most, in bytes.
const BATCH_BYTES: usize = 64 << 10;
/// How long the end of the gateway waits for a reader of stderr that takes nothing.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Item {
    Access(Vec<u8>),
    Log(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// How many lines of a kind wait, and may. Each kind has its own bound: no crowd of requests takes
/// the room of what went wrong.
struct Places {
    waiting: AtomicUsize,
    max: usize,
    dropped: Counter,
}

struct Both {
    access: Places,
    log: Places,
}

/// The queue. What is written to it is a line of the log.
#[derive(Clone)]
pub struct Lines {
    queue: Sender<Item>,
    places: Arc<Both>,
}

impl Lines {
    /// A queue with the bounds of `config`, written to `out`.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        config: &Config,
        out: impl Write + Send + 'static,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let metrics = &metrics.http;
        let access =
            Places::new(config.server.access_log_waiting, metrics.access_lines_dropped.clone());
        let log = Places::new(config.log.waiting, metrics.log_lines_dropped.clone());
        let places = Arc::new(Both { access, log });
        let ((queue, items), seen) = (channel(), Arc::clone(&places));
        let thread = thread::Builder::new().name("lines".into());
        thread
            .spawn(move || write(&items, &seen, out))
            .map_err(|e| Error::Failed(e.to_string()))?;
        Ok(Self { queue, places })
    }

    /// What tells an access line.
    pub fn sink(&self) -> WriteLine {
        let lines = self.clone();
        Arc::new(move |line| lines.put(&lines.places.access, line, Item::Access))
    }

    /// Tells a line of the log, or several.
    pub fn log(&self, line: Vec<u8>) {
        self.put(&self.places.log, line, Item::Log);
    }

    /// Waits until what was told is written, or nobody reads it.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _in_vain_or_not = wait.recv_timeout(FLUSH_MAX);
        }
    }

    fn put(&self, places: &Places, line: Vec<u8>, item: impl FnOnce(Vec<u8>) -> Item) {
        if !places.take() || self.queue.send(item(line)).is_err() {
            places.dropped.inc();
        }
    }
}

impl Write for &Lines {
    /// The formatter of log lines writes each at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Places {
    fn new(max: usize, dropped: Counter) -> Self {
        Self { waiting: AtomicUsize::new(0), max, dropped }
    }

    fn take(&self) -> bool {
        let free = self.waiting.fetch_add(1, Relaxed) < self.max;
        if !free {
            self.give_back();
        }
        free
    }

    fn give_back(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

fn write(items: &Receiver<Item>, places: &Both, mut out: impl Write) {
    let mut batch = Vec::new();
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        let mut flushed = None;
        while let Some(item) = next {
            match item {
                Item::Access(line) => {
                    places.access.give_back();
                    batch.extend(line);
                }
                Item::Log(line) => {
                    places.log.give_back();
                    batch.extend(line);
                }
                Item::Flush(done) => flushed = Some(done),
            }
            next = if batch.len() < BATCH_BYTES && flushed.is_none() {
                items.try_recv().ok()
            } else {
                None
            };
        }
        // Nobody may be listening to stderr; that is no reason not to serve.
        drop(out.write_all(&batch));
        batch.clear();
        if let Some(done) = flushed {
            let _who_asked_may_be_gone = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Takes nothing while its lock is held by the test.
    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(waiting: usize, out: &Out) -> (Lines, Metrics) {
        let (mut config, metrics) = (Config::default(), Metrics::new());
        (config.server.access_log_waiting, config.log.waiting) = (waiting, 10);
        (Lines::start(&config, out.clone(), &metrics).expect("a thread"), metrics)
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let out = Out::default();
        let (lines, metrics) = lines(1000, &out);
        let sink = lines.sink();
        for number in 0..500 {
            if number % 100 == 0 {
                lines.log(format!("{number}\n").into_bytes());
            } else {
                sink(format!("{number}\n").into_bytes());
            }
        }
        lines.flush();
        let dropped = &metrics.http.access_lines_dropped;
        let written = out.0.lock().expect("no panic").clone();
        let numbers = (0..500).map(|number| format!("{number}\n")).collect::<String>();
        assert_eq!((String::from_utf8(written).expect("text"), dropped.get()), (numbers, 0));
    }

    #[test]
    fn who_tells_a_line_never_waits_for_one_who_does_not_read() {
        let out = Out::default();
        let held = out.0.lock().expect("no panic");
        let (lines, metrics) = lines(10, &out);
        let sink = lines.sink();
        for _ in 0..10_000 {
            sink(vec![b'x'; 1024]);
        }
        let dropped = metrics.http.access_lines_dropped.get();
        assert!(dropped > 9_000, "{dropped}");
        // The log has room of its own, and that ends as well.
        for _ in 0..10 {
            (&lines).write_all(b"what went wrong\n").expect("it never fails");
        }
        assert_eq!(metrics.http.log_lines_dropped.get(), 0);
        for _ in 0..1000 {
            lines.log(vec![b'x'; 1024]);
        }
        assert!(metrics.http.log_lines_dropped.get() > 900);
        drop(held);
        lines.flush();
        let written = out.0.lock().expect("no panic").clone();
        let wrong = String::from_utf8(written).expect("text").matches("what went wrong").count();
        assert_eq!(wrong, 10);
    }
}
