//! Chunks: what stands under one sequence number of a stream.
//!
//! ```text
//! frame(Chunk): stream (16) · seq (8, big-endian) · count (2, little-endian) · count facts (delta)
//! ```
//!
//! A chunk is at most [`CHUNK_MAX`] bytes: larger sled values may land in blob files that are never
//! synced. One fact is at most [`FACT_MAX`], checked when it is made. Facts are written as what
//! differs from the fact before them (`delta`), and a chunk is read without any other: a lost one
//! costs no more than its own facts.

mod delta;

use bincode::Encode;
use uuid::Uuid;

use crate::codec::{self, CodecError, Kind};
use crate::model::fact::{AuditEntry, Counter, Counts, Event, Fact, QuotaKey, StateFact};

/// The largest chunk in bytes.
pub const CHUNK_MAX: usize = 4096;
/// The largest fact in bytes.
pub const FACT_MAX: usize = 1024;

/// The version of the frame around a chunk.
pub const CHUNK_VERSION: u8 = 2;
const HEADER: usize = 2 + 16 + 8;
const CHECK: usize = 4;
const COUNT: usize = 2;

/// A chunk as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the stream, dense from 1.
    pub seq: u64,
    /// What it says.
    pub facts: Vec<Fact>,
}

impl Chunk {
    /// Reads the chunk that should stand at `seq` of `stream`.
    pub fn read(stream: Uuid, seq: u64, frame: &[u8]) -> Result<Self, CodecError> {
        let payload = codec::payload(Kind::Chunk, CHUNK_VERSION, frame)?;
        let header = HEADER - 2;
        if frame.len() > CHUNK_MAX || payload.len() < header + COUNT {
            return Err(CodecError::Shape);
        }
        if payload[..16] != stream.as_bytes()[..] || payload[16..header] != seq.to_be_bytes() {
            return Err(CodecError::Shape);
        }
        let count = usize::from(u16::from_le_bytes([payload[header], payload[header + 1]]));
        let mut rest = &payload[header + COUNT..];
        if count > rest.len() / delta::FACT_MIN {
            return Err(CodecError::Shape);
        }
        let mut before = delta::Before::default();
        let mut facts = Vec::with_capacity(count);
        for _ in 0..count {
            facts.push(before.take(&mut rest)?);
        }
        if rest.is_empty() { Ok(Self { seq, facts }) } else { Err(CodecError::Shape) }
    }

    /// The chunk of `stream` that begins with `bytes`, wherever it ends; none that is not whole.
    pub(super) fn at_front(stream: Uuid, bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(CHUNK_MAX)];
        let seq = seq_behind(bytes)?;
        let count = u16::from_le_bytes(bytes.get(HEADER..HEADER + COUNT)?.try_into().ok()?);
        let mut rest = &bytes[HEADER + COUNT..];
        let mut before = delta::Before::default();
        for _ in 0..count {
            before.take(&mut rest).ok()?;
        }
        let len = bytes.len() - rest.len() + CHECK;
        Self::read(stream, seq, bytes.get(..len)?).ok()
    }
}

/// What every chunk of `stream` begins with.
pub(super) fn head_of(stream: Uuid) -> Vec<u8> {
    let mut head = codec::open(Kind::Chunk, CHUNK_VERSION);
    head.extend_from_slice(stream.as_bytes());
    head
}

/// The sequence number that stands behind the head of a chunk.
pub(super) fn seq_behind(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(HEADER - 8..HEADER)?.try_into().ok()?))
}

/// A fact where it was recorded, on its way into a chunk. Encoded as [`Fact`] is.
#[derive(Clone, Copy, Debug, Encode)]
pub enum FactRef<'a> {
    /// State lane.
    State(&'a StateFact),
    /// Usage lane.
    Usage(&'a Counter, &'a Counts),
    /// Events lane.
    Audit(&'a AuditEntry),
    /// Quota lane.
    Quota(&'a QuotaKey, &'a u64),
    /// Events lane.
    Event(&'a Event),
}

impl<'a> From<&'a Fact> for FactRef<'a> {
    fn from(fact: &'a Fact) -> Self {
        match fact {
            Fact::State(fact) => Self::State(fact),
            Fact::Usage(fact) => Self::Usage(&fact.counter, &fact.counts),
            Fact::Audit(entry) => Self::Audit(entry),
            Fact::Quota(fact) => Self::Quota(&fact.key, &fact.used),
            Fact::Event(event) => Self::Event(event),
        }
    }
}

/// Checks that a fact can be written. Call it where a fact is made, so that committing cannot fail
/// on it.
pub fn fits(entry: FactRef<'_>) -> bool {
    match entry {
        FactRef::Usage(Counter { client, table, operation, .. }, _) => {
            client.len() + table.len() + operation.len() + delta::OVERHEAD_MAX <= FACT_MAX
        }
        whole => {
            let mut bytes = Vec::new();
            codec::append(&mut bytes, &whole).is_ok() && bytes.len() < FACT_MAX
        }
    }
}

/// Packs facts into as few chunks as they need.
#[derive(Debug)]
pub struct Packer {
    stream: Uuid,
    next_seq: u64,
    frame: Vec<u8>,
    count: u16,
    before: delta::Before,
}

impl Packer {
    /// Packs for `stream`; the first chunk gets `next_seq`.
    pub fn new(stream: Uuid, next_seq: u64) -> Self {
        let before = delta::Before::default();
        let mut packer = Self { stream, next_seq, frame: Vec::new(), count: 0, before };
        packer.start();
        packer
    }

    fn start(&mut self) {
        self.frame = codec::open(Kind::Chunk, CHUNK_VERSION);
        self.frame.reserve(CHUNK_MAX + FACT_MAX);
        self.frame.extend_from_slice(self.stream.as_bytes());
        self.frame.extend_from_slice(&self.next_seq.to_be_bytes());
        self.frame.extend_from_slice(&[0; COUNT]);
        self.count = 0;
        self.before = delta::Before::default();
    }

    /// Adds a fact; returns the chunk before it when that one is full. A fact that does not fit
    /// into [`FACT_MAX`] is an error. Facts that are alike take the least room side by side.
    pub fn push(&mut self, entry: FactRef<'_>) -> Result<Option<(u64, Vec<u8>)>, CodecError> {
        if !fits(entry) {
            return Err(CodecError::TooLarge);
        }
        let at = self.frame.len();
        self.before.append(&mut self.frame, entry)?;
        self.count += 1;
        if self.frame.len() + CHECK <= CHUNK_MAX {
            return Ok(None);
        }
        // It begins the next chunk, and is written anew: there, nothing stands before it.
        self.frame.truncate(at);
        self.count -= 1;
        let full = self.finish()?;
        self.before.append(&mut self.frame, entry)?;
        self.count = 1;
        Ok(full)
    }

    /// Ends the chunk under way, if it holds anything, and starts the next.
    pub fn finish(&mut self) -> Result<Option<(u64, Vec<u8>)>, CodecError> {
        if self.count == 0 {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame[HEADER..HEADER + COUNT].copy_from_slice(&self.count.to_le_bytes());
        let seq = self.next_seq;
        self.next_seq += 1;
        self.start();
        Ok(Some((seq, codec::close(frame)?)))
    }

    /// The sequence number that the next chunk will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }
}

#[cfg(test)]
mod tests;
