//! The overlay: state facts that Postgres and the feed have not confirmed yet, pinned by id.
//!
//! Every load into the hot tier is merged with it, so that nothing that arrives late can bring a
//! revoked key back. A fact is counted as often as it was pinned and leaves with its last settling.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::{Client, Digest, Key, Name, Timestamp};

#[derive(Debug)]
struct Pinned<T> {
    value: T,
    pins: usize,
}

/// Pinned facts by id.
#[derive(Debug, Default)]
pub struct Overlay {
    clients: BTreeMap<Name, Pinned<Client>>,
    keys: BTreeMap<Uuid, Pinned<Key>>,
    digests: HashMap<Digest, Uuid>,
    revocations: HashMap<(RevocationKind, Name), Pinned<Timestamp>>,
}

impl Overlay {
    /// Merges a fact by its law.
    pub fn pin(&mut self, fact: &StateFact) {
        match fact {
            StateFact::ClientCreated(client) => {
                let new = Pinned { value: client.clone(), pins: 0 };
                self.clients.entry(client.name.clone()).or_insert(new).pins += 1;
            }
            StateFact::KeyCreated(key) => {
                self.digests.insert(key.digest, key.id);
                let new = Pinned { value: key.clone(), pins: 0 };
                self.keys.entry(key.id).or_insert(new).pins += 1;
            }
            StateFact::Revoked(Revocation { kind, id, at }) => {
                let new = Pinned { value: *at, pins: 0 };
                let pinned = self.revocations.entry((*kind, id.clone())).or_insert(new);
                pinned.value = pinned.value.min(*at);
                pinned.pins += 1;
            }
        }
    }

    /// Undoes one [`Overlay::pin`]: the fact is settled, and what it said is on disk.
    pub fn settle(&mut self, fact: &StateFact) {
        fn unpin<T>(pinned: Option<&mut Pinned<T>>) -> bool {
            pinned.is_some_and(|pinned| {
                pinned.pins = pinned.pins.saturating_sub(1);
                pinned.pins == 0
            })
        }
        match fact {
            StateFact::ClientCreated(client) => {
                if unpin(self.clients.get_mut(&client.name)) {
                    self.clients.remove(&client.name);
                }
            }
            StateFact::KeyCreated(key) => {
                if unpin(self.keys.get_mut(&key.id)) {
                    self.keys.remove(&key.id);
                    self.digests.remove(&key.digest);
                }
            }
            StateFact::Revoked(Revocation { kind, id, .. }) => {
                let id = (*kind, id.clone());
                if unpin(self.revocations.get_mut(&id)) {
                    self.revocations.remove(&id);
                }
            }
        }
    }

    /// A key that was made here, by digest.
    pub fn key_by_digest(&self, digest: &Digest) -> Option<&Key> {
        self.keys.get(self.digests.get(digest)?).map(|pinned| &pinned.value)
    }

    /// A key that was made here, by id.
    pub fn key(&self, id: Uuid) -> Option<&Key> {
        self.keys.get(&id).map(|pinned| &pinned.value)
    }

    /// Keys that were made here, by id.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values().map(|pinned| &pinned.value)
    }

    /// A client that was made here.
    pub fn client(&self, name: &str) -> Option<&Client> {
        self.clients.get(name).map(|pinned| &pinned.value)
    }

    /// Clients that were made here, by name.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values().map(|pinned| &pinned.value)
    }

    /// From when on a key is revoked, as far as was said here.
    pub fn revoked_at(&self, key_id: Uuid) -> Option<Timestamp> {
        if self.revocations.is_empty() {
            return None;
        }
        let id = (RevocationKind::Key, Name::from(key_id.to_string()));
        self.revocations.get(&id).map(|pinned| pinned.value)
    }

    /// Everything that was revoked here.
    pub fn revocations(&self) -> impl Iterator<Item = Revocation> {
        self.revocations.iter().map(|((kind, id), pinned)| Revocation {
            kind: *kind,
            id: id.clone(),
            at: pinned.value,
        })
    }

    /// How many ids are pinned.
    pub fn len(&self) -> usize {
        self.clients.len() + self.keys.len() + self.revocations.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_pinned_twice_leaves_with_its_second_settling() {
        let id = Uuid::from_u128(1);
        let revoked = |at| {
            let id = id.to_string().into();
            StateFact::Revoked(Revocation { kind: RevocationKind::Key, id, at: Timestamp(at) })
        };
        let mut overlay = Overlay::default();
        overlay.pin(&revoked(5));
        overlay.pin(&revoked(3));
        assert_eq!(overlay.revoked_at(id), Some(Timestamp(3)), "the earlier moment wins");
        overlay.settle(&revoked(5));
        assert_eq!(overlay.revoked_at(id), Some(Timestamp(3)));
        overlay.settle(&revoked(3));
        assert_eq!(overlay.len(), 0);
    }
}
