//! One HTTP/1.1 connection that costs little itself: one request in flight, answers read as far as
//! their framing must be known, bodies thrown away.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use memchr::{memchr, memchr_iter, memmem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest head, and the largest body that can be looked at afterwards together with it.
const BUFFER: usize = 64 << 10;

/// What came back.
#[derive(Clone, Copy)]
pub struct Answer {
    pub status: u16,
    /// Of the body, without its framing.
    pub bytes: usize,
}

/// See the module.
pub struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// Where the head ends, and what was read into the buffer last.
    head: usize,
    filled: usize,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Self::with_buffer(address, BUFFER).await
    }

    /// As [`Connection::open`], for many of them: heads and bodies are small.
    pub async fn small(address: SocketAddr) -> Result<Self> {
        Self::with_buffer(address, 4 << 10).await
    }

    async fn with_buffer(address: SocketAddr, buffer: usize) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; buffer].into(), head: 0, filled: 0 })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Sends a request, and reads its answer.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request).await?;
        self.answer().await
    }

    /// The same, where nothing but 200 with so many bytes will do.
    pub async fn get(&mut self, request: &[u8], bytes: usize) -> Result<()> {
        let answer = self.ask(request).await?;
        ensure!(answer.status == 200 && answer.bytes == bytes, "refused: {}", self.text());
        Ok(())
    }

    /// Reads one answer.
    pub async fn answer(&mut self) -> Result<Answer> {
        self.filled = 0;
        self.head = loop {
            let before = self.filled;
            self.fill().await?;
            // The end may lie across two reads.
            let from = before.saturating_sub(3);
            let seen = &self.buffer[from..self.filled];
            if let Some(end) = memmem::find(seen, b"\r\n\r\n") {
                break from + end + 4;
            }
        };
        let head = &self.buffer[..self.head];
        ensure!(head.starts_with(b"HTTP/1.1 ") && head.len() > 12, "{}", self.text());
        let status = std::str::from_utf8(&head[9..12])?.parse()?;
        let bytes = match framing(head)? {
            // Of these there is no body whatever stands there.
            _ if status == 101 || status == 204 => 0,
            Framing::Length(length) => self.body(length).await?,
            Framing::Chunked => self.chunks().await?,
        };
        Ok(Answer { status, bytes })
    }

    async fn fill(&mut self) -> Result<()> {
        ensure!(self.filled < self.buffer.len(), "a head is larger than expected");
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        ensure!(read > 0, "the server closed a connection");
        self.filled += read;
        Ok(())
    }

    async fn body(&mut self, length: usize) -> Result<usize> {
        let mut got = self.filled - self.head;
        while got < length {
            if self.head + length <= self.buffer.len() {
                self.fill().await?;
                got = self.filled - self.head;
            } else {
                let read = self.stream.read(&mut self.buffer[self.head..]).await?;
                ensure!(read > 0, "the body broke off");
                got += read;
            }
        }
        Ok(got)
    }

    /// Reads a chunked body whose start stands in the buffer.
    async fn chunks(&mut self) -> Result<usize> {
        let mut reading = Chunks::default();
        let (mut from, mut to) = (self.head, self.filled);
        while !reading.take(&self.buffer[from..to])? {
            from = self.head;
            to = from + self.stream.read(&mut self.buffer[from..]).await?;
            ensure!(to > from, "the body broke off");
        }
        Ok(reading.bytes)
    }

    /// Reads so many bytes that are no HTTP: what follows a 101.
    pub async fn raw(&mut self, bytes: usize) -> Result<&[u8]> {
        self.filled = self.stream.read_exact(&mut self.buffer[..bytes]).await?;
        Ok(&self.buffer[..bytes])
    }

    /// The answer before, as far as it is in the buffer.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned()
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// How a body's end is told. (Lines are compared where they stand: a head is read for each answer.)
fn framing(head: &[u8]) -> Result<Framing> {
    let (mut length, mut from) = (0, 0);
    for end in memchr_iter(b'\n', head) {
        let line = &head[std::mem::replace(&mut from, end + 1)..end];
        let Some(colon) = memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value)?.trim().parse()?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Ok(Framing::Chunked);
        }
    }
    Ok(Framing::Length(length))
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
