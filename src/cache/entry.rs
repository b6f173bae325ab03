//! Entries of the hot tier: a decoded key, and cells that it shares with the other keys of its
//! client.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::model::{Client, Key, KeyState, Principal, Timestamp};

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
    fn enabled(&self) -> bool {
        self.0.load().as_ref().is_some_and(|client| client.enabled)
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
