//! What cannot be sent again: removed streams are remembered for a while, so that a ledger that
//! moves backwards behind them is reported with exact figures.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use uuid::Uuid;

use crate::journal::Removed;
use crate::postgres::sink::Ledger;

/// Removed streams whose place in the ledger is still looked at: the newest.
const REMEMBERED_MAX: usize = 256;
/// Losses that `status` shows: the newest. The log and the metrics have all.
const SHOWN_MAX: usize = 256;

/// Part of a stream that was in Postgres, is not any more, and is gone here too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The stream.
    pub stream: Uuid,
    /// Its lane.
    pub lane: &'static str,
    /// The first sequence number that is lost.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Facts in these chunks; none when nobody counted them up to exactly here.
    pub facts: Option<u64>,
}

impl Lost {
    /// Sequence numbers that are lost.
    pub fn chunks(&self) -> u64 {
        self.to - self.from + 1
    }
}

/// Streams that were removed here, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered(VecDeque<Removed>);

impl Remembered {
    /// What earlier processes remembered.
    pub(super) fn new(removed: Vec<Removed>) -> Self {
        let mut remembered = Self::default();
        remembered.add(removed);
        remembered
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Removed> {
        self.0.iter()
    }

    /// Remembers what was removed just now.
    pub(super) fn add(&mut self, removed: Vec<Removed>) {
        self.0.extend(removed);
        self.0.drain(..self.0.len().saturating_sub(REMEMBERED_MAX));
    }

    /// The streams to ask the ledger about.
    pub(super) fn streams(&self) -> impl Iterator<Item = Uuid> {
        self.0.iter().map(|removed| removed.stream)
    }

    /// What the ledger has lost of them, each number once however often it is asked.
    pub(super) fn lost(&mut self, ledger: &HashMap<Uuid, Ledger>) -> Vec<Lost> {
        let mut lost = Vec::new();
        for removed in &mut self.0 {
            let row = ledger.get(&removed.stream);
            let applied = row.map_or(0, |row| row.last_seq);
            // (Retired: its facts are there, with the stream that it was merged into.)
            if applied >= removed.last_seq || row.is_some_and(|row| row.underway) {
                continue;
            }
            let facts = removed.tally.at(removed.last_seq).zip(removed.tally.at(applied));
            lost.push(Lost {
                stream: removed.stream,
                lane: removed.lane.as_str(),
                from: applied + 1,
                to: removed.last_seq,
                facts: facts.map(|(all, kept)| all.saturating_sub(kept)),
            });
            removed.last_seq = applied;
        }
        lost
    }
}

/// Adds `new` to what is shown; what adjoins a loss of the same stream becomes one with it.
pub(super) fn show(shown: &mut Vec<Lost>, new: &[Lost]) {
    for lost in new {
        match shown.iter_mut().find(|old| old.stream == lost.stream && old.from == lost.to + 1) {
            Some(old) => {
                old.from = lost.from;
                old.facts = old.facts.zip(lost.facts).map(|(old, lost)| old + lost);
            }
            None => shown.push(lost.clone()),
        }
    }
    shown.drain(..shown.len().saturating_sub(SHOWN_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Tally;
    use crate::model::fact::Lane;

    fn removed(stream: u128) -> Removed {
        let mut tally = Tally::default();
        tally.add(0, 4, 10);
        tally.add(4, 9, 20);
        Removed { lane: Lane::Usage, stream: Uuid::from_u128(stream), last_seq: 9, tally }
    }

    fn ledger(last_seq: u64, underway: bool) -> HashMap<Uuid, Ledger> {
        let row = Ledger { last_seq, closed_seq: None, underway };
        HashMap::from([(Uuid::from_u128(1), row)])
    }

    fn figures(lost: &[Lost]) -> Vec<(u64, u64, Option<u64>)> {
        lost.iter().map(|lost| (lost.from, lost.to, lost.facts)).collect()
    }

    #[test]
    fn each_number_is_lost_once() {
        let mut remembered = Remembered::default();
        remembered.add(vec![removed(1)]);
        assert_eq!(remembered.lost(&ledger(9, false)), []);
        assert_eq!(remembered.lost(&ledger(4, true)), [], "it lives on in another stream");
        let mut shown = remembered.lost(&ledger(4, false));
        assert_eq!(figures(&shown), [(5, 9, Some(20))]);
        assert_eq!(shown[0].chunks(), 5);
        assert_eq!(remembered.lost(&ledger(4, false)), []);
        let more = remembered.lost(&HashMap::new());
        assert_eq!(figures(&more), [(1, 4, Some(10))]);
        show(&mut shown, &more);
        assert_eq!(figures(&shown), [(1, 9, Some(30))]);
    }

    #[test]
    fn where_nobody_counted_no_number_is_claimed() {
        let mut remembered = Remembered::default();
        remembered.add(vec![removed(1)]);
        assert_eq!(figures(&remembered.lost(&ledger(3, false))), [(4, 9, None)]);
    }

    #[test]
    fn the_newest_are_remembered_and_no_more_than_the_bound() {
        let mut remembered = Remembered::default();
        for stream in 0..2 * REMEMBERED_MAX as u128 {
            remembered.add(vec![removed(stream)]);
        }
        let streams: Vec<_> = remembered.streams().collect();
        assert_eq!(streams.len(), REMEMBERED_MAX);
        assert_eq!(streams[0], Uuid::from_u128(REMEMBERED_MAX as u128));
    }
}
