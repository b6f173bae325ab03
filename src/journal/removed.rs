//! What is remembered of removed segments, through a restart: `journal/removed`.
//!
//! ```text
//! for each segment, oldest first: length (4, little-endian) · frame(Removed)
//! ```
//!
//! The file is replaced whole before the directories go. What cannot be read of it is forgotten: it
//! only serves to report what a ledger that moves back has lost.

use std::io;
use std::sync::atomic::Ordering;

use bincode::{Decode, Encode};
use uuid::Uuid;

use super::{Journal, Removed, Tally};
use crate::codec::{self, Kind};
use crate::disk;
use crate::model::fact::Lane;

const FILE: &str = "removed";
const VERSION: u8 = 2;
const LENGTH: usize = 4;

#[derive(Encode, Decode)]
struct Record {
    lane: u8,
    stream: [u8; 16],
    last_seq: u64,
    tally: Tally,
}

impl Journal {
    /// What was remembered last, of segments that are not here any more, and whether that is all.
    /// Blocks.
    pub fn remembered(&self) -> (Vec<Removed>, bool) {
        let path = self.dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // It is made before anything can have been removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let attached = self.shared.merging.attached.load(Ordering::Acquire);
                return (Vec::new(), !attached);
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what was removed is forgotten");
                return (Vec::new(), false);
            }
        };
        let (mut removed, whole) = read(&bytes);
        if !whole {
            tracing::warn!(
                path = %path.display(), known = removed.len(),
                "the file is damaged: some of what was removed is forgotten"
            );
        }
        // A kill came between remembering and removing.
        let here: Vec<_> = Lane::ALL.into_iter().flat_map(|lane| self.segments(lane)).collect();
        removed.retain(|removed| here.iter().all(|segment| segment.stream != removed.stream));
        (removed, whole)
    }

    /// Nothing was removed yet: what is remembered is whole from here on.
    pub(super) fn begin_to_remember(&self) {
        let made = if self.dir.join(FILE).exists() { Ok(()) } else { self.remember([].iter()) };
        if let Err(error) = made {
            tracing::warn!(%error, "what is removed will be reported as a lower bound");
        }
    }

    /// Replaces what is remembered. Blocks.
    ///
    /// # Errors
    /// When the disk fails; then what was remembered before stands there.
    pub fn remember<'a>(&self, all: impl Iterator<Item = &'a Removed>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for removed in all {
            let lane = Lane::ALL.iter().position(|lane| *lane == removed.lane).unwrap_or(0);
            let record = Record {
                lane: u8::try_from(lane).unwrap_or(0),
                stream: *removed.stream.as_bytes(),
                last_seq: removed.last_seq,
                tally: removed.tally.clone(),
            };
            let frame = codec::seal(Kind::Removed, VERSION, &record).map_err(io::Error::other)?;
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&frame);
        }
        disk::write_whole(&self.dir.join(FILE), &bytes)
    }
}

/// What stands there up to the first damage, and whether that is all.
fn read(mut bytes: &[u8]) -> (Vec<Removed>, bool) {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let Some((removed, rest)) = read_one(bytes) else { return (all, false) };
        all.push(removed);
        bytes = rest;
    }
    (all, true)
}

fn read_one(bytes: &[u8]) -> Option<(Removed, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (frame, rest) = rest.split_at_checked(length)?;
    let Record { lane, stream, last_seq, tally } =
        codec::unseal(Kind::Removed, VERSION, frame).ok()?;
    let lane = *Lane::ALL.get(usize::from(lane))?;
    Some((Removed { lane, stream: Uuid::from_bytes(stream), last_seq, tally }, rest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::entropy::SystemEntropy;
    use crate::journal::Config;
    use crate::metrics::Metrics;

    fn removed(number: u128) -> Removed {
        let mut tally = Tally::default();
        (0..100).for_each(|seq| tally.add(seq, seq + 1, 7));
        Removed { lane: Lane::Usage, stream: Uuid::from_u128(number), last_seq: 100, tally }
    }

    #[test]
    fn what_is_remembered_is_there_after_a_restart_and_damage_costs_the_rest() {
        let data = tempfile::TempDir::new().expect("temporary directory");
        let open = || {
            let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
            let metrics = Arc::new(Metrics::new());
            let opened = Journal::open(data.path(), Config::default(), clock, entropy, metrics);
            opened.expect("a journal").0
        };
        let journal = open();
        assert!(matches!(journal.remembered(), (none, true) if none.is_empty()));
        journal.remember([removed(1), removed(2), removed(3)].iter()).expect("writable");
        journal.shutdown().expect("a working disk");
        // A kill came while it was being written.
        std::fs::write(data.path().join("journal/.new-Ab3dE"), "half").expect("writable");
        let journal = open();
        let streams = |journal: &Journal| {
            let (all, whole) = journal.remembered();
            let all = all.into_iter().map(|r| (r.stream.as_u128(), r.last_seq, r.tally.at(50)));
            (all.collect::<Vec<_>>(), whole)
        };
        assert_eq!(streams(&journal), ([1, 2, 3].map(|n| (n, 100, Some(350))).to_vec(), true));

        let path = data.path().join("journal").join(FILE);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).expect("writable");
        assert_eq!(streams(&journal), (vec![(1, 100, Some(350))], false));
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("writable");
            assert!(journal.remembered().0.len() < 3);
        }
        journal.shutdown().expect("a working disk");
    }

    #[test]
    fn any_bytes_are_remembered_or_forgotten() {
        let Removed { stream, last_seq, tally, .. } = removed(1);
        let record = Record { lane: 1, stream: stream.into_bytes(), last_seq, tally };
        let frame = codec::seal(Kind::Removed, VERSION, &record).expect("small");
        let payload = codec::payload(Kind::Removed, VERSION, &frame).expect("whole").to_vec();
        let file = |frame: &[u8]| {
            let length = u32::try_from(frame.len()).expect("a frame is short").to_le_bytes();
            [&length[..], frame].concat()
        };
        crate::fuzz::each("removed", &[file(&frame).repeat(3), payload], |bytes| {
            assert!(read(bytes).0.len() * LENGTH <= bytes.len());
            let Some(frame) = crate::fuzz::framed(Kind::Removed, VERSION, bytes) else { return };
            let (all, whole) = read(&file(&frame));
            assert_eq!(all.len(), usize::from(whole));
            for removed in all {
                let _facts = (removed.tally.at_least(u64::MAX), removed.tally.at(removed.last_seq));
            }
        });
    }
}
