//! What a look through a segment told, or its writer, and which numbers in it cannot be read.

use super::{End, Missing};

/// What is known of a closed segment.
#[derive(Debug)]
pub(super) struct Looked {
    /// Where it ends. Whatever becomes of its files, this process remembers.
    pub end: Option<End>,
    /// What is neither readable nor in Postgres.
    pub missing: Missing,
    /// The numbers without a readable chunk: readers pass them over.
    pub gaps: Gaps,
    /// Of these, those in `missing`.
    pub lost: Gaps,
}

impl Looked {
    /// Nothing is known, and nothing missed.
    pub fn new() -> Self {
        let (gaps, lost) = (Gaps::default(), Gaps::default());
        Self { end: None, missing: Missing::NONE, gaps, lost }
    }
}

/// Sequence numbers, as ranges with both their ends, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps(Vec<(u64, u64)>);

impl Gaps {
    /// Of the numbers after `after`, up to and with `to`, those that are not `there`, which come in
    /// order.
    pub fn between(after: u64, to: u64, there: impl Iterator<Item = u64>) -> Self {
        let (mut gaps, mut last) = (Self::default(), after);
        for seq in there.filter(|seq| (after + 1..=to).contains(seq)) {
            gaps.push(last + 1, seq - 1);
            last = seq;
        }
        gaps.push(last.saturating_add(1), to);
        gaps
    }

    fn push(&mut self, from: u64, to: u64) {
        match self.0.last_mut() {
            _ if from > to => {}
            Some(last) if last.1 + 1 == from => last.1 = to,
            _ => self.0.push((from, to)),
        }
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// Whether these are among them.
    pub fn hold(&self, others: &Self) -> bool {
        others.0.iter().all(|(from, to)| {
            let next = self.0.partition_point(|(_, end)| end < from);
            self.0.get(next).is_some_and(|known| known.0 <= *from && *to <= known.1)
        })
    }

    /// Those up to and with `seq`.
    pub fn up_to(&self, seq: u64) -> Self {
        let mut part = Self::default();
        self.0.iter().for_each(|(from, to)| part.push(*from, (*to).min(seq)));
        part
    }

    /// These up to and with `seq`, and beyond it the others.
    pub fn then(&self, seq: u64, others: &Self) -> Self {
        let mut both = self.up_to(seq);
        others.0.iter().for_each(|(from, to)| both.push((*from).max(seq.saturating_add(1)), *to));
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_there_are_told_apart_from_those_that_are_known_to_be_missing() {
        let gaps = |after, to, there: &[u64]| Gaps::between(after, to, there.iter().copied());
        assert_eq!(gaps(0, 5, &[1, 2, 3, 4, 5]), Gaps::default());
        assert_eq!(gaps(0, 0, &[]), Gaps::default());
        let known = gaps(0, 10, &[1, 4, 5, 9]);
        assert_eq!(known.0, [(2, 3), (6, 8), (10, 10)]);
        assert_eq!(known.count(), 6);
        for (after, to, there) in [(0, 5, &[1, 4, 5][..]), (2, 3, &[]), (6, 10, &[9]), (9, 10, &[])]
        {
            assert!(known.hold(&gaps(after, to, there)), "{after} {to} {there:?}");
        }
        for (after, to, there) in [(0, 5, &[1, 5][..]), (3, 4, &[]), (5, 9, &[]), (10, 11, &[])] {
            assert!(!known.hold(&gaps(after, to, there)), "{after} {to} {there:?}");
        }
        assert_eq!(gaps(3, u64::MAX, &[2, 4]).0, [(5, u64::MAX)]);
        assert_eq!(known.up_to(7).0, [(2, 3), (6, 7)]);
        assert_eq!(known.then(4, &gaps(0, 6, &[])).0, [(2, 3), (5, 6)]);
        assert_eq!(known.then(7, &gaps(0, 9, &[9])).0, [(2, 3), (6, 8)]);
    }
}
