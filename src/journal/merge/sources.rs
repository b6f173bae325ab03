//! `sources`: what a merged segment was merged from. The first file in its directory, and because
//! nothing else tells what must not be counted again, twice: `sources-copy` is the same. One of
//! them that is whole is enough.
//!
//! ```text
//! parts: length (4, little-endian) · frame(Part)
//! ```
//!
//! A day of outage may name tens of thousands of streams and a frame holds 64 KiB, so the list
//! comes in parts. Each says which it is of how many, and of which stream.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bincode::{Decode, Encode};
use uuid::Uuid;

use crate::codec::{self, CodecError, Kind};
use crate::disk;
use crate::journal::{End, SegmentError};

const VERSION: u8 = 1;
/// The files' names, the one that earlier versions wrote alone first.
const NAMES: [&str; 2] = ["sources", "sources-copy"];
/// Streams named in one part: 24 bytes each leave room in a frame.
const PART: usize = 2048;
/// The most streams that one segment may stand for. All are retired in the transaction that takes
/// it from 0.
pub const SOURCES_MAX: usize = 32_768;
/// No file with that many is longer, in bytes.
const FILE_MAX: u64 = (SOURCES_MAX as u64 + 2 * PART as u64) * 40;

/// A stream that was merged into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Which.
    pub stream: Uuid,
    /// Everything of it up to here is in the merged one.
    pub last_seq: u64,
}

/// How many sources there are, and a check sum over them: the segment's `end` tells it, so that a
/// merged segment without its list is not taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sum {
    count: u64,
    crc32: u32,
}

impl Sum {
    /// Of a segment's sources; `None` where there are none.
    pub fn of(sources: &[Source]) -> Option<Self> {
        let mut crc32 = crc32fast::Hasher::new();
        for source in sources {
            crc32.update(source.stream.as_bytes());
            crc32.update(&source.last_seq.to_le_bytes());
        }
        let sum = Self { count: sources.len() as u64, crc32: crc32.finalize() };
        (sum.count > 0).then_some(sum)
    }
}

#[derive(Encode, Decode)]
struct Part {
    of_stream: [u8; 16],
    number: u32,
    of: u32,
    sources: Vec<([u8; 16], u64)>,
}

/// Writes the list for `stream` into `dir`, durably.
pub(super) fn write(dir: &Path, stream: Uuid, sources: &[Source]) -> Result<(), SegmentError> {
    let of = u32::try_from(sources.chunks(PART).len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    for (number, part) in (0..).zip(sources.chunks(PART)) {
        let sources = part.iter().map(|s| (s.stream.into_bytes(), s.last_seq)).collect();
        let part = Part { of_stream: stream.into_bytes(), number, of, sources };
        let frame = codec::seal(Kind::Sources, VERSION, &part)?;
        bytes.extend(u32::try_from(frame.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(frame);
    }
    for name in NAMES {
        disk::write_whole(&dir.join(name), &bytes)?;
    }
    Ok(())
}

/// Whether `dir` belongs to a merged segment, whole or not.
pub(super) fn exist(dir: &Path) -> bool {
    NAMES.iter().any(|name| dir.join(name).exists())
}

/// Reads the list in `dir`, and holds it against what the segment's `end` tells of it; `None` where
/// nothing was merged. That none is whole is an error: what it does not name might be counted
/// twice.
pub fn read(dir: &Path, stream: Uuid) -> Result<Option<Arc<[Source]>>, SegmentError> {
    let sources = read_list(dir, stream)?;
    // Whoever wants the end itself says what is to become of one that cannot be read. (Earlier
    // versions told nothing.)
    let told = End::read_with_sum(dir).ok().flatten().and_then(|(_, sum)| sum);
    if told.is_some() && told != Sum::of(sources.as_deref().unwrap_or_default()) {
        return Err(SegmentError::Sources);
    }
    Ok(sources)
}

fn read_list(dir: &Path, stream: Uuid) -> Result<Option<Arc<[Source]>>, SegmentError> {
    let mut first = None;
    for name in NAMES {
        match read_file(&dir.join(name), stream) {
            Ok(Some(sources)) => {
                if let Some(error) = first {
                    tracing::warn!(%stream, %error, "a list of sources is read from its copy");
                }
                return Ok(Some(sources));
            }
            Ok(None) => {}
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(None), Err)
}

fn read_file(path: &Path, stream: Uuid) -> Result<Option<Arc<[Source]>>, SegmentError> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_MAX => Err(CodecError::Damaged.into()),
        Ok(_) => {
            let bytes = fs::read(path).map_err(SegmentError::of_reading(path))?;
            Ok(Some(parse(&bytes, stream)?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SegmentError::of_reading(path)(error)),
    }
}

fn parse(mut bytes: &[u8], stream: Uuid) -> Result<Arc<[Source]>, CodecError> {
    let (mut sources, mut parts, mut of) = (Vec::new(), 0, 0);
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (frame, rest) = rest.split_at_checked(length).ok_or(CodecError::Damaged)?;
        let part: Part = codec::unseal(Kind::Sources, VERSION, frame)?;
        if part.of_stream != *stream.as_bytes() || part.number != parts {
            return Err(CodecError::Shape);
        }
        let source = |(stream, last_seq)| Source { stream: Uuid::from_bytes(stream), last_seq };
        sources.extend(part.sources.into_iter().map(source));
        (parts, of, bytes) = (parts + 1, part.of, rest);
    }
    let whole = bytes.is_empty() && parts == of && parts > 0;
    if whole { Ok(sources.into()) } else { Err(CodecError::Damaged) }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn list(count: u128) -> Vec<Source> {
        (0..count).map(|n| Source { stream: Uuid::from_u128(n << 64 | 7), last_seq: 9 }).collect()
    }

    #[test]
    fn a_day_of_streams_comes_back_in_order() {
        let dir = TempDir::new().expect("temporary directory");
        let stream = Uuid::from_u128(1);
        assert!(matches!(read(dir.path(), stream), Ok(None)));
        for count in [1, 2048, 2049, SOURCES_MAX as u128] {
            write(dir.path(), stream, &list(count)).expect("writable");
            let back = read(dir.path(), stream).expect("whole").expect("there");
            assert_eq!(*back, *list(count));
        }
    }

    #[test]
    fn a_list_that_is_cut_or_of_another_stream_is_not_believed() {
        let dir = TempDir::new().expect("temporary directory");
        let stream = Uuid::from_u128(1);
        write(dir.path(), stream, &list(5000)).expect("writable");
        assert!(read(dir.path(), Uuid::from_u128(2)).is_err());
        let whole = fs::read(dir.path().join(NAMES[0])).expect("there");
        let first = 4 + u32::from_le_bytes(whole[..4].try_into().expect("four")) as usize;
        for length in [0, 3, 4, first - 1, first, first + 4, whole.len() - 1] {
            for name in NAMES {
                fs::write(dir.path().join(name), &whole[..length]).expect("writable");
            }
            assert!(read(dir.path(), stream).is_err(), "{length} bytes of {}", whole.len());
        }
    }

    #[test]
    fn either_of_the_two_is_enough_and_none_is_none() {
        let dir = TempDir::new().expect("temporary directory");
        let stream = Uuid::from_u128(1);
        write(dir.path(), stream, &list(5000)).expect("writable");
        let whole = fs::read(dir.path().join(NAMES[0])).expect("there");
        let mut zeroed = whole.clone();
        zeroed[4096..8192].fill(0);
        for name in NAMES {
            let path = dir.path().join(name);
            for harm in [Some(&zeroed[..]), Some(&whole[..4096]), Some(b""), None] {
                match harm {
                    Some(bytes) => fs::write(&path, bytes).expect("writable"),
                    // As an earlier version left it, or the other way round.
                    None => fs::remove_file(&path).expect("there"),
                }
                assert!(exist(dir.path()));
                let back = read(dir.path(), stream).expect("one is whole").expect("there");
                assert_eq!(*back, *list(5000), "{name}");
            }
            fs::write(&path, &whole).expect("writable");
        }
        // An earlier version's, damaged: not the same as none.
        fs::remove_file(dir.path().join(NAMES[1])).expect("there");
        fs::write(dir.path().join(NAMES[0]), &zeroed).expect("writable");
        assert!(read(dir.path(), stream).is_err() && exist(dir.path()));
        fs::remove_file(dir.path().join(NAMES[0])).expect("there");
        assert!(!exist(dir.path()) && matches!(read(dir.path(), stream), Ok(None)));
    }

    #[test]
    fn any_bytes_name_no_more_sources_than_they_hold() {
        let dir = TempDir::new().expect("temporary directory");
        let stream = Uuid::from_u128(1);
        write(dir.path(), stream, &list(3)).expect("writable");
        let file = fs::read(dir.path().join(NAMES[0])).expect("there");
        let part = codec::payload(Kind::Sources, VERSION, &file[4..]).expect("whole").to_vec();
        crate::fuzz::each("sources", &[file, part], |bytes| {
            drop(parse(bytes, stream));
            let Some(frame) = crate::fuzz::framed(Kind::Sources, VERSION, bytes) else { return };
            let length = u32::try_from(frame.len()).expect("a frame is short").to_le_bytes();
            if let Ok(sources) = parse(&[&length[..], &frame].concat(), stream) {
                assert!(sources.len() * 17 <= bytes.len());
            }
        });
    }
}
