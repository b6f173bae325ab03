//! Chunks: what stands under one sequence number of a stream.
//!
//! ```text
//! frame(Chunk): stream (16) · seq (8, big-endian) · count (2, little-endian) · count facts
//! (bincode)
//! ```
//!
//! A chunk is at most [`CHUNK_MAX`] bytes: larger sled values may land in blob files that are never
//! synced. One fact is at most [`FACT_MAX`], checked when it is made.

use uuid::Uuid;

use crate::codec::{self, CodecError, Kind};
use crate::model::fact::Fact;

/// The largest chunk in bytes.
pub const CHUNK_MAX: usize = 4096;
/// The largest fact in bytes.
pub const FACT_MAX: usize = 1024;

const VERSION: u8 = 1;
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

/// Checks that a fact can be written. Call it where a fact is made, so that committing cannot fail
/// on it.
pub fn fits(fact: &Fact) -> bool {
    let mut bytes = Vec::new();
    codec::append(&mut bytes, fact).is_ok() && bytes.len() <= FACT_MAX
}

/// Packs facts into as few chunks as they need.
#[derive(Debug)]
pub struct Packer {
    stream: Uuid,
    next_seq: u64,
    frame: Vec<u8>,
    count: u16,
}

impl Packer {
    /// Packs for `stream`; the first chunk gets `next_seq`.
    pub fn new(stream: Uuid, next_seq: u64) -> Self {
        let mut packer = Self { stream, next_seq, frame: Vec::new(), count: 0 };
        packer.start();
        packer
    }

    fn start(&mut self) {
        self.frame = codec::open(Kind::Chunk, VERSION);
        self.frame.reserve(CHUNK_MAX);
        self.frame.extend_from_slice(self.stream.as_bytes());
        self.frame.extend_from_slice(&self.next_seq.to_be_bytes());
        self.frame.extend_from_slice(&[0; COUNT]);
        self.count = 0;
    }

    /// Adds a fact; returns the chunk before it when that one is full. A fact that does not fit
    /// into
    /// [`FACT_MAX`] is an error.
    pub fn push(&mut self, fact: &Fact) -> Result<Option<(u64, Vec<u8>)>, CodecError> {
        let before = self.frame.len();
        codec::append(&mut self.frame, fact)?;
        let size = self.frame.len() - before;
        if size > FACT_MAX {
            self.frame.truncate(before);
            return Err(CodecError::TooLarge);
        }
        if self.frame.len() + CHECK <= CHUNK_MAX {
            self.count += 1;
            return Ok(None);
        }
        let overflow = self.frame.split_off(before);
        let full = self.finish()?;
        self.frame.extend_from_slice(&overflow);
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

/// Reads the chunk that should stand at `seq` of `stream`.
pub fn read(stream: Uuid, seq: u64, frame: &[u8]) -> Result<Chunk, CodecError> {
    let payload = codec::payload(Kind::Chunk, VERSION, frame)?;
    let header = HEADER - 2;
    if frame.len() > CHUNK_MAX || payload.len() < header + COUNT {
        return Err(CodecError::Shape);
    }
    if payload[..16] != stream.as_bytes()[..] || payload[16..header] != seq.to_be_bytes() {
        return Err(CodecError::Shape);
    }
    let count = u16::from_le_bytes([payload[header], payload[header + 1]]);
    let mut rest = &payload[header + COUNT..];
    let mut facts = Vec::with_capacity(usize::from(count).min(CHUNK_MAX));
    for _ in 0..count {
        let (fact, left) = codec::take(rest)?;
        facts.push(fact);
        rest = left;
    }
    if rest.is_empty() { Ok(Chunk { seq, facts }) } else { Err(CodecError::Shape) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::fact::{Counter, Counts, UsageFact};

    fn fact(n: usize) -> Fact {
        let counter = Counter {
            client: format!("client-{n}").into(),
            key_id: Uuid::from_u128(n as u128),
            table: "orders".into(),
            operation: "read".into(),
            hour: 495_000,
        };
        Fact::Usage(UsageFact { counter, counts: Counts { requests: n as u64, ..Counts::ZERO } })
    }

    proptest! {
        #[test]
        fn packed_facts_come_back_in_order(count in 0usize..500) {
            let stream = Uuid::from_u128(7);
            let mut packer = Packer::new(stream, 1);
            let mut chunks = Vec::new();
            for n in 0..count {
                chunks.extend(packer.push(&fact(n)).expect("small"));
            }
            chunks.extend(packer.finish().expect("small"));
            let mut facts = Vec::new();
            for (at, (seq, frame)) in chunks.iter().enumerate() {
                prop_assert_eq!(*seq, at as u64 + 1);
                prop_assert!(frame.len() <= CHUNK_MAX);
                facts.extend(read(stream, *seq, frame).expect("whole").facts);
            }
            prop_assert_eq!(facts, (0..count).map(fact).collect::<Vec<_>>());
            prop_assert_eq!(packer.next_seq(), chunks.len() as u64 + 1);
        }
    }

    #[test]
    fn a_chunk_at_another_place_or_of_another_stream_is_refused() {
        let stream = Uuid::from_u128(7);
        let mut packer = Packer::new(stream, 5);
        packer.push(&fact(1)).expect("small");
        let (seq, frame) = packer.finish().expect("small").expect("one chunk");
        assert!(read(stream, seq, &frame).is_ok());
        assert_eq!(read(stream, seq + 1, &frame), Err(CodecError::Shape));
        assert_eq!(read(Uuid::from_u128(8), seq, &frame), Err(CodecError::Shape));
    }

    #[test]
    fn a_fact_of_more_than_its_bound_is_refused_and_the_chunk_stays_whole() {
        let stream = Uuid::from_u128(7);
        let mut packer = Packer::new(stream, 1);
        packer.push(&fact(1)).expect("small");
        let Fact::Usage(mut large) = fact(2) else { unreachable!() };
        large.counter.table = "t".repeat(FACT_MAX).into();
        assert!(!fits(&Fact::Usage(large.clone())));
        assert_eq!(packer.push(&Fact::Usage(large)), Err(CodecError::TooLarge));
        let (seq, frame) = packer.finish().expect("small").expect("one chunk");
        assert_eq!(read(stream, seq, &frame).expect("whole").facts, vec![fact(1)]);
    }
}
