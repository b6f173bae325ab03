//! Entries of the hot tier: a decoded key, and cells that it shares with other keys: of its client,
//! and of their policies. A change to one client or policy reaches all of them at once.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::model::policy::{Mode, Rules};
use crate::model::{Client, Key, KeyState, Name, Principal, Timestamp};

/// A policy as all that have it see it.
#[derive(Debug, Default)]
pub struct PolicyCell(ArcSwapOption<Rules>);

impl PolicyCell {
    /// A cell holding what the policy says; `None`: nobody knows it.
    pub fn new(rules: Option<Rules>) -> Self {
        Self(ArcSwapOption::from_pointee(rules))
    }

    /// Replaces what it says.
    pub fn set(&self, rules: Option<Rules>) {
        self.0.store(rules.map(Arc::new));
    }
}

/// What is known of a client.
#[derive(Debug)]
pub struct KnownClient {
    /// Its row.
    pub client: Client,
    /// Its own mode, which wins over its policy's.
    pub mode: Option<Mode>,
    /// The policy of its keys that name none themselves.
    pub policy: Arc<PolicyCell>,
}

/// A client as all its entries see it.
#[derive(Debug)]
pub struct ClientCell {
    name: Name,
    scope: u128,
    known: ArcSwapOption<KnownClient>,
}

/// What a caller's requests are held against.
#[derive(Clone, Debug)]
pub struct Enforcement {
    /// The key's policy, else its client's, else `default`. `None`: it has one that nobody knows,
    /// so nobody can say what it may do.
    pub rules: Option<Arc<Rules>>,
    /// The client's own mode.
    pub mode: Option<Mode>,
    /// Stands for the client wherever its limits are counted.
    pub client_scope: u128,
}

impl ClientCell {
    /// A cell holding what is known of the client `name`.
    pub fn new(name: &Name, known: Option<KnownClient>) -> Self {
        // 128 bits of SHA-256: no two clients share them.
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
        let mut scope = [0; 16];
        scope.copy_from_slice(&hash.as_ref()[..16]);
        let known = ArcSwapOption::from_pointee(known);
        Self { name: Arc::clone(name), scope: u128::from_be_bytes(scope), known }
    }

    /// Replaces what is known.
    pub fn set(&self, known: Option<KnownClient>) {
        self.known.store(known.map(Arc::new));
    }

    /// A client that nobody knows (it was deleted, or never made) is not enabled: deny wins.
    pub fn enabled(&self) -> bool {
        self.known.load().as_ref().is_some_and(|known| known.client.enabled)
    }

    /// What requests are held against that come with a key whose own policy is `own`.
    pub fn enforcement(&self, own: Option<&PolicyCell>) -> Enforcement {
        let known = self.known.load();
        let policy = own.or_else(|| known.as_ref().map(|known| &*known.policy));
        Enforcement {
            rules: policy.and_then(|policy| policy.0.load_full()),
            mode: known.as_ref().and_then(|known| known.mode),
            client_scope: self.scope,
        }
    }
}

/// How many cells there may be before those are looked for that no entry shares any more.
const CELLS_MIN: usize = if cfg!(test) { 4 } else { 1024 };

/// The cells of all clients, or policies, of keys that are in memory. At most [`CELLS_MIN`], or
/// twice as many as are shared: what the hot tier has let go of leaves with the next sweep.
#[derive(Debug)]
pub struct Cells<T> {
    by_name: HashMap<Name, Arc<T>>,
    sweep_at: usize,
}

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), sweep_at: CELLS_MIN }
    }
}

impl<T> Cells<T> {
    /// The cell of that name, if one is shared.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.by_name.get(name)
    }

    /// A new cell, to be shared.
    pub fn insert(&mut self, name: Name, cell: Arc<T>) {
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
    principal: Principal,
    client: Arc<ClientCell>,
    policy: Option<Arc<PolicyCell>>,
}

impl Entry {
    pub(super) fn new(
        mut key: Key,
        revoked_at: Option<Timestamp>,
        client: Arc<ClientCell>,
        policy: Option<Arc<PolicyCell>>,
    ) -> Self {
        // One text for all of a client's keys: every request reads it, and of one of each key's
        // own the processor's cache would hold none.
        key.client = Arc::clone(&client.name);
        let principal = Principal {
            client: key.client.clone(),
            key_id: key.id,
            subject: Name::default(),
            scopes: key.scopes.clone(),
        };
        Self { key, revoked_at, principal, client, policy }
    }

    /// Who presents it.
    pub fn principal(&self) -> &Principal {
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

    /// When it will be over, as far as is known.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.key.expires_at.into_iter().chain(self.revoked_at).min()
    }

    /// Whether its client is enabled.
    pub fn client_enabled(&self) -> bool {
        self.client.enabled()
    }

    /// What its requests are held against.
    pub fn enforcement(&self) -> Enforcement {
        self.client.enforcement(self.policy.as_deref())
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
            let cell = Arc::new(PolicyCell::new(None));
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
