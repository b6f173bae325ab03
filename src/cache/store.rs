//! The disk tier: what the feed and the misses brought, in sled, one frame per row.
//!
//! Single inserts only: a batch would stall every other user of sled in the process. A kill between
//! two of them leaves a position that is too old, and the feed brings the same rows again.

mod sessions;
mod synced;

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bincode::{Decode, Encode};
use uuid::Uuid;

use super::quotas::QuotaBase;
use super::source::{ClientRow, KeyRow, PolicyRow, Position};
use crate::codec::{self, Kind};
use crate::disk::{self, StoreError, guarded};
use crate::model::fact::{QuotaKey, RevocationKind};
use crate::model::{Digest, Timestamp};
use synced::{Synced, Witness, denied_by};

const SLED_CACHE_BYTES: u64 = 32 << 20;
const VERSION: u8 = 2;

/// How old the cache was when that was last written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Age {
    /// Wall-clock time of the last completed catch-up.
    pub caught_up: Timestamp,
    /// Microseconds that had passed since, by the monotonic clock.
    pub age_us: u64,
}

/// The trees of the disk tier.
#[derive(Debug)]
pub struct Store {
    db: sled::Db,
    data: File,
    keys: sled::Tree,
    ids: sled::Tree,
    clients: sled::Tree,
    policies: sled::Tree,
    revocations: sled::Tree,
    sessions: sled::Tree,
    quotas: sled::Tree,
    meta: sled::Tree,
    /// What all revocations deny, added up.
    denied: Mutex<u128>,
    /// The last sync, and who else knows of it. One sync at a time.
    synced: Mutex<(Synced, Witness)>,
}

fn read<T: Decode<()>>(kind: Kind, frame: Option<sled::IVec>) -> Result<Option<T>, StoreError> {
    let Some(frame) = frame else { return Ok(None) };
    let value = codec::unseal(kind, VERSION, &frame);
    value.map(Some).map_err(|error| StoreError::Sled(error.to_string()))
}

fn write<T: Encode>(
    tree: &sled::Tree,
    kind: Kind,
    key: &[u8],
    value: &T,
) -> Result<(), StoreError> {
    let frame = codec::seal(kind, VERSION, value);
    let frame = frame.map_err(|error| StoreError::Sled(error.to_string()))?;
    guarded(|| tree.insert(key, frame)).map(drop)
}

fn revocation_key(kind: RevocationKind, id: &str) -> Vec<u8> {
    [kind.as_str().as_bytes(), b"/", id.as_bytes()].concat()
}

/// Names have no control characters: none of them can be taken for another two.
fn quota_key(key: &QuotaKey) -> Vec<u8> {
    let start = key.period.0.to_be_bytes();
    [key.quota.as_bytes(), b"\0", key.scope.as_bytes(), b"\0", &start].concat()
}

impl Store {
    /// Opens the trees in `dir`, or makes them.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| StoreError::Sled(error.to_string());
        let new = !dir.exists()
            // Made, and nothing more.
            || fs::remove_dir(dir).is_ok()
            || disk::remove_half_made(dir).map_err(io)?;
        disk::make_private_dir(dir).map_err(io)?;
        if new {
            disk::begin_making(dir).map_err(io)?;
            Witness::make(dir).map_err(io)?;
        }
        disk::remove_half_snapshots(dir).map_err(io)?;
        let (witness, witnessed) = Witness::open(dir).map_err(io)?;
        let db = disk::open_sled(dir, SLED_CACHE_BYTES)?;
        let tree = |name: &str| guarded(|| db.open_tree(name));
        let store = Self {
            keys: tree("keys")?,
            ids: tree("ids")?,
            clients: tree("clients")?,
            policies: tree("policies")?,
            revocations: tree("revocations")?,
            sessions: tree("sessions")?,
            quotas: tree("quotas")?,
            meta: tree("meta")?,
            data: File::options().write(true).open(dir.join("db")).map_err(io)?,
            db,
            denied: Mutex::default(),
            synced: Mutex::new((Synced::default(), witness)),
        };
        if new {
            disk::end_making(dir).map_err(io)?;
        } else {
            disk::secure(dir).map_err(io)?;
        }
        store.compare(witnessed)?;
        // A store whose own notes cannot be read is damaged, or of another version: found out here.
        store.position()?;
        store.age()?;
        store.find_held_again()?;
        Ok(store)
    }

    /// A key by digest.
    pub fn key(&self, digest: &Digest) -> Result<Option<KeyRow>, StoreError> {
        read(Kind::Row, guarded(|| self.keys.get(digest.0))?)
    }

    /// All keys by digest.
    pub fn keys(&self) -> impl Iterator<Item = Result<KeyRow, StoreError>> {
        self.keys.iter().filter_map(|entry| match entry {
            Ok((_, frame)) => read(Kind::Row, Some(frame)).transpose(),
            Err(error) => Some(Err(StoreError::Sled(error.to_string()))),
        })
    }

    /// The digest of a key id.
    pub fn digest(&self, id: Uuid) -> Result<Option<Digest>, StoreError> {
        let bytes = guarded(|| self.ids.get(id.as_bytes()))?;
        Ok(bytes.and_then(|bytes| <[u8; 32]>::try_from(&*bytes).ok()).map(Digest))
    }

    /// Key ids from `after` on, in order, with their digests.
    pub fn ids(
        &self,
        after: Option<Uuid>,
    ) -> impl Iterator<Item = Result<(Uuid, Digest), StoreError>> {
        let from = after.map_or(0, |id| id.as_u128().saturating_add(1));
        self.ids.range(from.to_be_bytes()..).filter_map(|entry| match entry {
            Ok((id, digest)) => {
                let id = Uuid::from_slice(&id).ok()?;
                Some(Ok((id, Digest(<[u8; 32]>::try_from(&*digest).ok()?))))
            }
            Err(error) => Some(Err(StoreError::Sled(error.to_string()))),
        })
    }

    /// Stores a key unless a newer row of it is there. Returns the digest that it had before, if
    /// that was another: nothing opens with it any more.
    pub fn put_key(&self, row: &KeyRow) -> Result<Option<Digest>, StoreError> {
        let place = self.digest(row.key.id)?.unwrap_or(row.key.digest);
        if self.key(&place)?.is_some_and(|known| known.revision > row.revision) {
            return Ok(None);
        }
        self.replace_key(row)
    }

    /// Stores a key whatever is there: after a restore of Postgres, revisions start from below.
    pub fn replace_key(&self, row: &KeyRow) -> Result<Option<Digest>, StoreError> {
        let id = row.key.id;
        let before = self.digest(id)?.filter(|before| *before != row.key.digest);
        if let Some(before) = before {
            self.remove_row(&before, id)?;
        }
        write(&self.keys, Kind::Row, &row.key.digest.0, row)?;
        guarded(|| self.ids.insert(id.as_bytes(), &row.key.digest.0))?;
        Ok(before)
    }

    /// Forgets a key; returns its digest.
    pub fn remove_key(&self, id: Uuid) -> Result<Option<Digest>, StoreError> {
        let digest = self.digest(id)?;
        if let Some(digest) = digest {
            self.remove_row(&digest, id)?;
            guarded(|| self.ids.remove(id.as_bytes()))?;
        }
        Ok(digest)
    }

    /// A digest may have gone over to another id; that one's row stays.
    fn remove_row(&self, digest: &Digest, id: Uuid) -> Result<(), StoreError> {
        if self.key(digest)?.is_some_and(|row| row.key.id == id) {
            guarded(|| self.keys.remove(digest.0))?;
        }
        Ok(())
    }

    /// A client by name.
    pub fn client(&self, name: &str) -> Result<Option<ClientRow>, StoreError> {
        read(Kind::Row, guarded(|| self.clients.get(name))?)
    }

    /// All clients by name.
    pub fn clients(&self) -> impl Iterator<Item = Result<ClientRow, StoreError>> {
        self.clients.iter().filter_map(|entry| match entry {
            Ok((_, frame)) => read(Kind::Row, Some(frame)).transpose(),
            Err(error) => Some(Err(StoreError::Sled(error.to_string()))),
        })
    }

    /// Stores a client unless a newer row of it is there.
    pub fn put_client(&self, row: &ClientRow) -> Result<(), StoreError> {
        let known = self.client(&row.client.name)?;
        if known.is_some_and(|known| known.revision > row.revision) {
            return Ok(());
        }
        self.replace_client(row)
    }

    /// Stores a client whatever is there.
    pub fn replace_client(&self, row: &ClientRow) -> Result<(), StoreError> {
        write(&self.clients, Kind::Row, row.client.name.as_bytes(), row)
    }

    /// Forgets a client; its keys are refused from then on.
    pub fn remove_client(&self, name: &str) -> Result<(), StoreError> {
        guarded(|| self.clients.remove(name)).map(drop)
    }

    /// A policy by name.
    pub fn policy(&self, name: &str) -> Result<Option<PolicyRow>, StoreError> {
        read(Kind::Row, guarded(|| self.policies.get(name))?)
    }

    /// All policies by name.
    pub fn policies(&self) -> impl Iterator<Item = Result<PolicyRow, StoreError>> {
        self.policies.iter().filter_map(|entry| match entry {
            Ok((_, frame)) => read(Kind::Row, Some(frame)).transpose(),
            Err(error) => Some(Err(StoreError::Sled(error.to_string()))),
        })
    }

    /// Stores a policy unless a newer row of it is there.
    pub fn put_policy(&self, row: &PolicyRow) -> Result<(), StoreError> {
        let known = self.policy(&row.policy.name)?;
        if known.is_some_and(|known| known.revision > row.revision) {
            return Ok(());
        }
        self.replace_policy(row)
    }

    /// Stores a policy whatever is there.
    pub fn replace_policy(&self, row: &PolicyRow) -> Result<(), StoreError> {
        write(&self.policies, Kind::Row, row.policy.name.as_bytes(), row)
    }

    /// Forgets a policy.
    pub fn remove_policy(&self, name: &str) -> Result<(), StoreError> {
        guarded(|| self.policies.remove(name)).map(drop)
    }

    /// From when on something is revoked.
    pub fn revoked_at(
        &self,
        kind: RevocationKind,
        id: &str,
    ) -> Result<Option<Timestamp>, StoreError> {
        read(Kind::Row, guarded(|| self.revocations.get(revocation_key(kind, id)))?)
    }

    /// Merges a revocation by its law. Nothing ever removes one. One at a time: the writing lock.
    pub fn revoke(&self, kind: RevocationKind, id: &str, at: Timestamp) -> Result<(), StoreError> {
        let known = self.revoked_at(kind, id)?;
        let at = known.map_or(at, |known| kind.merge(known, at));
        write(&self.revocations, Kind::Row, &revocation_key(kind, id), &at)?;
        let more = denied_by(kind, at) - known.map_or(0, |known| denied_by(kind, known));
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        *denied = denied.saturating_add(more);
        Ok(())
    }

    /// Every revocation.
    pub fn revocations(
        &self,
    ) -> impl Iterator<Item = Result<(RevocationKind, String, Timestamp), StoreError>> {
        self.revocations.iter().filter_map(|entry| {
            let (key, frame) = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(StoreError::Sled(error.to_string()))),
            };
            let (kind, id) = std::str::from_utf8(&key).ok()?.split_once('/')?;
            let (kind, id) = (RevocationKind::parse(kind)?, id.to_owned());
            read(Kind::Row, Some(frame)).transpose().map(|at| at.map(|at| (kind, id, at)))
        })
    }

    /// What is confirmed of a quota.
    pub fn quota(&self, key: &QuotaKey) -> Result<Option<QuotaBase>, StoreError> {
        read(Kind::Row, guarded(|| self.quotas.get(quota_key(key)))?)
    }

    /// Stores what is confirmed of a quota, whatever is there.
    pub fn put_quota(&self, key: &QuotaKey, base: &QuotaBase) -> Result<(), StoreError> {
        write(&self.quotas, Kind::Row, &quota_key(key), base)
    }

    /// Removes those of which `over` says so; how many.
    pub fn remove_quotas(&self, over: &dyn Fn(&QuotaBase) -> bool) -> Result<usize, StoreError> {
        let mut removed = 0;
        for entry in &self.quotas {
            let (key, frame) = entry.map_err(|error| StoreError::Sled(error.to_string()))?;
            if read(Kind::Row, Some(frame))?.is_some_and(|base| over(&base)) {
                guarded(|| self.quotas.remove(&key))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether all quotas were read from Postgres once.
    pub fn quotas_known(&self) -> Result<bool, StoreError> {
        Ok(read(Kind::Meta, guarded(|| self.meta.get("quotas_known"))?)?.unwrap_or(false))
    }

    /// Notes whether they were. Durable with the next [`Store::sync`].
    pub fn put_quotas_known(&self, known: bool) -> Result<(), StoreError> {
        write(&self.meta, Kind::Meta, b"quotas_known", &known)
    }

    /// Whether sessions are to be compared with Postgres: a full resync found another history.
    pub fn sessions_due(&self) -> Result<bool, StoreError> {
        Ok(read(Kind::Meta, guarded(|| self.meta.get("sessions_due"))?)?.unwrap_or(false))
    }

    /// Notes whether they are. Durable with the next [`Store::sync`].
    pub fn put_sessions_due(&self, due: bool) -> Result<(), StoreError> {
        write(&self.meta, Kind::Meta, b"sessions_due", &due)
    }

    /// Where the last completed catch-up ended.
    pub fn position(&self) -> Result<Option<Position>, StoreError> {
        read(Kind::Meta, guarded(|| self.meta.get("position"))?)
    }

    /// Notes whether removals wait for the operator's word.
    pub fn put_held(&self, held: bool) -> Result<(), StoreError> {
        write(&self.meta, Kind::Meta, b"held", &held)
    }

    /// Which removals waited is not written down: the position is forgotten instead, so that the
    /// next catch-up is a full resync, which finds them again.
    fn find_held_again(&self) -> Result<(), StoreError> {
        let held = read(Kind::Meta, guarded(|| self.meta.get("held"))?)?;
        if held.unwrap_or(false) {
            guarded(|| self.meta.remove("position"))?;
        }
        Ok(())
    }

    /// How old the cache was when that was last written down.
    pub fn age(&self) -> Result<Option<Age>, StoreError> {
        read(Kind::Meta, guarded(|| self.meta.get("age"))?)
    }

    /// Writes the age down.
    pub fn put_age(&self, age: Age) -> Result<(), StoreError> {
        write(&self.meta, Kind::Meta, b"age", &age)
    }

    /// Writes over every revocation.
    #[cfg(test)]
    pub fn damage_revocations(&self) {
        for entry in &self.revocations {
            let (key, _) = entry.expect("readable");
            self.revocations.insert(key, b"damaged").expect("writable");
        }
    }

    /// Takes a revocation back, as damage may: sled finds what stood there before.
    #[cfg(test)]
    pub fn take_back(&self, kind: RevocationKind, id: &str, to: Option<Timestamp>) {
        let key = revocation_key(kind, id);
        match to {
            Some(at) => write(&self.revocations, Kind::Row, &key, &at).expect("writable"),
            None => drop(self.revocations.remove(key).expect("writable")),
        }
        guarded(|| self.db.flush()).expect("writable");
    }
}

#[cfg(test)]
mod tests;
