//! What Postgres has confirmed of quotas: on disk, so that after a restart without Postgres the
//! rest of a quota is known.
//!
//! Each record tells with what was used the ledger positions that it stands for, and is written as
//! one value: so whatever of a batch reached the disk before a kill, a fact of the journal is
//! either in its record or beyond its position, never both.

use bincode::{Decode, Encode};
use uuid::Uuid;

use super::{Cache, Stored};
use crate::disk::StoreError;
use crate::model::Timestamp;
use crate::model::fact::QuotaKey;

/// What Postgres has confirmed of one quota in one period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct QuotaBase {
    /// When the period ends.
    pub until: i64,
    /// Used by this gateway.
    pub own: u64,
    /// Used by all others.
    pub others: u64,
    /// How far this gateway's streams are contained in `own`: stream, sequence number.
    positions: Vec<([u8; 16], u64)>,
}

impl QuotaBase {
    /// Whether a fact under `seq` of `stream` is contained.
    pub fn contains(&self, stream: Uuid, seq: u64) -> bool {
        self.positions.iter().any(|(known, to)| known == stream.as_bytes() && seq <= *to)
    }
}

/// What was read in one snapshot.
#[derive(Clone, Debug, Default)]
pub struct ConfirmedQuotas {
    /// Each with what this gateway and all others have used.
    pub used: Vec<(QuotaKey, u64, u64)>,
    /// How far the streams that are here are applied.
    pub positions: Vec<(Uuid, u64)>,
}

impl Cache {
    /// What is known to be confirmed of a quota.
    ///
    /// # Errors
    /// When the disk tier cannot be read.
    pub fn quota_base(&self, key: &QuotaKey) -> Stored<QuotaBase> {
        self.store.quota(key)
    }

    /// Whether every quota that is not over was read from Postgres once: what has no record then
    /// was not used. Always so when embedded.
    pub fn quota_bases_known(&self) -> bool {
        self.source.is_none() || self.store.quotas_known().unwrap_or(false)
    }

    /// Everything was read.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn now_all_quota_bases_are_known(&self) -> Result<(), StoreError> {
        self.store.put_quotas_known(true)?;
        self.store.sync()
    }

    /// Writes what was confirmed and brings it to the disk. Blocks.
    ///
    /// # Errors
    /// When the disk fails; then nothing may be removed that it stands for.
    pub fn put_quota_bases(&self, confirmed: &ConfirmedQuotas) -> Result<(), StoreError> {
        let positions: Vec<_> =
            confirmed.positions.iter().map(|(stream, seq)| (*stream.as_bytes(), *seq)).collect();
        for (key, own, others) in &confirmed.used {
            let known = self.store.quota(key)?.map_or(i64::MIN, |base| base.until);
            let base = QuotaBase {
                until: key.until.0.max(known),
                own: *own,
                others: *others,
                positions: positions.clone(),
            };
            self.store.put_quota(key, &base)?;
        }
        self.store.sync()
    }

    /// Forgets quotas whose period ended before `over`; how many. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget_quotas(&self, over: Timestamp) -> Result<usize, StoreError> {
        self.store.remove_quotas(&|base| base.until < over.0)
    }
}
