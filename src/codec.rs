//! Versioned, checksummed, size-limited frames around bincode: everything that we write to disk.
//!
//! ```text
//! kind (1) · version (1) · payload · crc32 of all before it (4, little-endian)
//! ```
//!
//! The check sum is looked at first, so that nothing of a damaged frame is ever interpreted; then
//! kind and version; then the payload, which must be used up exactly. CRC-32 (IEEE) is what sled
//! brings with it.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

/// The largest frame that is read or written, in bytes. bincode allocates by lengths that it
/// reads, so a limit is what keeps a hostile file from asking for the whole memory.
pub const FRAME_MAX: usize = 65_536;

const HEADER: usize = 2;
const CHECK: usize = 4;

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Too short, too long, or the check sum is wrong.
    #[error("the record is damaged")]
    Damaged,
    /// Whole, but of a version that this program does not know.
    #[error("the record was written by a newer version ({0}); start that version or a later one")]
    Newer(u8),
    /// Whole, but of a version that this program reads no more.
    #[error("the record was written by an older version ({0}); let that version drain it first")]
    Older(u8),
    /// Whole, but not what was looked for, or with bytes left over.
    #[error("the record is not of the expected shape")]
    Shape,
    /// Too large to be written.
    #[error("the record exceeds {FRAME_MAX} bytes")]
    TooLarge,
}

/// What a frame holds; the first byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A chunk of the journal.
    Chunk = 0xC1,
    /// The end mark of a segment.
    End = 0xE1,
    /// A part of the list of streams that a segment was merged from.
    Sources = 0xE2,
    /// What is remembered of a removed segment.
    Removed = 0xE3,
    /// A row of the cache.
    Row = 0xA1,
    /// The cache's position and age.
    Meta = 0xA2,
}

const fn bounded() -> Configuration<LittleEndian, Varint, Limit<FRAME_MAX>> {
    bincode::config::standard().with_limit::<FRAME_MAX>()
}

/// Appends the bare encoding of `value` to `bytes`; on an error `bytes` is as it was.
pub fn append<T: Encode>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let before = bytes.len();
    bincode::encode_into_std_write(value, bytes, bounded()).map(|_| ()).map_err(|_| {
        bytes.truncate(before);
        CodecError::TooLarge
    })
}

/// Reads one bare value from the front of `bytes`, and what is left of them.
pub fn take<T: Decode<()>>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    let (value, used) =
        bincode::decode_from_slice(bytes, bounded()).map_err(|_| CodecError::Shape)?;
    Ok((value, &bytes[used..]))
}

/// Reads one text from the front of `bytes` without copying it, and what is left of them.
pub fn take_text(bytes: &[u8]) -> Result<(&str, &[u8]), CodecError> {
    let (text, used) =
        bincode::borrow_decode_from_slice(bytes, bounded()).map_err(|_| CodecError::Shape)?;
    Ok((text, &bytes[used..]))
}

/// Starts a frame: payload goes behind what this returns, then [`close`].
pub fn open(kind: Kind, version: u8) -> Vec<u8> {
    vec![kind as u8, version]
}

/// Ends a frame that [`open`] started.
pub fn close(mut frame: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    let sum = crc32fast::hash(&frame);
    frame.extend_from_slice(&sum.to_le_bytes());
    if frame.len() > FRAME_MAX { Err(CodecError::TooLarge) } else { Ok(frame) }
}

/// Checks a frame and returns its payload.
pub fn payload(kind: Kind, version: u8, frame: &[u8]) -> Result<&[u8], CodecError> {
    if !(HEADER + CHECK..=FRAME_MAX).contains(&frame.len()) {
        return Err(CodecError::Damaged);
    }
    let (covered, sum) = frame.split_at(frame.len() - CHECK);
    if crc32fast::hash(covered).to_le_bytes() != sum {
        return Err(CodecError::Damaged);
    }
    if covered[0] != kind as u8 {
        return Err(CodecError::Shape);
    }
    if covered[1] > version {
        return Err(CodecError::Newer(covered[1]));
    }
    if covered[1] < version {
        return Err(CodecError::Older(covered[1]));
    }
    Ok(&covered[HEADER..])
}

/// A whole frame around one value.
pub fn seal<T: Encode>(kind: Kind, version: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = open(kind, version);
    append(&mut frame, value)?;
    close(frame)
}

/// Reads a frame around one value; all of it must be used.
pub fn unseal<T: Decode<()>>(kind: Kind, version: u8, frame: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = take(payload(kind, version, frame)?)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Shape) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_is_read_back(value: (u64, String)) {
            let frame = seal(Kind::Row, 1, &value);
            prop_assume!(frame.is_ok());
            let frame = frame.expect("sealed");
            prop_assert_eq!(unseal::<(u64, String)>(Kind::Row, 1, &frame), Ok(value));
        }

        #[test]
        fn every_flipped_bit_is_noticed(value: (u64, u64), at: Index, bit in 0u32..8) {
            let mut frame = seal(Kind::Row, 1, &value).expect("small");
            let at = at.index(frame.len());
            frame[at] ^= 1u8 << bit;
            prop_assert_eq!(unseal::<(u64, u64)>(Kind::Row, 1, &frame), Err(CodecError::Damaged));
        }

        #[test]
        fn garbage_neither_panics_nor_allocates_without_bound(bytes: Vec<u8>) {
            prop_assert!(unseal::<Vec<String>>(Kind::Row, 1, &bytes).is_err());
            if let Ok((text, _)) = take::<String>(&bytes) {
                prop_assert!(text.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn another_version_and_another_kind_are_told_apart_from_damage() {
        let frame = seal(Kind::Row, 2, &7u8).expect("small");
        assert_eq!(unseal::<u8>(Kind::Row, 1, &frame), Err(CodecError::Newer(2)));
        assert_eq!(unseal::<u8>(Kind::Row, 3, &frame), Err(CodecError::Older(2)));
        assert_eq!(unseal::<u8>(Kind::End, 2, &frame), Err(CodecError::Shape));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut frame = open(Kind::Row, 1);
        append(&mut frame, &1u8).expect("small");
        append(&mut frame, &2u8).expect("small");
        let frame = close(frame).expect("small");
        assert_eq!(unseal::<u8>(Kind::Row, 1, &frame), Err(CodecError::Shape));
    }
}
