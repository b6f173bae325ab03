//! What the control plane asks of Postgres, answered by the `postgres` room.

use std::collections::HashMap;

use uuid::Uuid;

use crate::admin::{Answered, Directory, DirectoryError, LedgerRow, PolicyChange, SettledUsage};
use crate::journal::Journal;
use crate::model::fact::Lane;
use crate::model::policy::Mode;
use crate::model::{Name, Timestamp};
use crate::postgres::sink::Ledger;
use crate::postgres::{self, PostgresError, policies};

/// Direct reads and writes, and the streams whose ledger rows matter here.
pub struct PostgresDirectory {
    pub directory: postgres::Directory,
    pub journal: Journal,
}

impl From<PostgresError> for DirectoryError {
    fn from(error: PostgresError) -> Self {
        if let PostgresError::InUse(what) = error {
            Self::InUse(what)
        } else if error.is_unavailable() {
            Self::Unavailable(error.to_string())
        } else {
            Self::Other(error.to_string())
        }
    }
}

fn there(found: bool) -> Result<(), DirectoryError> {
    if found { Ok(()) } else { Err(DirectoryError::NotFound) }
}

impl Directory for PostgresDirectory {
    fn set_client_enabled(&self, name: Name, enabled: bool) -> Answered<'_, ()> {
        Box::pin(async move { there(self.directory.set_client_enabled(&name, enabled).await?) })
    }

    fn set_key_enabled(&self, id: Uuid, enabled: bool) -> Answered<'_, ()> {
        Box::pin(async move { there(self.directory.set_key_enabled(id, enabled).await?) })
    }

    fn set_client_mode(&self, name: Name, mode: Option<Mode>) -> Answered<'_, ()> {
        let mode = mode.map(Mode::as_str);
        Box::pin(async move { there(self.directory.set_client_mode(&name, mode).await?) })
    }

    fn policies(&self) -> Answered<'_, Vec<(String, String)>> {
        Box::pin(async move { Ok(self.directory.policies().await?) })
    }

    fn change_policies(
        &self,
        node: Name,
        actor: Name,
        changes: Vec<PolicyChange>,
        dry_run: bool,
    ) -> Answered<'_, ()> {
        let stored =
            |PolicyChange { event_id, name, spec }| policies::PolicyChange { event_id, name, spec };
        let changes: Vec<_> = changes.into_iter().map(stored).collect();
        Box::pin(async move {
            Ok(self.directory.change_policies(&node, &actor, &changes, dry_run).await?)
        })
    }

    fn settled_usage(
        &self,
        from_hour: Option<i64>,
        client: Option<Name>,
    ) -> Answered<'_, SettledUsage> {
        Box::pin(async move {
            let segments = self.journal.segments(Lane::Usage);
            let streams: Vec<Uuid> = segments.iter().map(|segment| segment.stream).collect();
            let since = from_hour.map(Timestamp::from_hour);
            let report = self.directory.usage(client.as_deref(), since, &streams).await?;
            Ok(SettledUsage {
                rows: report
                    .rows
                    .into_iter()
                    .map(|(name, counts)| (name.to_string(), counts))
                    .collect(),
                ledger: report.ledger,
            })
        })
    }

    fn ledger(&self, streams: Vec<Uuid>) -> Answered<'_, HashMap<Uuid, LedgerRow>> {
        Box::pin(async move {
            let rows = self.directory.ledger(&streams).await?.into_iter().map(|(stream, row)| {
                let Ledger { last_seq, closed_seq, underway, .. } = row;
                (stream, LedgerRow { last_seq, closed_seq, underway })
            });
            Ok(rows.collect())
        })
    }
}
