//! What can be wrong with a configuration; every message names the place and what to do.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or the variable that it stands in.
    pub origin: String,
    /// The dotted key, `routes[0].upstream`.
    pub key: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.key, self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: cannot be read ({cause}){hint}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
        /// Who asked for it.
        hint: &'static str,
    },
    /// It is not TOML.
    #[error("{origin}: not valid TOML\n{message}")]
    Syntax {
        /// The file.
        origin: String,
        /// The parser's words, with line and column.
        message: String,
    },
    /// It is TOML, but not a configuration of this version.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
