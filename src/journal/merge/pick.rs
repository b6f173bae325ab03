//! Which segments are merged: always the fresh ones, and of the merged ones (runs) those that are
//! not much larger than what comes to them. So a fact is written again a number of times that grows
//! with the logarithm of the backlog, and so does the number of runs.

use super::sources::SOURCES_MAX;

/// As many fresh segments make it worth while.
pub const FRESH_MIN: usize = 4;
/// As many are merged in one go.
pub const FRESH_MAX: usize = 64;
/// As many runs are read side by side: each is an open sled database.
const RUNS_MAX: usize = 8;
/// A run takes part if it has at most so many times the facts of all that is merged into it.
const FACTOR: u64 = 2;
/// Below so many facts a run is too small to be worth a database of its own.
const SMALL: u64 = 10_000;

/// What is known of a segment that may be merged.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its facts.
    pub facts: u64,
    /// Its bytes on disk.
    pub bytes: u64,
    /// How many streams it stands for, 0 if it is fresh.
    pub sources: usize,
}

/// The places of those among `candidates`, oldest first, that are to be merged into one; empty when
/// it is not worth while. What is written is at most what is read, and shall take half of `room`
/// bytes at most: the other half is for what is recorded meanwhile.
pub fn pick(candidates: &[Candidate], room: u64) -> Vec<usize> {
    let of_kind = |run: bool| {
        let places = candidates.iter().enumerate();
        places.filter(move |(_, c)| (c.sources > 0) == run).map(|(place, _)| place)
    };
    if of_kind(false).count() < FRESH_MIN {
        return Vec::new();
    }
    let mut runs: Vec<_> = of_kind(true).collect();
    runs.sort_by_key(|place| candidates[*place].facts);
    let fresh = of_kind(false).take(FRESH_MAX).map(|place| (place, false));
    let runs = runs.into_iter().take(RUNS_MAX).map(|place| (place, true));
    let (mut picked, mut facts, mut bytes, mut sources) = (Vec::new(), 0_u64, 0_u64, 0_usize);
    for (place, run) in fresh.chain(runs) {
        let candidate = candidates[place];
        let (more, names) = (bytes.saturating_add(candidate.bytes), candidate.sources + 1);
        let much_larger = candidate.facts > SMALL.max(facts.saturating_mul(FACTOR));
        if run && much_larger || more > room / 2 || sources + names > SOURCES_MAX {
            break;
        }
        (bytes, sources) = (more, sources + names);
        facts = facts.saturating_add(candidate.facts);
        picked.push(place);
    }
    if picked.len() < 2 { Vec::new() } else { picked }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(facts: u64) -> Candidate {
        Candidate { facts, bytes: facts, sources: 0 }
    }

    fn run(facts: u64) -> Candidate {
        Candidate { facts, bytes: facts, sources: 9 }
    }

    #[test]
    fn few_fresh_segments_are_left_alone_and_many_taken_by_turns() {
        assert!(pick(&[fresh(1), fresh(1), fresh(1), run(1)], 100).is_empty());
        let many = [fresh(1); FRESH_MAX + 5];
        assert_eq!(pick(&many, 1000).len(), FRESH_MAX);
    }

    #[test]
    fn a_run_that_is_much_larger_is_not_written_again() {
        let all = [run(1_000_000), fresh(20_000), fresh(20_000), run(90_000), fresh(9), fresh(9)];
        assert_eq!(pick(&all, u64::MAX), [1, 2, 4, 5]);
        let all = [run(300_000), fresh(20_000), fresh(20_000), run(70_000), fresh(9), fresh(9)];
        assert_eq!(pick(&all, u64::MAX), [1, 2, 4, 5, 3], "and what becomes of it is not either");
    }

    #[test]
    fn a_merge_takes_half_of_what_is_left_of_the_bound() {
        let all = [fresh(40_000); 4];
        assert_eq!(pick(&all, 160_000), [0, 1]);
        assert!(pick(&all, 100_000).is_empty());
    }

    #[test]
    fn no_segment_stands_for_more_streams_than_one_transaction_retires() {
        let full = Candidate { sources: SOURCES_MAX - 4, ..run(1) };
        assert_eq!(pick(&[full, fresh(1), fresh(1), fresh(1), fresh(1)], 100), [1, 2, 3, 4]);
    }

    #[test]
    fn however_long_the_backlog_the_runs_are_few_and_facts_are_written_seldom() {
        let (mut segments, mut written) = (Vec::new(), 0);
        for _ in 0..4000 {
            segments.push(fresh(20_000));
            let picked = pick(&segments, u64::MAX);
            let facts = picked.iter().map(|place| segments[*place].facts).sum();
            let mut place = 0;
            segments.retain(|_| {
                place += 1;
                !picked.contains(&(place - 1))
            });
            if facts > 0 {
                written += facts;
                segments.push(Candidate { sources: 9, ..fresh(facts) });
            }
            assert!(segments.len() < 16, "{}", segments.len());
        }
        assert!(written < 10 * 4000 * 20_000, "{}", written / (4000 * 20_000));
    }
}
