//! Repeatable choices: `GATEPOST_SEED` repeats those of a run.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use gatepost::entropy::{Entropy, SeededEntropy};

pub struct Dice(SeededEntropy);

impl Dice {
    /// The seed is printed: the runner shows it where a test fails.
    #[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
    pub fn new() -> Self {
        let seed = setting("GATEPOST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
        eprintln!("GATEPOST_SEED={seed}");
        Self(SeededEntropy::new(seed))
    }

    pub fn below(&self, bound: u32) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) % bound
    }

    pub fn one_in(&self, bound: u32) -> bool {
        self.below(bound) == 0
    }

    pub fn millis(&self, bound: u32) -> Duration {
        Duration::from_millis(self.below(bound).into())
    }
}

/// Whether the long variants of the tests were asked for.
pub fn long() -> bool {
    std::env::var("GATEPOST_LONG").is_ok_and(|long| long == "1")
}

/// What an environment variable says, of how long a long test is or how it chooses.
pub fn setting<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}
