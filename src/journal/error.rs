//! Why the journal cannot be opened, used or stopped.

use std::fmt;
use std::path::PathBuf;

use uuid::Uuid;

use crate::codec::CodecError;

/// Why the journal cannot be opened, or not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be used.
    #[error(
        "the journal directory {dir} cannot be used: {source}; check owners, modes and free space"
    )]
    Io {
        /// Which directory.
        dir: PathBuf,
        /// Why, and which file in it.
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
    #[error("what could not be written to disk is lost: {0}")]
    Unwritten(Unwritten),
}

/// What memory held when the journal ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// Counters of usage.
    pub counters: usize,
    /// State facts.
    pub state: usize,
    /// Audit entries.
    pub events: usize,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counters, state, events } = self;
        write!(f, "{counters} counters, {state} changes of clients and keys, ")?;
        write!(f, "{events} audit entries")
    }
}

/// The journal is full or failing: nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full or its disk is failing; see `gatepost log status`")]
pub struct Full;
