//! Why a command failed, and the exit code that says so (sysexits.h where it has one).

use crate::{config, gateway};

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 69;
const TRY_AGAIN: u8 = 75;
const CONFIG: u8 = 78;

/// A failed command; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    TryAgain(String),
    #[error("{0}")]
    Config(String),
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => FAILED,
            Self::Usage(_) => USAGE,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::TryAgain(_) => TRY_AGAIN,
            Self::Config(_) => CONFIG,
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<gateway::Error> for Failure {
    fn from(error: gateway::Error) -> Self {
        let message = error.to_string();
        match error {
            gateway::Error::Config(_) => Self::Config(message),
            gateway::Error::Locked(_) | gateway::Error::DiskFull(_) => Self::TryAgain(message),
            gateway::Error::Unavailable(_) => Self::Unavailable(message),
            gateway::Error::Failed(_) => Self::Failed(message),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
