//! Entries of the hot tier: a decoded key, and cells that it shares with the other keys of its
//! client.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::model::{Client, Key, KeyState, Name, Principal, Timestamp};

/// A client as all its entries see it: a change reaches them at once.
#[derive(Debug, Default)]
pub struct ClientCell(ArcSwapOption<Client>);

impl ClientCell {
    /// A cell holding what is known of the client.
    pub fn new(client: Option<Client>) -> Self {
        Self(ArcSwapOption::from_pointee(client))
    }

    /// Replaces what is known.
    pub fn set(&self, client: Option<Client>) {
        self.0.store(client.map(Arc::new));
    }

    /// A client that nobody knows (it was deleted, or never made) is not enabled: deny wins.
    pub fn enabled(&self) -> bool {
        self.0.load().as_ref().is_some_and(|client| client.enabled)
    }
}

/// How many cells there may be before those are looked for that no entry shares any more.
const CELLS_MIN: usize = if cfg!(test) { 4 } else { 1024 };

/// The cells of all clients whose keys are in memory. At most [`CELLS_MIN`], or twice as many as
/// entries share: what the hot tier has let go of leaves with the next sweep.
#[derive(Debug)]
pub struct Cells {
    by_name: HashMap<Name, Arc<ClientCell>>,
    sweep_at: usize,
}

impl Default for Cells {
    fn default() -> Self {
        Self { by_name: HashMap::new(), sweep_at: CELLS_MIN }
    }
}

impl Cells {
    /// The cell of a client, if one is shared.
    pub fn get(&self, name: &str) -> Option<&Arc<ClientCell>> {
        self.by_name.get(name)
    }

    /// A new cell, to be shared by the entries of this client.
    pub fn insert(&mut self, name: Name, cell: Arc<ClientCell>) {
        if self.by_name.len() >= self.sweep_at {
            // Cells are handed out under the lock that is held here: nobody else can get one back.
            self.by_name.retain(|_, cell| Arc::strong_count(cell) > 1);
            self.sweep_at = (2 * self.by_name.len()).max(CELLS_MIN);
        }
        self.by_name.insert(name, cell);
    }
}

/// A key, decoded, with what decides it.
#[derive(Debug)]
pub struct Entry {
    key: Key,
    revoked_at: Option<Timestamp>,
    principal: Arc<Principal>,
    client: Arc<ClientCell>,
}

impl Entry {
    pub(super) fn new(key: Key, revoked_at: Option<Timestamp>, client: Arc<ClientCell>) -> Self {
        let principal = Arc::new(Principal {
            client: key.client.clone(),
            key_id: key.id,
            subject: "".into(),
            scopes: key.scopes.clone(),
        });
        Self { key, revoked_at, principal, client }
    }

    /// Who presents it.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// The key itself.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The key's state at `now`, revocations included.
    pub fn state(&self, now: Timestamp) -> KeyState {
        self.key.state(self.revoked_at, now)
    }

    /// Whether its client is enabled.
    pub fn client_enabled(&self) -> bool {
        self.client.enabled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_no_entry_shares_do_not_pile_up() {
        let mut cells = Cells::default();
        let mut shared = Vec::new();
        for at in 0..100 * CELLS_MIN {
            let cell = Arc::new(ClientCell::new(None));
            if at % 10 == 0 {
                shared.push(cell.clone());
            }
            cells.insert(at.to_string().into(), cell);
            assert!(cells.by_name.len() <= CELLS_MIN.max(2 * shared.len()), "{at}");
        }
        for (at, cell) in shared.iter().enumerate() {
            let kept = cells.get(&(at * 10).to_string()).expect("an entry shares it");
            assert!(Arc::ptr_eq(kept, cell));
        }
    }
}
