//! Wall-clock time as the journal, the cache and Postgres store it.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds since the Unix epoch: the resolution of a Postgres `timestamptz`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode,
)]
pub struct Timestamp(pub i64);

const HOUR_US: i64 = 3_600_000_000;

impl Timestamp {
    /// `-infinity`: before every clock. A revocation at once carries it, so no clock can undo it.
    pub const NEG_INFINITY: Self = Self(i64::MIN);
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// Whole hours since the epoch, rounded down.
    pub fn hour(self) -> i64 {
        self.0.div_euclid(HOUR_US)
    }

    /// The start of an hour counted since the epoch.
    pub fn from_hour(hour: i64) -> Self {
        Self(hour.saturating_mul(HOUR_US))
    }

    /// `self + duration`, held at the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// `self - duration`, held at the beginning of time.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The calendar form, or `None` for `-infinity` and what no calendar holds.
    pub fn to_datetime(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).ok()
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        let micros = at.unix_timestamp_nanos().div_euclid(1000);
        Self(i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX }))
    }
}

/// RFC 3339 in UTC, or `-infinity`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_datetime().and_then(|at| at.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => f.write_str("-infinity"),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(Timestamp(HOUR_US - 1).hour(), 0);
        assert_eq!(Timestamp(-1).hour(), -1);
        assert_eq!(Timestamp::from_hour(Timestamp(5 * HOUR_US + 7).hour()), Timestamp(5 * HOUR_US));
    }

    #[test]
    fn infinity_prints_as_postgres_prints_it() {
        assert_eq!(Timestamp::NEG_INFINITY.to_string(), "-infinity");
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn differences_never_underflow() {
        assert_eq!(Timestamp::NEG_INFINITY.since(Timestamp(i64::MAX)), Duration::ZERO);
        assert!(Timestamp(i64::MAX).since(Timestamp::NEG_INFINITY) > Duration::from_secs(1));
    }
}
