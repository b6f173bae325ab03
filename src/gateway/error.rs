//! Why a gateway does not start, from what its parts say.

use crate::cache::CacheError;
use crate::journal::JournalError;
use crate::postgres::PostgresError;
use crate::tokens::KeysError;

/// Why a gateway did not start or a command could not be done; the command line turns each kind
/// into its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for something impossible (exit 78).
    #[error("{0}")]
    Config(String),
    /// Another process holds the data directory (exit 75).
    #[error("{0}")]
    Locked(String),
    /// There is no room on the disk of the data directory (exit 75).
    #[error("{0}")]
    DiskFull(String),
    /// Something that is needed cannot be reached (exit 69).
    #[error("{0}")]
    Unavailable(String),
    /// Anything else (exit 1).
    #[error("{0}")]
    Failed(String),
}

impl From<PostgresError> for Error {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::Url(_) => Self::Config(error.to_string()),
            error if error.is_unavailable() => Self::Unavailable(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Locked(_) => Self::Locked(error.to_string()),
            JournalError::Io { .. } | JournalError::Newer(_) => Self::Config(error.to_string()),
            JournalError::Thread(_) | JournalError::Unwritten(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Locked => Self::Locked(error.to_string()),
            CacheError::Io(_) | CacheError::Store(_) => Self::Config(error.to_string()),
        }
    }
}

impl From<KeysError> for Error {
    fn from(error: KeysError) -> Self {
        Self::Config(format!("the token keys cannot be used: {error}"))
    }
}
