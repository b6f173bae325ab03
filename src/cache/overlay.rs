//! The overlay: state facts that Postgres and the feed have not confirmed yet, pinned by id.
//!
//! Every load into the hot tier is merged with it, so that nothing that arrives late can bring a
//! revoked key back. What is settled leaves; what was said beyond it stays.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::{Client, Digest, Key, Name, Timestamp};

/// Pinned facts by id.
#[derive(Debug, Default)]
pub struct Overlay {
    clients: BTreeMap<Name, Client>,
    keys: BTreeMap<Uuid, Key>,
    digests: HashMap<Digest, Uuid>,
    revocations: HashMap<(RevocationKind, Name), Timestamp>,
}

impl Overlay {
    /// Merges a fact by its law. (Sessions have an overlay of their own.)
    pub fn pin(&mut self, fact: &StateFact) {
        match fact {
            StateFact::ClientCreated(client) => {
                self.clients.entry(client.name.clone()).or_insert_with(|| client.clone());
            }
            StateFact::KeyCreated(key) => {
                self.digests.insert(key.digest, key.id);
                self.keys.entry(key.id).or_insert_with(|| key.clone());
            }
            StateFact::Revoked(Revocation { kind, id, at }) => {
                let known = self.revocations.entry((*kind, id.clone())).or_insert(*at);
                *known = kind.merge(*known, *at);
            }
            StateFact::Session(_) => {}
        }
    }

    /// The fact is settled, and what it said is on disk. A revocation of which more was said since
    /// stays.
    pub fn settle(&mut self, fact: &StateFact) {
        match fact {
            StateFact::ClientCreated(client) => drop(self.clients.remove(&client.name)),
            StateFact::KeyCreated(key) => {
                self.keys.remove(&key.id);
                self.digests.remove(&key.digest);
            }
            StateFact::Revoked(Revocation { kind, id, at }) => {
                let id = (*kind, id.clone());
                if self.revocations.get(&id).is_some_and(|known| kind.merge(*known, *at) == *at) {
                    self.revocations.remove(&id);
                }
            }
            StateFact::Session(_) => {}
        }
    }

    /// A key that was made here, by digest.
    pub fn key_by_digest(&self, digest: &Digest) -> Option<&Key> {
        self.keys.get(self.digests.get(digest)?)
    }

    /// A key that was made here, by id.
    pub fn key(&self, id: Uuid) -> Option<&Key> {
        self.keys.get(&id)
    }

    /// Keys that were made here, by id.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// A client that was made here.
    pub fn client(&self, name: &str) -> Option<&Client> {
        self.clients.get(name)
    }

    /// Clients that were made here, by name.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// The moment of a revocation, as far as was said here.
    pub fn revoked_at(&self, kind: RevocationKind, id: &str) -> Option<Timestamp> {
        if self.revocations.is_empty() {
            return None;
        }
        self.revocations.get(&(kind, Name::from(id))).copied()
    }

    /// Everything that was revoked here.
    pub fn revocations(&self) -> impl Iterator<Item = Revocation> {
        self.revocations.iter().map(|((kind, id), at)| Revocation {
            kind: *kind,
            id: id.clone(),
            at: *at,
        })
    }

    /// Everything that is pinned.
    pub fn facts(&self) -> impl Iterator<Item = StateFact> {
        let clients = self.clients.values().cloned().map(StateFact::ClientCreated);
        let keys = self.keys.values().cloned().map(StateFact::KeyCreated);
        clients.chain(keys).chain(self.revocations().map(StateFact::Revoked))
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
    fn what_was_said_beyond_a_settled_fact_stays() {
        let id = Uuid::from_u128(1);
        let revoked = |at| {
            let id = id.to_string().into();
            StateFact::Revoked(Revocation { kind: RevocationKind::Key, id, at: Timestamp(at) })
        };
        let mut overlay = Overlay::default();
        overlay.pin(&revoked(5));
        overlay.pin(&revoked(3));
        let known = |overlay: &Overlay| overlay.revoked_at(RevocationKind::Key, &id.to_string());
        assert_eq!(known(&overlay), Some(Timestamp(3)), "the earlier moment wins");
        overlay.settle(&revoked(5));
        assert_eq!(known(&overlay), Some(Timestamp(3)));
        overlay.settle(&revoked(3));
        assert_eq!(overlay.len(), 0);
    }
}
