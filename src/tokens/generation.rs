//! What a presented generation means: the table at the head of the room. No I/O.

use std::time::Duration;

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

/// For how long the generation before is still answered.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// After the advance.
    pub span: Duration,
    /// The time in which no retry could be answered does not count.
    pub pause: Option<Pause>,
}

/// The time between two lives of this gateway.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The newest that is known of the life before.
    pub since: Timestamp,
    /// When this one began.
    pub until: Timestamp,
}

impl Grace {
    /// Whether a retry after an advance at `at` is answered at `now`.
    pub fn holds(&self, at: Timestamp, now: Timestamp) -> bool {
        let over = at.plus(self.span);
        let paused = |pause: Pause| pause.since < over && now < pause.until.plus(self.span);
        now < over || self.pause.is_some_and(paused)
    }
}

/// Decides about generation `presented` of a session that has come to `current`. `in_grace`: the
/// generation before is still answered.
pub fn judge(presented: u64, current: Advance, in_grace: bool, now: Timestamp) -> Verdict {
    let Advance { generation, .. } = current;
    if presented == generation {
        Verdict::Advance(Advance { generation: generation.saturating_add(1), at: now })
    } else if presented > generation {
        Verdict::Beyond
    } else if presented + 1 == generation && in_grace {
        Verdict::Again
    } else {
        Verdict::Reuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn secs(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000)
    }

    #[test]
    fn each_generation_has_its_answer() {
        let current = Advance { generation: 7, at: secs(100) };
        let next = Advance { generation: 8, at: secs(110) };
        assert_eq!(judge(7, current, true, secs(110)), Verdict::Advance(next));
        assert_eq!(judge(6, current, true, secs(110)), Verdict::Again);
        assert_eq!(judge(6, current, false, secs(131)), Verdict::Reuse);
        for in_grace in [true, false] {
            assert_eq!(judge(5, current, in_grace, secs(110)), Verdict::Reuse);
            assert_eq!(judge(0, current, in_grace, secs(110)), Verdict::Reuse);
            assert_eq!(judge(8, current, in_grace, secs(110)), Verdict::Beyond);
            assert_eq!(judge(u64::MAX, current, in_grace, secs(110)), Verdict::Beyond);
        }
    }

    #[test]
    fn grace_ends_on_time_and_does_not_run_while_nobody_could_answer() {
        let grace = Grace { span: GRACE, pause: None };
        assert!(grace.holds(secs(100), secs(129)));
        assert!(!grace.holds(secs(100), secs(130)));
        assert!(grace.holds(secs(100), secs(90)), "a clock that was set back revokes nothing");
        let pause = Some(Pause { since: secs(110), until: secs(1000) });
        let grace = Grace { span: GRACE, pause };
        assert!(grace.holds(secs(100), secs(1029)), "it was open when the gateway went away");
        assert!(!grace.holds(secs(100), secs(1030)));
        assert!(!grace.holds(secs(80), secs(1001)), "it was over before");
    }
}
