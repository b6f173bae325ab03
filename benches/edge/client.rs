//! A closed-loop client of keep-alive connections: one request in flight on each, with a random
//! key; bodies are read and thrown away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::keys::{self, KEY_LEN};

/// Keys that the gateway knows.
pub const KEYS: usize = 10_000;
const WARMUP: Duration = Duration::from_millis(500);

/// What is asked for, and how.
#[derive(Clone)]
pub struct Load {
    keys: Arc<[[u8; KEY_LEN]]>,
    pub bytes: usize,
    pub connections: usize,
    pub span: Duration,
}

/// What came of it.
pub struct Outcome {
    pub per_second: f64,
    pub p99_micros: f64,
}

impl Load {
    pub fn new(bytes: usize, connections: usize, span: Duration) -> Self {
        Self { keys: keys::texts(KEYS), bytes, connections, span }
    }

    /// Loads `address` from as many threads as there are processors.
    pub fn run(&self, address: SocketAddr) -> Result<Outcome> {
        let threads = std::thread::available_parallelism()?.get().min(self.connections);
        let begin = Instant::now() + WARMUP;
        let parts: Vec<Result<Vec<u32>>> = std::thread::scope(|scope| {
            let thread = |number: usize| {
                let own =
                    self.connections / threads + usize::from(number < self.connections % threads);
                scope.spawn(move || self.on_one_thread(address, number, own, begin))
            };
            let running: Vec<_> = (0..threads).map(thread).collect();
            running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let mut micros = Vec::new();
        for part in parts {
            micros.extend(part?);
        }
        ensure!(!micros.is_empty(), "nothing was answered");
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds are small")]
        let per_second = micros.len() as f64 / self.span.as_secs_f64();
        let at = (micros.len() * 99 / 100).min(micros.len() - 1);
        let (_, p99, _) = micros.select_nth_unstable(at);
        Ok(Outcome { per_second, p99_micros: f64::from(*p99) })
    }

    fn on_one_thread(
        &self,
        address: SocketAddr,
        thread: usize,
        connections: usize,
        begin: Instant,
    ) -> Result<Vec<u32>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut running = JoinSet::new();
            for connection in 0..connections {
                let (load, at) = (self.clone(), thread * 10_007 + connection);
                running.spawn(async move {
                    let mut client = Client::connect(address).await?;
                    let (mut micros, end) = (Vec::new(), begin + load.span);
                    let mut sent = Instant::now();
                    for turn in at.. {
                        if sent >= end {
                            break;
                        }
                        let key = &load.keys[turn.wrapping_mul(7919) % load.keys.len()];
                        client.get(load.bytes, key).await?;
                        let now = Instant::now();
                        if sent >= begin && now < end {
                            micros.push(u32::try_from((now - sent).as_micros())?);
                        }
                        sent = now;
                    }
                    Ok::<_, anyhow::Error>(micros)
                });
            }
            let mut all = Vec::new();
            while let Some(micros) = running.join_next().await {
                all.extend(micros??);
            }
            Ok(all)
        })
    }
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 << 10] })
    }

    /// Asks for so many bytes; errs when the answer is not a 200 with all of them.
    pub async fn get(&mut self, bytes: usize, key: &[u8; KEY_LEN]) -> Result<()> {
        let key = String::from_utf8_lossy(key);
        let head =
            format!("GET /{bytes} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        let got = self.answer().await?;
        ensure!(got == bytes, "{got} of {bytes} bytes came");
        Ok(())
    }

    /// Sends a body of so many bytes; errs when they did not all arrive.
    pub async fn put(&mut self, bytes: u64, key: &[u8; KEY_LEN]) -> Result<()> {
        let key = String::from_utf8_lossy(key);
        let head = format!(
            "PUT /0 HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {bytes}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await?;
        let (piece, mut left) = (vec![0; 64 << 10], bytes);
        while left > 0 {
            let length = usize::try_from(left)?.min(piece.len());
            self.stream.write_all(&piece[..length]).await?;
            left -= length as u64;
        }
        self.answer().await.map(drop)
    }

    /// Reads one answer; how long its body was.
    async fn answer(&mut self) -> Result<usize> {
        let mut filled = 0;
        let head = loop {
            ensure!(filled < self.buffer.len(), "a head is larger than expected");
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server closed a connection");
            filled += read;
            let seen = &self.buffer[..filled];
            if let Some(end) = seen.windows(4).position(|at| at == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_lowercase();
        if !text.starts_with("http/1.1 200") {
            bail!("{text}");
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let Some(length) = length else { return self.chunks(head, filled).await };
        let length: usize = length.trim().parse()?;
        let mut got = filled - head;
        while got < length {
            let read = self.stream.read(&mut self.buffer).await?;
            ensure!(read > 0, "the body broke off");
            got += read;
        }
        Ok(got)
    }

    /// Reads a chunked body whose start stands in the buffer; how long it was without its framing.
    async fn chunks(&mut self, head: usize, filled: usize) -> Result<usize> {
        let mut reading = Chunks::default();
        let (mut from, mut to) = (head, filled);
        while !reading.take(&self.buffer[from..to])? {
            to = self.stream.read(&mut self.buffer).await?;
            ensure!(to > 0, "the body broke off");
            from = 0;
        }
        Ok(reading.bytes)
    }
}

/// A chunked body (RFC 9112 §7.1), as far as it was read.
#[derive(Default)]
struct Chunks {
    bytes: usize,
    /// Of this chunk, with the line end behind it.
    left: usize,
    line: Vec<u8>,
    last: bool,
}

impl Chunks {
    /// Whether that was the end.
    fn take(&mut self, mut input: &[u8]) -> Result<bool> {
        while let Some(&byte) = input.first() {
            if self.left > 0 {
                let length = self.left.min(input.len());
                self.left -= length;
                input = &input[length..];
                continue;
            }
            input = &input[1..];
            self.line.push(byte);
            if byte != b'\n' {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = std::str::from_utf8(&line)?.trim();
            if self.last {
                return Ok(true);
            }
            let size = usize::from_str_radix(line, 16).context("a chunk's size")?;
            self.bytes += size;
            self.last = size == 0;
            self.left = if self.last { 0 } else { size + 2 };
        }
        Ok(false)
    }
}
