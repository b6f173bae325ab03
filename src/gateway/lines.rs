//! Access lines on their way to stderr: a bounded queue, and a thread that writes. Whoever tells a
//! line never waits; a line that finds the queue full is dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::Error;
use crate::server::WriteLine;

/// Lines that are written at once at most, in bytes.
const BATCH_BYTES: usize = 64 << 10;
/// How long the end of the gateway waits for a reader of stderr that takes nothing.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// The queue.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Item>,
    dropped: Counter,
}

impl Lines {
    /// A queue of at most `waiting` lines, written to `out`.
    pub fn start(
        waiting: usize,
        out: impl Write + Send + 'static,
        dropped: Counter,
    ) -> Result<Self, Error> {
        let (queue, items) = sync_channel(waiting);
        let thread = thread::Builder::new().name("access-lines".into());
        thread.spawn(move || write(&items, out)).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(Self { queue, dropped })
    }

    /// What tells a line.
    pub fn sink(&self) -> WriteLine {
        let lines = self.clone();
        Arc::new(move |line| {
            if lines.queue.try_send(Item::Line(line)).is_err() {
                lines.dropped.inc();
            }
        })
    }

    /// Waits until what was told is written, or nobody reads it.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _in_vain_or_not = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write(items: &Receiver<Item>, mut out: impl Write) {
    let mut batch = Vec::new();
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        let mut flushed = None;
        while let Some(item) = next {
            match item {
                Item::Line(line) => batch.extend(line),
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

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let (out, dropped) = (Out::default(), Counter::default());
        let lines = Lines::start(1000, out.clone(), dropped.clone()).expect("a thread");
        let sink = lines.sink();
        for number in 0..500 {
            sink(format!("{number}\n").into_bytes());
        }
        lines.flush();
        let written = out.0.lock().expect("no panic").clone();
        let numbers = (0..500).map(|number| format!("{number}\n")).collect::<String>();
        assert_eq!((String::from_utf8(written).expect("text"), dropped.get()), (numbers, 0));
    }

    #[test]
    fn who_tells_a_line_never_waits_for_one_who_does_not_read() {
        let (out, dropped) = (Out::default(), Counter::default());
        let held = out.0.lock().expect("no panic");
        let lines = Lines::start(10, out.clone(), dropped.clone()).expect("a thread");
        let sink = lines.sink();
        for _ in 0..10_000 {
            sink(vec![b'x'; 1024]);
        }
        assert!(dropped.get() > 9_000, "{}", dropped.get());
        drop(held);
        lines.flush();
    }
}
