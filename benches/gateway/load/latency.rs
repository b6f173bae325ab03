//! Latencies as a whole distribution (HDR histogram): no sample is thrown away, and parts can be
//! added up.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest that is told apart; what took longer counts as this.
const MAX_MICROS: u64 = 600_000_000;
/// Three digits: one in a thousand, up to ten minutes.
const DIGITS: u8 = 3;

/// Latencies of answers, in microseconds.
#[derive(Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_max(MAX_MICROS, DIGITS).expect("bounds as they should be"))
    }
}

impl Latency {
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(MAX_MICROS);
        self.0.saturating_record(micros.max(1));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile in microseconds; not a number without answers.
    pub fn at(&self, percent: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        self.0.value_at_percentile(percent) as f64
    }

    /// The distribution as points (percentile, microseconds), closer together towards its end.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        const NINES: [f64; 17] = [
            0.0, 10.0, 25.0, 50.0, 75.0, 80.0, 85.0, 90.0, 93.0, 95.0, 97.0, 98.0, 99.0, 99.5,
            99.9, 99.95, 99.99,
        ];
        // A percentile that fewer than ten answers lie beyond says nothing.
        let told = |percent: &f64| (100.0 - percent) / 100.0 * self.count() as f64 >= 10.0;
        NINES.into_iter().filter(told).map(|percent| (percent, self.at(percent))).collect()
    }
}
