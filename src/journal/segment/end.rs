//! `end`: where a segment ends, written beside sled's files.

use std::fs;
use std::io;
use std::path::Path;

use bincode::{Decode, Encode};

use super::SegmentError;
use crate::codec::{self, CodecError, Kind};
use crate::disk;
use crate::journal::merge::sources::Sum;

/// Of a segment into which nothing was merged.
const PLAIN: u8 = 1;
/// It tells the sources as well.
const MERGED: u8 = 2;
const FILE: &str = "end";

/// What is known of a segment that takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// The last sequence number; 0 when nothing was committed.
    pub last_seq: u64,
    /// Facts in all chunks up to it.
    pub facts: u64,
    /// Said by the writer itself: there is nothing beyond. Otherwise a reader found so much, and in
    /// the directory that this is a copy of there may be more.
    pub sealed: bool,
}

impl End {
    /// Reads the `end` of the segment in `dir`; `None` where there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, SegmentError> {
        Ok(Self::read_with_sum(dir)?.map(|(end, _)| end))
    }

    /// Besides, what it tells of the segment's sources.
    pub(in crate::journal) fn read_with_sum(
        dir: &Path,
    ) -> Result<Option<(Self, Option<Sum>)>, SegmentError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SegmentError::of_reading(&path)(error)),
        };
        match codec::unseal(Kind::End, MERGED, &bytes) {
            Ok((end, sum)) => Ok(Some((end, Some(sum)))),
            Err(CodecError::Older(PLAIN)) => {
                Ok(Some((codec::unseal(Kind::End, PLAIN, &bytes)?, None)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes and syncs it; with what is to be told of the segment's sources, if it has any.
    pub(super) fn write(self, dir: &Path, sources: Option<Sum>) -> Result<(), SegmentError> {
        let frame = match sources {
            Some(sum) => codec::seal(Kind::End, MERGED, &(self, sum))?,
            None => codec::seal(Kind::End, PLAIN, &self)?,
        };
        disk::write_whole(&dir.join(FILE), &frame)?;
        Ok(())
    }
}
