//! What is done with each input. The fuzz targets and the ordinary tests share it.
//!
//! A check sum would stop nearly every input at the door, so it is made right: what is tried is what
//! comes behind it. Whatever an input says, it is refused or read, and what is read is not more
//! than the input can hold.

use gatepost::codec::{self, CodecError, Kind};
use gatepost::journal::{CHUNK_MAX, CHUNK_VERSION, Chunk, End};
use gatepost::model::Key;
use gatepost::model::fact::Fact;
use uuid::Uuid;

const STREAM: Uuid = Uuid::from_u128(7);
const SEQ: u64 = 1;
/// Two numbers and a truth value.
const END_MAX: usize = 9 + 9 + 1;
/// The least that a fact takes.
const FACT_MIN: usize = 2;

/// Reads `data` as what stands in a chunk behind its stream and sequence number.
pub fn chunk(data: &[u8]) {
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

/// Reads `data` as the payload of every kind of frame.
pub fn frame(data: &[u8]) {
    for kind in [Kind::End, Kind::Row, Kind::Meta] {
        drop(codec::unseal::<Fact>(kind, 1, data));
        let mut frame = codec::open(kind, 1);
        frame.extend_from_slice(data);
        let Ok(frame) = codec::close(frame) else { return };
        assert_eq!(codec::payload(kind, 1, &frame), Ok(data));
        assert!(codec::unseal::<End>(kind, 1, &frame).is_err() || data.len() <= END_MAX);
        drop(codec::unseal::<Fact>(kind, 1, &frame));
        drop(codec::unseal::<Key>(kind, 1, &frame));
        if let Ok(texts) = codec::unseal::<Vec<String>>(kind, 1, &frame) {
            let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
            assert!(bytes <= data.len());
        }
    }
}
