//! Why a segment cannot be written or read, and whether that is damage.

use std::io;
use std::path::Path;

use super::Missing;
use crate::codec::CodecError;
use crate::disk::{self, StoreError};
use crate::journal::reader::ReaderError;

/// Why a segment cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// sled failed, panicked, or is held by another handle.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file beside sled's failed.
    #[error("the journal's disk failed: {0}")]
    Io(#[from] io::Error),
    /// A file of this segment that its disk does not give back.
    #[error("a file of the segment cannot be read: {0}")]
    Unreadable(io::Error),
    /// A record beside sled's that cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The child that reads segments of earlier processes.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// Damage that was noticed by counting only.
    #[error("{} sequence numbers are missing", .0.chunks)]
    Missing(Missing),
    /// A chunk is missing that was there when the segment was closed, or looked through.
    #[error("something is missing in the segment that was there before")]
    Changed,
    /// What it was merged of is not what its `end` tells.
    #[error("the segment's lists of sources are gone, or of another segment")]
    Sources,
    /// It is listed, and there is none of it.
    #[error("the segment's directory is not there any more")]
    Gone,
    /// It can never be sent.
    #[error("a copy of this data directory has drained a part of what was merged into it")]
    Copied,
}

impl SegmentError {
    /// What reading a file of a segment's own failed with: a bad sector is damage of this segment,
    /// and of no other; that there are too many open files is not.
    pub(in crate::journal) fn of_reading(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |error| match disk::is_trouble(&error) {
            true => Self::Io(disk::at(path)(error)),
            false => Self::Unreadable(disk::at(path)(error)),
        }
    }

    /// Whether the segment itself is damaged: trying again will not help. Otherwise it is held by
    /// another process, or of a later version, or there is no room to read it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Store(StoreError::Sled(_))
            | Self::Missing(_)
            | Self::Changed
            | Self::Sources
            | Self::Gone
            | Self::Copied
            | Self::Unreadable(_) => true,
            Self::Store(StoreError::Locked | StoreError::Trouble(_)) | Self::Io(_) => false,
            Self::Codec(error) => !matches!(error, CodecError::Newer(_)),
            Self::Reader(error) => !matches!(error, ReaderError::Start(_)),
        }
    }

    /// Whether another process, or another handle, holds the segment for the moment.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Store(StoreError::Locked))
    }
}
