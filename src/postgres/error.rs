//! What can go wrong with Postgres, told apart by what the reader can do about it.

use std::time::Duration;

/// Why Postgres was not used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The configuration is wrong.
    #[error("the Postgres URL cannot be used ({0}); write it like postgres://user@host/database")]
    Url(String),
    /// It is not there, or refuses connections.
    #[error("Postgres cannot be reached: {0}")]
    Unavailable(String),
    /// It did not answer.
    #[error("Postgres did not answer within {0:?}")]
    Deadline(Duration),
    /// The schema is missing or older than this program.
    #[error("the database lacks gatepost's tables ({0}); run `gatepost migrate`")]
    NotMigrated(String),
    /// The schema is from a later version of this program.
    #[error(
        "the database has migration {0}, which this version does not know; upgrade gatepost, or \
         point it at another database"
    )]
    Newer(i64),
    /// A migration that was applied differs from the one in this program.
    #[error(
        "migration {0} of the database is not the one of this version; restore the database or use \
         the version of gatepost that made it"
    )]
    Altered(i64),
    /// Something else needs what would go away.
    #[error("{0}")]
    InUse(String),
    /// Postgres answered with an error.
    #[error("Postgres refused: {0}")]
    Refused(String),
}

impl PostgresError {
    /// Whether it is worth trying again later, with nothing changed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Deadline(_))
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> Self {
        let Some(answer) = error.as_database_error() else {
            return Self::Unavailable(error.to_string());
        };
        match answer.code().as_deref().unwrap_or_default() {
            // Connection trouble, too many connections, shutting down, cancelled by a timeout.
            code if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                Self::Unavailable(answer.message().to_owned())
            }
            // A schema, table, column or function that is not there.
            "3F000" | "42P01" | "42703" | "42883" => Self::NotMigrated(answer.message().to_owned()),
            "23503" => Self::InUse(answer.message().to_owned()),
            _ => Self::Refused(answer.message().to_owned()),
        }
    }
}
