//! Clients: in cells that all their keys and sessions share.

use std::sync::Arc;

use super::entry::{ClientCell, KnownClient};
use super::overlay::Overlay;
use super::{Cache, Stored};
use crate::disk;
use crate::model::policy::Mode;
use crate::model::{Client, DEFAULT_POLICY, Name};

impl Cache {
    pub(super) fn client_in(&self, overlay: &Overlay, name: &str) -> Stored<Client> {
        if let Some(client) = self.declared.client(name) {
            return Ok(Some(client.clone()));
        }
        let stored = self.store.client(name)?.map(|row| row.client);
        Ok(stored.or_else(|| overlay.client(name).cloned()))
    }

    pub(super) fn known_client(&self, overlay: &Overlay, name: &str) -> Stored<KnownClient> {
        let Some(client) = self.client_in(overlay, name)? else { return Ok(None) };
        let policy = client.policy.clone().unwrap_or_else(|| DEFAULT_POLICY.into());
        let (mode, policy) = (self.mode_of(name)?, self.policy_cell(&policy)?);
        Ok(Some(KnownClient { client, mode, policy }))
    }

    fn mode_of(&self, name: &str) -> Stored<Mode> {
        if self.declares_client(name) {
            return Ok(self.declared.modes.get(name).copied());
        }
        Ok(self.store.client(name)?.and_then(|row| row.mode))
    }

    /// A client's own mode: declared, or as far as Postgres has told.
    pub fn client_mode(&self, name: &str) -> Option<Mode> {
        self.or_count(self.mode_of(name))
    }

    /// Whether it stands in the configuration, which wins over Postgres.
    pub fn declares_client(&self, name: &str) -> bool {
        self.declared.client(name).is_some()
    }

    pub(super) fn cell(
        &self,
        overlay: &Overlay,
        name: &Name,
    ) -> Result<Arc<ClientCell>, disk::StoreError> {
        let mut cells = self.cells();
        if let Some(cell) = cells.get(name) {
            return Ok(cell.clone());
        }
        let cell = Arc::new(ClientCell::new(name, self.known_client(overlay, name)?));
        cells.insert(name.clone(), cell.clone());
        Ok(cell)
    }

    /// Shows all keys of a client what is known of it now; whoever changed it has written that
    /// first.
    pub(super) fn show_client(&self, overlay: &Overlay, name: &str) {
        let cells = self.cells();
        let Some(cell) = cells.get(name) else { return };
        match self.known_client(overlay, name) {
            Ok(known) => cell.set(known),
            Err(error) => {
                self.metrics.cache.disk_errors.inc();
                tracing::error!(%error, client = name, "a client cannot be read");
            }
        }
    }
}
