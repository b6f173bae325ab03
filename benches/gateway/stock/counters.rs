//! Counters as a busy gateway has them, and a journal to count them in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gatepost::clock::{Clock, SystemClock};
use gatepost::entropy::{Entropy, SeededEntropy, SystemEntropy};
use gatepost::journal::{Config, Journal};
use gatepost::metrics::Metrics;
use gatepost::model::Timestamp;
use gatepost::model::fact::{Counter, Counts};

/// Each client's keys.
const KEYS_PER_CLIENT: usize = 10;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// One counter per key, ten keys per client, made at random moments of the last year; in no order.
pub fn counters(distinct: usize) -> Vec<Counter> {
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
    let now = SystemClock::new().now();
    let keys = (0..distinct).map(|number| {
        let made = Timestamp(now.0 - i64::try_from(entropy.jitter(YEAR).as_micros()).unwrap_or(0));
        Counter {
            client: format!("client-{:04}", number / KEYS_PER_CLIENT).into(),
            key_id: entropy.uuid_v7(made),
            table: "orders".into(),
            operation: "read".into(),
            hour: now.hour(),
        }
    });
    let mut keys: Vec<Counter> = keys.collect();
    // The random end of a key's id is as good as a shuffle.
    keys.sort_by_key(|counter| counter.key_id.as_u128() as u64);
    keys
}

/// One request that succeeded.
pub fn one(at: Timestamp) -> Counts {
    Counts { requests: 1, succeeded: 1, last_seen: at, ..Counts::ZERO }
}

/// A journal in `data`, and its metrics.
pub fn journal(data: &Path, config: Config) -> Result<(Journal, Arc<Metrics>)> {
    let metrics = Arc::new(Metrics::new());
    let (journal, _) = Journal::open(
        data,
        config,
        Arc::new(SystemClock::new()),
        Arc::new(SystemEntropy::new()),
        metrics.clone(),
    )?;
    Ok((journal, metrics))
}

/// Numbers as good as random, the same in every run (SplitMix64, Steele et al. 2014).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
