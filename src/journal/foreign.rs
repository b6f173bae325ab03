//! Segment directories that are not part of the journal: in quarantine, or copied from somewhere.
//! Opening one with sled changes its files, so each is looked at in a copy: what may be the last
//! evidence stays as it is.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;

use super::quarantine::stream_of;
use super::segment::{EachChunk, End, Found, look_through};
use super::{Full, Journal, STATE_RESERVE, SegmentError};
use crate::disk;

/// Before the names of copies that are only looked at.
pub(super) const READING: &str = ".reading-";

/// Why a segment cannot be looked at or replayed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Neither a stream nor a directory.
    #[error(
        "`{0}` is neither a stream of the journal, nor in quarantine, nor the directory of a \
         segment; `gatepost log inspect` lists the streams"
    )]
    NotFound(String),
    /// Damaged more than once, by different copies.
    #[error(
        "several copies of stream {stream} are in quarantine: {names}; look at each by its name, \
         and take the best one"
    )]
    Several {
        /// Which stream.
        stream: Uuid,
        /// Their names below `quarantine/`.
        names: String,
    },
    /// A directory without a stream's id.
    #[error(
        "{0} does not end in the id of a stream; a copy keeps the name of its directory, \
         `<stream>` or `<lane>-<stream>`"
    )]
    Unnamed(PathBuf),
    /// Its facts are counted, or will be.
    #[error("stream {0} is in the journal: its facts are counted with it, and must not be twice")]
    Here(Uuid),
    /// Its facts are counted in another stream.
    #[error("stream {stream} was merged into {into}, which is in the journal: it is counted there")]
    Merged {
        /// Which.
        stream: Uuid,
        /// Into which.
        into: Uuid,
    },
    /// What it holds may have been logged elsewhere as well.
    #[error(
        "the segment has no readable `end`: its last counts may have been logged in another \
         segment as well. Was its gateway killed (kill -9, power cut), and did its disk not fail \
         before, then they were not: stop the gateway, move the directory to \
         journal/usage/{0}, start. Otherwise `gatepost log inspect` shows what it holds"
    )]
    NoEnd(Uuid),
    /// It holds facts of several lanes, or of another than it says.
    #[error("the segment holds facts that do not belong together: it was not written by gatepost")]
    Mixed,
    /// What it was merged of cannot be read: nobody can tell whether that is counted already.
    #[error(
        "the segment's `sources` cannot be read ({0}): what it was merged of may be counted \
         already; `gatepost log inspect` shows what it holds"
    )]
    Sources(SegmentError),
    /// Nothing in it can be read.
    #[error("nothing in the segment can be read: {0}")]
    Unreadable(SegmentError),
    /// The journal is full.
    #[error(transparent)]
    Full(#[from] Full),
    /// Copying it failed.
    #[error("the segment cannot be copied: {0}; check modes and free space")]
    Io(#[from] io::Error),
}

/// A segment's directory outside the journal.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Where it stands.
    pub dir: PathBuf,
    /// Which stream its name tells.
    pub stream: Uuid,
}

impl Foreign {
    /// The segment in `dir`.
    pub(super) fn of(dir: PathBuf) -> Result<Self, LogError> {
        if !dir.is_dir() {
            return Err(LogError::NotFound(dir.display().to_string()));
        }
        match stream_of(&dir.file_name().unwrap_or_default().to_string_lossy()) {
            Some(stream) => Ok(Self { dir, stream }),
            None if dir.join("db").is_file() => Err(LogError::Unnamed(dir)),
            None => Err(LogError::NotFound(dir.display().to_string())),
        }
    }

    /// Its `end`, if that can be read.
    pub(super) fn end(&self) -> Option<End> {
        End::read(&self.dir).ok().flatten()
    }
}

/// What was found in a copy, and whether all of it could be read.
pub(super) type Looked = (Found, Result<(), SegmentError>);

impl Journal {
    /// Reads the frames of a copied segment up to its end.
    pub(super) fn look_at_copy(
        &self,
        copy: &Path,
        stream: Uuid,
        end: Option<End>,
        each: EachChunk<'_>,
    ) -> Looked {
        let to = end.map_or(u64::MAX, |end| end.last_seq);
        let readied = disk::remove_half_snapshots(copy);
        if let Err(error) = readied {
            return (Found::default(), Err(error.into()));
        }
        let (found, read) = look_through(&self.reader, copy, stream, to, each);
        self.reader.rest();
        (found, read.map(drop))
    }

    /// Reads a segment outside the journal, in a copy that is gone afterwards. Blocks.
    pub(super) fn look_at(
        &self,
        foreign: &Foreign,
        each: EachChunk<'_>,
    ) -> Result<Looked, LogError> {
        let quarantine = self.quarantine_dir();
        disk::make_private_dir(&quarantine)?;
        let (size, free) = (disk::bytes_below(&foreign.dir), disk::free_bytes(&quarantine)?);
        // What runs must not go without: looking can wait.
        if free < size.saturating_add(STATE_RESERVE) {
            let why = format!("a copy takes {size} bytes, and only {free} are free; make room");
            return Err(io::Error::new(io::ErrorKind::StorageFull, why).into());
        }
        let copy: TempDir = tempfile::Builder::new().prefix(READING).tempdir_in(&quarantine)?;
        disk::copy_dir(&foreign.dir, copy.path())?;
        Ok(self.look_at_copy(copy.path(), foreign.stream, foreign.end(), each))
    }
}
