//! `end`: where a segment ends, written beside sled's files.

use std::fs;
use std::io;
use std::path::Path;

use bincode::{Decode, Encode};

use super::SegmentError;
use crate::codec::{self, Kind};
use crate::disk;

const VERSION: u8 = 1;
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
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(codec::unseal(Kind::End, VERSION, &bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SegmentError::of_reading(&path)(error)),
        }
    }

    /// Writes and syncs it.
    pub(super) fn write(self, dir: &Path) -> Result<(), SegmentError> {
        disk::write_whole(&dir.join(FILE), &codec::seal(Kind::End, VERSION, &self)?)?;
        Ok(())
    }
}
