//! Facts as they stand in a chunk: of a counter only what differs from the counter before it.
//!
//! ```text
//! how (1): shared (high 4 bits) · flags (low 4 bits)
//!   shared 0–13: so many leading bytes of the key id are those of the counter before
//!   shared 14:   the same key id
//!   shared 15:   no counter; a whole fact follows (bincode), and flags are 0
//! present (1): which counts are not zero, and whether `last_seen` is known
//! client: leading bytes shared with the client before · the rest     unless SAME_CLIENT
//! key id: its bytes from `shared` on
//! target: its number in the chunk; the next free one: table · operation   unless SAME_TARGET
//! hour: difference                                                   unless SAME_HOUR
//! counts: those that are present
//! last_seen: difference in microseconds                              if it is known
//! ```
//!
//! Numbers and texts are bincode's. A chunk begins from [`Before::default`], so that it can be read
//! without any other. Facts may come in any order; neighbours that are alike cost least.

use uuid::Uuid;

use super::FactRef;
use crate::codec::{self, CodecError};
use crate::model::fact::{Counter, Counts, Fact, UsageFact};
use crate::model::{Name, Timestamp};

/// The most bytes that a counter takes beside its three names.
pub const OVERHEAD_MAX: usize = 128;
/// The least bytes that a fact takes: what a reader may believe of a count of facts.
pub const FACT_MIN: usize = 2;

const SAME_CLIENT: u8 = 1;
const SAME_TARGET: u8 = 2;
const SAME_HOUR: u8 = 4;
/// As many succeeded as were requested; `succeeded` is not present.
const ALL_SUCCEEDED: u8 = 8;

const SHARED_MAX: usize = 13;
const SAME_KEY: u8 = 14;
const WHOLE: u8 = 15;

const LAST_SEEN: u8 = 0x80;
const SUCCEEDED: usize = 1;

/// How far back a target is looked for: where tables are many, naming one again is cheaper than
/// looking for it.
const TARGETS_SEARCHED: usize = 32;

/// What the counters before have said; nothing, where a chunk begins.
#[derive(Debug, Default)]
pub struct Before {
    client: Name,
    key_id: Uuid,
    /// Table and operation, as they were named in this chunk.
    targets: Vec<(Name, Name)>,
    target: usize,
    hour: i64,
    last_seen: i64,
}

impl Before {
    /// Appends a fact to `bytes`, and remembers it.
    pub fn append(&mut self, bytes: &mut Vec<u8>, entry: FactRef<'_>) -> Result<(), CodecError> {
        match entry {
            FactRef::Usage(counter, counts) => self.append_counter(bytes, counter, counts),
            whole => {
                bytes.push(WHOLE << 4);
                codec::append(bytes, &whole)
            }
        }
    }

    fn append_counter(
        &mut self,
        bytes: &mut Vec<u8>,
        counter: &Counter,
        counts: &Counts,
    ) -> Result<(), CodecError> {
        let key_shared = shared(self.key_id.as_bytes(), counter.key_id.as_bytes());
        let target = self.target(counter);
        let known = counts.last_seen != Timestamp::NEG_INFINITY;
        let mut sums = sums(counts);
        let mut how = flag(counter.client == self.client, SAME_CLIENT)
            | flag(target == self.target && target < self.targets.len(), SAME_TARGET)
            | flag(counter.hour == self.hour, SAME_HOUR);
        if counts.succeeded == counts.requests {
            how |= ALL_SUCCEEDED;
            sums[SUCCEEDED] = 0;
        }
        let shared_nibble = match key_shared {
            16 => SAME_KEY,
            #[expect(clippy::cast_possible_truncation, reason = "at most 13")]
            other => other.min(SHARED_MAX) as u8,
        };
        let present = sums
            .iter()
            .enumerate()
            .fold(flag(known, LAST_SEEN), |present, (at, sum)| present | flag(*sum != 0, 1 << at));
        bytes.extend_from_slice(&[shared_nibble << 4 | how, present]);
        if how & SAME_CLIENT == 0 {
            let shared = shared_text(&self.client, &counter.client);
            codec::append(bytes, &(shared, &counter.client[shared..]))?;
            self.client = counter.client.clone();
        }
        if shared_nibble != SAME_KEY {
            bytes.extend_from_slice(&counter.key_id.as_bytes()[usize::from(shared_nibble)..]);
            self.key_id = counter.key_id;
        }
        if how & SAME_TARGET == 0 {
            codec::append(bytes, &target)?;
            if target == self.targets.len() {
                codec::append(bytes, &(&*counter.table, &*counter.operation))?;
                self.targets.push((counter.table.clone(), counter.operation.clone()));
            }
            self.target = target;
        }
        if how & SAME_HOUR == 0 {
            codec::append(bytes, &counter.hour.wrapping_sub(self.hour))?;
            self.hour = counter.hour;
        }
        for sum in sums.iter().filter(|sum| **sum != 0) {
            codec::append(bytes, sum)?;
        }
        if known {
            codec::append(bytes, &counts.last_seen.0.wrapping_sub(self.last_seen))?;
            self.last_seen = counts.last_seen.0;
        }
        Ok(())
    }

    /// The number of the counter's target; the next free one if it is new.
    fn target(&self, counter: &Counter) -> usize {
        let is = |(table, operation): &(Name, Name)| {
            *table == counter.table && *operation == counter.operation
        };
        if self.targets.get(self.target).is_some_and(is) {
            return self.target;
        }
        let searched = self.targets.len().saturating_sub(TARGETS_SEARCHED);
        let found = self.targets[searched..].iter().position(is);
        found.map_or(self.targets.len(), |at| searched + at)
    }

    /// Reads a fact from the front of `bytes`, and remembers it. Never allocates by a length that
    /// is not there.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Fact, CodecError> {
        let [how] = array(bytes)?;
        let (shared, how) = (how >> 4, how & 0xF);
        match shared {
            WHOLE if how == 0 => value(bytes),
            WHOLE => Err(CodecError::Shape),
            shared => Ok(Fact::Usage(self.take_counter(bytes, shared, how)?)),
        }
    }

    fn take_counter(
        &mut self,
        bytes: &mut &[u8],
        shared: u8,
        how: u8,
    ) -> Result<UsageFact, CodecError> {
        let [present] = array(bytes)?;
        if how & SAME_CLIENT == 0 {
            let shared: usize = value(bytes)?;
            let start = self.client.get(..shared).ok_or(CodecError::Shape)?;
            self.client = [start, text(bytes)?].concat().into();
        }
        if shared != SAME_KEY {
            let (mut key, shared) = (*self.key_id.as_bytes(), usize::from(shared));
            key[shared..].copy_from_slice(slice(bytes, 16 - shared)?);
            self.key_id = Uuid::from_bytes(key);
        }
        if how & SAME_TARGET == 0 {
            self.target = value(bytes)?;
            if self.target == self.targets.len() {
                let (table, operation) = (text(bytes)?.into(), text(bytes)?.into());
                self.targets.push((table, operation));
            }
        }
        let (table, operation) = self.targets.get(self.target).ok_or(CodecError::Shape)?.clone();
        if how & SAME_HOUR == 0 {
            self.hour = self.hour.wrapping_add(value(bytes)?);
        }
        let client = self.client.clone();
        let counter = Counter { client, key_id: self.key_id, table, operation, hour: self.hour };
        Ok(UsageFact { counter, counts: self.take_counts(bytes, how, present)? })
    }

    fn take_counts(
        &mut self,
        bytes: &mut &[u8],
        how: u8,
        present: u8,
    ) -> Result<Counts, CodecError> {
        let mut sums = [0; 7];
        for (at, sum) in sums.iter_mut().enumerate() {
            if present & 1 << at != 0 {
                *sum = value(bytes)?;
            }
        }
        if how & ALL_SUCCEEDED != 0 {
            sums[SUCCEEDED] = sums[0];
        }
        let mut last_seen = Timestamp::NEG_INFINITY;
        if present & LAST_SEEN != 0 {
            self.last_seen = self.last_seen.wrapping_add(value(bytes)?);
            last_seen = Timestamp(self.last_seen);
        }
        let [requests, succeeded, failed, denied, bytes_in, bytes_out, duration_us] = sums;
        Ok(Counts {
            requests,
            succeeded,
            failed,
            denied,
            bytes_in,
            bytes_out,
            duration_us,
            last_seen,
        })
    }
}

/// The counts in the order in which they are written.
fn sums(counts: &Counts) -> [u64; 7] {
    let Counts { requests, succeeded, failed, denied, bytes_in, bytes_out, duration_us, .. } =
        *counts;
    [requests, succeeded, failed, denied, bytes_in, bytes_out, duration_us]
}

fn flag(is: bool, flag: u8) -> u8 {
    if is { flag } else { 0 }
}

/// How many leading bytes are the same.
fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The same, and no character is torn apart.
fn shared_text(one: &str, other: &str) -> usize {
    other.floor_char_boundary(shared(one.as_bytes(), other.as_bytes()))
}

fn value<T: bincode::Decode<()>>(bytes: &mut &[u8]) -> Result<T, CodecError> {
    let (value, rest) = codec::take(bytes)?;
    *bytes = rest;
    Ok(value)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, CodecError> {
    let (text, rest) = codec::take_text(bytes)?;
    *bytes = rest;
    Ok(text)
}

fn slice<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], CodecError> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or(CodecError::Shape)?;
    *bytes = rest;
    Ok(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(CodecError::Shape)?;
    *bytes = rest;
    Ok(*taken)
}
