//! Why the journal cannot be opened, used or stopped.

use std::path::PathBuf;

use uuid::Uuid;

use crate::codec::CodecError;

/// Why the journal cannot be opened, or not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be used.
    #[error(
        "the journal directory {dir} cannot be used: {source}; check its owner, mode and free space"
    )]
    Io {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Written by a later version.
    #[error("the journal cannot be read: {0}")]
    Newer(CodecError),
    /// Another process holds a segment.
    #[error("segment {0} is held by another process; stop that one first")]
    Locked(Uuid),
    /// The thread cannot be started, or died.
    #[error("the journal thread failed: {0}")]
    Thread(String),
    /// Facts remain in memory that could not be written.
    #[error("the last {0} counters could not be written to disk and are lost")]
    Unwritten(usize),
}

/// The journal is full or failing: nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full or its disk is failing; see `gatepost log status`")]
pub struct Full;
