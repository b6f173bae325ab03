//! Workers whose requests panic, never end or never let go, and the end of each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// More than any end may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn on(workers: &Workers, router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
    let (counted, stop, workers) = (Arc::clone(&metrics), shutdown.clone(), workers.all());
    let config = Config { shutdown_deadline: Span::millis(50), ..Config::default() };
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        let entry = Entry { listener, certificates: None, workers };
        serve(entry, router, &config, PATIENCE, counted, stop).await
    });
    Running { address, metrics, shutdown, task }
}

impl Running {
    async fn connect(&self) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(self.address).await.expect("connected")
    }

    /// Has begun to ask for a path.
    async fn begin(&self, path: &str) -> tokio::net::TcpStream {
        let mut stream = self.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    }

    async fn until_so_many_run(&self, many: i64) {
        while self.metrics.http.running.get() != many {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(&mut self) -> io::Result<()> {
        let ended = timeout(PATIENCE, self.task.join_next()).await.expect("it ends");
        ended.expect("a task").expect("no panic")
    }
}

async fn thread() -> String {
    format!("{}!", std::thread::current().name().unwrap_or_default())
}

async fn panics() -> String {
    panic!("on purpose");
}

#[tokio::test]
async fn a_panic_is_the_end_of_its_connection_alone() {
    let workers = Workers::start(1).expect("a thread");
    let router = Router::new().route("/", get(thread)).route("/panic", get(panics));
    let mut running = on(&workers, router);
    let mut other = running.connect().await;
    assert_eq!(asked(&mut other).await, "worker-0");
    for _ in 0..3 {
        let mut answer = Vec::new();
        let mut stream = running.begin("/panic").await;
        // A reset is as good an end as any.
        drop(stream.read_to_end(&mut answer).await);
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
    assert_eq!(asked(&mut other).await, "worker-0");
    assert_eq!(asked(&mut running.connect().await).await, "worker-0");
    running.until_so_many_run(0).await;
    drop(other);
    while workers.all()[0].connections() > 0 || running.metrics.http.connections.get() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.shutdown.cancel();
    running.end().await.expect("an orderly end");
}

/// Something that takes a while to be let go of.
struct Slow(Arc<AtomicUsize>);

impl Drop for Slow {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(5));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn what_the_deadline_cuts_is_let_go_of_before_the_end() {
    let workers = Workers::start(2).expect("threads");
    let gone = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gone);
    let never = move || {
        let slow = Slow(Arc::clone(&counted));
        async move {
            std::future::pending::<()>().await;
            drop(slow);
        }
    };
    let mut running = on(&workers, Router::new().route("/", get(never)));
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(running.begin("/").await);
    }
    running.until_so_many_run(20).await;
    running.shutdown.cancel();
    running.end().await.expect("an orderly end");
    assert_eq!(gone.load(Ordering::Relaxed), 20);
}

#[tokio::test]
async fn a_worker_that_is_stuck_is_not_waited_for() {
    let workers = Workers::start(2).expect("threads");
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let stuck = move || {
        let held = Arc::clone(&held);
        async move {
            let held = held.lock().unwrap_or_else(PoisonError::into_inner);
            held.recv().is_ok().to_string()
        }
    };
    let router = Router::new().route("/", get(thread)).route("/stuck", get(stuck));
    let mut running = on(&workers, router);
    let _never_answered = running.begin("/stuck").await;
    running.until_so_many_run(1).await;
    assert_eq!(asked(&mut running.connect().await).await, "worker-1");
    running.shutdown.cancel();
    running.end().await.expect("an orderly end");
    drop(hold);
}

#[tokio::test]
async fn a_worker_that_is_gone_is_the_end() {
    let workers = Workers::start(1).expect("a thread");
    let mut running = on(&workers, Router::new().route("/", get(thread)));
    assert_eq!(asked(&mut running.connect().await).await, "worker-0");
    drop(workers);
    let _nobody_takes_it = running.connect().await;
    let ended = running.end().await;
    assert!(ended.is_err(), "{ended:?}");
}
