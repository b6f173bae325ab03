//! What cannot be sent again: removed streams are remembered for a while, so that a ledger that
//! moves backwards behind them is reported with exact figures. Behind the oldest of them the
//! figures are a lower bound, and say so.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;
use uuid::Uuid;

use crate::journal::Removed;
use crate::model::fact::Lane;
use crate::postgres::sink::Ledger;

/// Removed streams whose place in the ledger is still looked at: the newest.
pub(super) const REMEMBERED_MAX: usize = 256;
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

/// What one look at the ledger found lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// By stream.
    pub lost: Vec<Lost>,
    /// Streams that nobody remembers may have lost something as well.
    pub at_least: bool,
}

/// Streams that were removed here, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    streams: VecDeque<Removed>,
    /// The newest of an earlier process, which the file about them did not give back.
    torn: bool,
}

impl Remembered {
    /// What earlier processes remembered, and whether that is `whole`.
    pub(super) fn new((removed, whole): (Vec<Removed>, bool)) -> Self {
        let mut remembered = Self { streams: VecDeque::new(), torn: !whole };
        remembered.add(removed);
        remembered
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Removed> {
        self.streams.iter()
    }

    /// Remembers what was removed just now.
    pub(super) fn add(&mut self, removed: Vec<Removed>) {
        self.streams.extend(removed);
        self.streams.drain(..self.streams.len().saturating_sub(REMEMBERED_MAX));
    }

    /// The streams to ask the ledger about.
    pub(super) fn streams(&self) -> impl Iterator<Item = Uuid> {
        self.streams.iter().map(|removed| removed.stream)
    }

    /// The oldest stream of each lane. Streams of a lane drain, and go, in their order: where this
    /// one has lost nothing, those before it have not either.
    fn oldest(&self) -> impl Iterator<Item = Uuid> {
        let first = |lane| self.streams.iter().find(move |removed| removed.lane == lane);
        Lane::ALL.into_iter().filter_map(first).map(|removed| removed.stream)
    }

    /// What the ledger has lost of them, each number once however often it is asked.
    pub(super) fn lost(&mut self, ledger: &HashMap<Uuid, Ledger>) -> Losses {
        let mut lost = Vec::new();
        for removed in &mut self.streams {
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
        // (When exactly as many were ever removed, that is too careful.)
        let forgot = self.streams.len() >= REMEMBERED_MAX;
        let is_lost = |stream: Uuid| lost.iter().any(|lost| lost.stream == stream);
        let behind = forgot && self.oldest().any(is_lost);
        let at_least = behind || self.torn && !lost.is_empty();
        Losses { lost, at_least }
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
    use std::time::Duration;

    use super::*;
    use crate::journal::Tally;

    fn removed(stream: u128) -> Removed {
        let mut tally = Tally::default();
        tally.add(0, 4, 10);
        tally.add(4, 9, 20);
        Removed { lane: Lane::Usage, stream: Uuid::from_u128(stream), last_seq: 9, tally }
    }

    fn ledger(last_seq: u64, underway: bool) -> HashMap<Uuid, Ledger> {
        let row = Ledger { last_seq, closed_seq: None, underway, rested: Duration::ZERO };
        HashMap::from([(Uuid::from_u128(1), row)])
    }

    fn figures(lost: &[Lost]) -> Vec<(u64, u64, Option<u64>)> {
        lost.iter().map(|lost| (lost.from, lost.to, lost.facts)).collect()
    }

    #[test]
    fn each_number_is_lost_once() {
        let mut remembered = Remembered::default();
        remembered.add(vec![removed(1)]);
        assert_eq!(remembered.lost(&ledger(9, false)), Losses::default());
        let underway = remembered.lost(&ledger(4, true));
        assert_eq!(underway, Losses::default(), "it lives on in another stream");
        let Losses { lost: mut shown, at_least } = remembered.lost(&ledger(4, false));
        assert_eq!(figures(&shown), [(5, 9, Some(20))]);
        assert_eq!(shown[0].chunks(), 5);
        assert!(!at_least, "nothing was forgotten");
        assert_eq!(remembered.lost(&ledger(4, false)), Losses::default());
        let more = remembered.lost(&HashMap::new()).lost;
        assert_eq!(figures(&more), [(1, 4, Some(10))]);
        show(&mut shown, &more);
        assert_eq!(figures(&shown), [(1, 9, Some(30))]);
    }

    #[test]
    fn where_nobody_counted_no_number_is_claimed() {
        let mut remembered = Remembered::default();
        remembered.add(vec![removed(1)]);
        assert_eq!(figures(&remembered.lost(&ledger(3, false)).lost), [(4, 9, None)]);
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

    /// A ledger that has every stream whole but those that are named here.
    fn without(lost: &[u128], of: u128) -> HashMap<Uuid, Ledger> {
        let row = Ledger { last_seq: 9, closed_seq: None, underway: false, rested: Duration::ZERO };
        let kept = (0..of).filter(|stream| !lost.contains(stream));
        kept.map(|stream| (Uuid::from_u128(stream), row)).collect()
    }

    #[test]
    fn behind_the_oldest_that_is_remembered_the_figures_are_a_lower_bound() {
        let newest = 2 * REMEMBERED_MAX as u128;
        let quota = newest - 20;
        let full = || {
            let mut all: Vec<_> = (0..newest).map(removed).collect();
            all[quota as usize].lane = Lane::Quota;
            Remembered::new((all, true))
        };
        let lost = |lost: &[u128]| {
            let Losses { lost, at_least } = full().lost(&without(lost, newest));
            (lost.len(), at_least)
        };
        assert_eq!(lost(&[]), (0, false));
        assert_eq!(lost(&[newest - 1]), (1, false), "all that is older is whole");
        let oldest = REMEMBERED_MAX as u128;
        assert_eq!(lost(&[oldest, newest - 1]), (2, true));
        assert_eq!(lost(&[quota]), (1, true), "of its lane none is older");
        let few: Vec<_> = (0..3).map(removed).collect();
        let mut few = Remembered::new((few, true));
        assert!(!few.lost(&HashMap::new()).at_least, "nothing was forgotten");
    }

    #[test]
    fn what_a_damaged_file_forgot_may_be_lost_as_well() {
        let mut torn = Remembered::new((vec![removed(1), removed(2)], false));
        assert!(!torn.lost(&without(&[], 3)).at_least, "nothing is lost");
        assert!(torn.lost(&without(&[2], 3)).at_least);
    }
}
