//! What a presented generation means: the table at the head of the room. No I/O.

use crate::model::{Advance, Timestamp};

/// The answer to a refresh token that is proven to be one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The current one: the session advances.
    Advance(Advance),
    /// The one before, soon after: a lost reply, two tabs, a retry. The same successor again.
    Again,
    /// An older one, or too late: theft or a broken client.
    Reuse,
    /// From beyond what is known here: this gateway has lost state.
    Beyond,
}

/// Decides about generation `presented` of a session that has come to `current`. `again` tells
/// whether the generation before is still answered; it is asked about no other.
pub fn judge(
    presented: u64,
    current: Advance,
    again: impl FnOnce() -> bool,
    now: Timestamp,
) -> Verdict {
    let Advance { generation, .. } = current;
    if presented == generation {
        Verdict::Advance(Advance { generation: generation.saturating_add(1), at: now })
    } else if presented > generation {
        Verdict::Beyond
    } else if presented + 1 == generation && again() {
        Verdict::Again
    } else {
        Verdict::Reuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000)
    }

    #[test]
    fn each_generation_has_its_answer() {
        let current = Advance { generation: 7, at: secs(100) };
        let next = Advance { generation: 8, at: secs(110) };
        for again in [true, false] {
            let judge = |presented| judge(presented, current, || again, secs(110));
            assert_eq!(judge(7), Verdict::Advance(next));
            assert_eq!(judge(6), if again { Verdict::Again } else { Verdict::Reuse });
            assert_eq!((judge(5), judge(0)), (Verdict::Reuse, Verdict::Reuse));
            assert_eq!((judge(8), judge(u64::MAX)), (Verdict::Beyond, Verdict::Beyond));
        }
    }
}
