//! How many facts a stream holds up to which number, as far as its readers have counted.
//!
//! A position in the ledger is the end of some batch, and whoever gathers a batch counts its facts:
//! so the facts between two positions are known exactly, also after the ledger moved backwards.

use std::collections::BTreeMap;

/// Ends of batches that are remembered of one stream, some 16 bytes each: the newest.
const MARKS_MAX: usize = 4096;

/// Facts by the last sequence number of what holds them.
#[derive(Clone, Debug, Default, bincode::Encode, bincode::Decode)]
pub struct Tally(BTreeMap<u64, u64>);

impl Tally {
    /// Facts in all chunks up to `seq`, where that was counted.
    pub fn at(&self, seq: u64) -> Option<u64> {
        if seq == 0 { Some(0) } else { self.0.get(&seq).copied() }
    }

    /// Facts in all chunks up to `seq`, at least.
    pub fn at_least(&self, seq: u64) -> u64 {
        self.0.range(..=seq).next_back().map_or(0, |(_, facts)| *facts)
    }

    /// The chunks after `from`, up to and with `to`, hold `facts`.
    pub fn add(&mut self, from: u64, to: u64, facts: u64) {
        if let Some(before) = self.at(from) {
            self.set(to, before + facts);
        }
    }

    /// All chunks up to `seq` hold `facts`.
    pub fn set(&mut self, seq: u64, facts: u64) {
        self.0.insert(seq, facts);
        if self.0.len() > MARKS_MAX {
            self.0.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_exact_and_the_rest_is_not_claimed() {
        let mut tally = Tally::default();
        tally.add(0, 4, 10);
        tally.add(4, 6, 3);
        // Another batch over the same numbers, as after a failure.
        tally.add(0, 5, 12);
        tally.add(9, 12, 7);
        assert_eq!([0, 4, 5, 6].map(|seq| tally.at(seq)), [Some(0), Some(10), Some(12), Some(13)]);
        assert_eq!([3, 12].map(|seq| tally.at(seq)), [None, None]);
        assert_eq!([3, 4, 12].map(|seq| tally.at_least(seq)), [0, 10, 13]);
    }

    #[test]
    fn the_newest_marks_are_kept_and_no_more_than_the_bound() {
        let mut tally = Tally::default();
        for seq in 0..2 * MARKS_MAX as u64 {
            tally.add(seq, seq + 1, 2);
        }
        assert_eq!(tally.0.len(), MARKS_MAX);
        assert_eq!(tally.at(1), None);
        assert_eq!(tally.at(2 * MARKS_MAX as u64), Some(4 * MARKS_MAX as u64));
    }
}
