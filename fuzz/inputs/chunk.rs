//! What is done with an input of the chunk decoder.
//!
//! The fuzz target and the ordinary tests share this. A check sum would stop nearly every input at
//! the door, so it is made right: what is tried is what comes behind it. Whatever an input says, it
//! is refused or read, and what is read is not more than the input can hold.

use gatepost::codec::{self, CodecError, Kind};
use gatepost::journal::{CHUNK_MAX, CHUNK_VERSION, Chunk};
use uuid::Uuid;

const STREAM: Uuid = Uuid::from_u128(7);
const SEQ: u64 = 1;
/// The least that a fact takes.
const FACT_MIN: usize = 2;

/// Reads `data` as what stands in a chunk behind its stream and sequence number.
pub fn read(data: &[u8]) {
    // Damage first: as it is, it is most probably no frame at all.
    drop(Chunk::read(STREAM, SEQ, data));
    let mut frame = codec::open(Kind::Chunk, CHUNK_VERSION);
    frame.extend_from_slice(STREAM.as_bytes());
    frame.extend_from_slice(&SEQ.to_be_bytes());
    frame.extend_from_slice(data);
    let Ok(frame) = codec::close(frame) else { return };
    match Chunk::read(STREAM, SEQ, &frame) {
        Ok(chunk) => {
            assert!(frame.len() <= CHUNK_MAX && chunk.facts.len() * FACT_MIN <= data.len());
        }
        Err(error) => assert_eq!(error, CodecError::Shape),
    }
    assert_eq!(Chunk::read(STREAM, SEQ + 1, &frame), Err(CodecError::Shape));
}
