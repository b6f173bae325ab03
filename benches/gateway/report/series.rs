//! Several measurements of one thing, and of several things that took turns.

use std::fmt;

use serde::Serialize;

use crate::load::closed::Outcome;
use crate::load::latency::Latency;

/// Measurements in the order in which they were made.
#[derive(Clone, Default, Serialize)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn of(value: f64) -> Self {
        Self(vec![value])
    }

    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[len / 2],
            len => sorted[len / 2 - 1].midpoint(sorted[len / 2]),
        }
    }

    /// The least and the most.
    pub fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    /// Each by the one of the same round.
    pub fn per(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, other)| ours / other).collect())
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", number(self.median()))?;
        let (least, most) = self.range();
        if self.0.len() > 1 { write!(f, " ({}–{})", number(least), number(most)) } else { Ok(()) }
    }
}

/// As many digits as say something, thousands apart.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size < 100.0 {
        let digits = if size < 10.0 { 2 } else { 1 };
        let text = format!("{value:.digits$}");
        let short = text.trim_end_matches('0').trim_end_matches('.');
        return if size >= 10.0 || short == "0" { short.to_owned() } else { text };
    }
    let (digits, mut text) = (format!("{size:.0}"), String::new());
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// What two measured in turn.
#[derive(Clone, Default)]
pub struct Rounds {
    pub ours: Series,
    pub other: Series,
}

impl Rounds {
    pub fn push(&mut self, ours: f64, other: f64) {
        self.ours.push(ours);
        self.other.push(other);
    }

    pub fn ratios(&self) -> Series {
        self.ours.per(&self.other)
    }
}

/// What one of several measured, round by round.
#[derive(Clone, Default)]
pub struct Turn {
    pub name: String,
    pub rates: Series,
    pub cpu: Series,
    /// Of all rounds.
    pub latency: Latency,
}

impl Turn {
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub fn push(&mut self, outcome: &Outcome) {
        self.rates.push(outcome.per_second);
        self.cpu.push(outcome.cpu_micros);
        self.latency.add(&outcome.latency);
    }
}
