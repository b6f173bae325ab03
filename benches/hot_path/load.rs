//! A closed-loop HTTP/1.1 client that costs little itself: keep-alive connections, one request in
//! flight on each, a random key in every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Effort;
use crate::keys::KEY_LEN;
use crate::process::cpu_micros;

type Keys = Arc<[[u8; KEY_LEN]]>;

const PREFIX: &[u8] =
    b"GET /authz/forward-auth HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: Bearer ";
const SUFFIX: &[u8] = b"\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200";
/// The largest answer that is understood: a head and no body.
const ANSWER_MAX: usize = 4096;

/// Whom to load, and how.
#[derive(Clone)]
pub struct Load {
    pub keys: Keys,
    pub connections: usize,
    pub warmup: Duration,
    pub span: Duration,
}

/// What came of it.
pub struct Outcome {
    pub per_second: f64,
    pub p99_micros: f64,
    /// Answers that were not 200.
    pub refused: u64,
    /// The first of them.
    pub refusal: Option<String>,
    /// Processor time of the server per request, user and system; zero when not asked for.
    pub cpu_micros: f64,
}

#[derive(Default)]
struct Seen {
    micros: Vec<u32>,
    refused: u64,
    refusal: Option<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.refused += other.refused;
        self.refusal = self.refusal.take().or(other.refusal);
    }
}

impl Load {
    pub fn new(keys: Keys, connections: usize, effort: Effort) -> Self {
        Self { keys, connections, warmup: effort.warmup, span: effort.span }
    }

    /// Asks for every key once, one after the other.
    pub fn touch(&self, address: SocketAddr) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for connection in 0..self.connections {
                let (keys, every) = (self.keys.clone(), self.connections);
                running.spawn(async move {
                    let mut client = Client::connect(address).await?;
                    for key in keys.iter().skip(connection).step_by(every) {
                        ensure!(client.ask(key).await?, "a known key was refused");
                    }
                    Ok(())
                });
            }
            while let Some(touched) = running.join_next().await {
                touched??;
            }
            Ok(())
        })
    }

    /// Like [`Load::run`], and looks what it costs the server's process.
    pub fn run_measured(&self, address: SocketAddr, pid: u32) -> Result<Outcome> {
        let before = cpu_micros(pid);
        let outcome = self.run(address)?;
        // The warm-up costs as well; it is answered at about the same rate.
        let seconds = (self.warmup + self.span).as_secs_f64();
        let cpu_micros = (cpu_micros(pid) - before) / (outcome.per_second * seconds);
        Ok(Outcome { cpu_micros, ..outcome })
    }

    /// Loads `address` on threads of its own, as many as there are processors.
    pub fn run(&self, address: SocketAddr) -> Result<Outcome> {
        let threads = std::thread::available_parallelism()?.get().min(self.connections);
        let begin = Instant::now() + self.warmup;
        let parts: Vec<Result<Seen>> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|thread| {
                    let connections = self.connections / threads
                        + usize::from(thread < self.connections % threads);
                    scope.spawn(move || self.on_one_thread(address, thread, connections, begin))
                })
                .collect();
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let mut all = Seen::default();
        for part in parts {
            all.add(part?);
        }
        ensure!(!all.micros.is_empty(), "nothing was answered");
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds are small")]
        let per_second = all.micros.len() as f64 / self.span.as_secs_f64();
        let at = (all.micros.len() * 99 / 100).min(all.micros.len() - 1);
        let (_, p99, _) = all.micros.select_nth_unstable(at);
        let p99_micros = f64::from(*p99);
        let Seen { refused, refusal, .. } = all;
        Ok(Outcome { per_second, p99_micros, refused, refusal, cpu_micros: 0.0 })
    }

    fn on_one_thread(
        &self,
        address: SocketAddr,
        thread: usize,
        connections: usize,
        begin: Instant,
    ) -> Result<Seen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for connection in 0..connections {
                let seed = (thread * 10_007 + connection + 1) as u64;
                running.spawn(connected(self.clone(), address, seed, begin));
            }
            let mut all = Seen::default();
            while let Some(seen) = running.join_next().await {
                all.add(seen??);
            }
            Ok(all)
        })
    }
}

async fn connected(load: Load, address: SocketAddr, seed: u64, begin: Instant) -> Result<Seen> {
    let mut client = Client::connect(address).await?;
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut seen = Seen::default();
    let end = begin + load.span;
    let mut sent = Instant::now();
    while sent < end {
        // xorshift64 (Marsaglia 2003)
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let ok = client.ask(&load.keys[(random >> 11) as usize % load.keys.len()]).await?;
        let now = Instant::now();
        if !ok {
            seen.refused += 1;
            seen.refusal.get_or_insert_with(|| client.last_answer());
        } else if sent >= begin && now < end {
            seen.micros.push(u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX));
        }
        sent = now;
    }
    Ok(seen)
}

/// One keep-alive connection and its buffers.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    filled: usize,
    answer: Box<[u8; ANSWER_MAX]>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = [PREFIX, &[0; KEY_LEN], SUFFIX].concat();
        Ok(Self { stream, request, filled: 0, answer: Box::new([0; ANSWER_MAX]) })
    }

    /// Whether the answer was a 200. Only refusals have bodies here, and say their length.
    async fn ask(&mut self, key: &[u8; KEY_LEN]) -> Result<bool> {
        self.request[PREFIX.len()..PREFIX.len() + KEY_LEN].copy_from_slice(key);
        self.stream.write_all(&self.request).await?;
        self.filled = 0;
        loop {
            ensure!(self.filled < ANSWER_MAX, "an answer is larger than expected");
            let read = self.stream.read(&mut self.answer[self.filled..]).await?;
            ensure!(read > 0, "the server closed a connection");
            self.filled += read;
            let text = &self.answer[..self.filled];
            if text.starts_with(OK) {
                if text.ends_with(b"\r\n\r\n") {
                    return Ok(true);
                }
            } else if complete(text) {
                return Ok(false);
            }
        }
    }

    fn last_answer(&self) -> String {
        String::from_utf8_lossy(&self.answer[..self.filled]).into_owned()
    }
}

fn complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}
