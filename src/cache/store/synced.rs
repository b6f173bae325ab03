//! How far the disk tier had come, told from outside of it.
//!
//! sled ends its log at the first damaged message and opens without an error: the cache is then
//! what it was some time ago, and revocations that the journal has let go of since are gone. So
//! each sync has a number, in sled and, once sled is on the disk, in this file beside it. sled is
//! never behind the file unless it is damaged: a kill between the two leaves it ahead.
//!
//! Damage in the middle may cost single rows and leave the number, or bring older ones back.
//! Revocations are never removed, and by their law each only ever denies more: so all of them
//! together must deny at least what they did. (One row that went back can be hidden by another that
//! is ahead of the file: that takes damage and a kill between the two syncs.)

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;

use bincode::{Decode, Encode};

use super::{Age, Store, read, write};
use crate::cache::Position;
use crate::codec::{self, Kind};
use crate::disk::{self, StoreError, guarded};
use crate::model::Timestamp;
use crate::model::fact::RevocationKind;

const FILE: &str = "synced";
const VERSION: u8 = 2;
/// Two of them, written by turns: a torn write harms the newer one only.
const SLOT: usize = 4096;

/// What a sync brought to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Synced {
    /// The number of the sync.
    pub number: u64,
    /// What all revocations denied, added up.
    pub denied: u128,
}

/// How much a revocation denies: it grows as its law strengthens it, and none denies nothing.
pub(super) fn denied_by(kind: RevocationKind, at: Timestamp) -> u128 {
    let (first, last) = (i128::from(i64::MIN), i128::from(i64::MAX));
    let at = i128::from(at.0);
    let more = if kind.is_not_before() { at - first } else { last - at };
    more.unsigned_abs() + 1
}

impl Synced {
    /// Whether all that `witnessed` stands for may be there.
    pub fn reaches(&self, witnessed: &Self) -> bool {
        self.number >= witnessed.number && self.denied >= witnessed.denied
    }
}

/// The file.
#[derive(Debug)]
pub struct Witness(File);

/// A frame with its length before it.
fn slot(synced: &Synced) -> io::Result<Vec<u8>> {
    let frame = codec::seal(Kind::Meta, VERSION, synced).map_err(io::Error::other)?;
    let len = u16::try_from(frame.len()).map_err(io::Error::other)?;
    Ok([&len.to_le_bytes()[..], &frame].concat())
}

fn read_slot(bytes: &[u8]) -> Option<Synced> {
    let (len, rest) = bytes.split_at_checked(2)?;
    let len = u16::from_le_bytes(len.try_into().ok()?);
    codec::unseal(Kind::Meta, VERSION, rest.get(..usize::from(len))?).ok()
}

impl Witness {
    /// Makes the file in `dir`, durably: nothing was synced.
    pub fn make(dir: &Path) -> io::Result<()> {
        let mut bytes = slot(&Synced::default())?;
        bytes.resize(2 * SLOT, 0);
        disk::write_whole(&dir.join(FILE), &bytes)
    }

    /// What it tells. Of two slots that can both be read, the newer one.
    ///
    /// # Errors
    /// When the file is missing, or cannot be read: nobody can tell then.
    pub fn open(dir: &Path) -> io::Result<(Self, Synced)> {
        let path = dir.join(FILE);
        let file = File::options().read(true).write(true).open(&path).map_err(disk::at(&path))?;
        let mut bytes = vec![0; 2 * SLOT];
        file.read_exact_at(&mut bytes, 0).map_err(disk::at(&path))?;
        let (even, odd) = bytes.split_at(SLOT);
        let told = read_slot(even).max(read_slot(odd));
        let damaged = || io::Error::other(format!("{} is damaged", path.display()));
        Ok((Self(file), told.ok_or_else(damaged)?))
    }

    /// Tells that so much is on the disk, which it is.
    pub fn tell(&self, synced: &Synced) -> io::Result<()> {
        let at = if synced.number.is_multiple_of(2) { 0 } else { SLOT };
        self.0.write_all_at(&slot(synced)?, at as u64)?;
        self.0.sync_data()
    }
}

impl Store {
    /// Compares what was found with what was on the disk once.
    pub(super) fn compare(&self, witnessed: Synced) -> Result<(), StoreError> {
        let number = read(Kind::Meta, guarded(|| self.meta.get("synced"))?)?.unwrap_or(0);
        let denied = self.revocations().try_fold(0_u128, |sum, row| {
            row.map(|(kind, _, at)| sum.saturating_add(denied_by(kind, at)))
        })?;
        let found = Synced { number, denied };
        if !found.reaches(&witnessed) {
            return Err(StoreError::Sled(format!(
                "it lost what was on the disk already: {witnessed:?}, and now {found:?}"
            )));
        }
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = denied;
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).0 = found;
        Ok(())
    }

    /// Makes all rows durable, then the position that they stand for.
    pub fn commit(&self, position: Position, age: Age) -> Result<(), StoreError> {
        self.flush()?;
        write(&self.meta, Kind::Meta, b"position", &position)?;
        self.put_age(age)?;
        self.sync()
    }

    fn flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush())?;
        self.data.sync_data().map_err(|error| StoreError::Sled(error.to_string()))
    }

    /// Brings everything to the disk, then tells so beside it.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, witness) = &mut *synced;
        let denied = *self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Synced { number: last.number + 1, denied };
        write(&self.meta, Kind::Meta, b"synced", &next.number)?;
        self.flush()?;
        witness.tell(&next).map_err(|error| StoreError::Sled(error.to_string()))?;
        *last = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_slot_or_none() {
        let told = slot(&Synced { number: 3, denied: 7 }).expect("small");
        let payload = codec::payload(Kind::Meta, VERSION, &told[2..]).expect("whole").to_vec();
        crate::fuzz::each("synced", &[told, payload], |bytes| {
            let _told = read_slot(bytes);
            let Some(frame) = crate::fuzz::framed(Kind::Meta, VERSION, bytes) else { return };
            let Ok(length) = u16::try_from(frame.len()) else { return };
            if let Some(told) = read_slot(&[&length.to_le_bytes()[..], &frame].concat()) {
                assert_eq!(read_slot(&slot(&told).expect("small")), Some(told));
            }
        });
    }
}
