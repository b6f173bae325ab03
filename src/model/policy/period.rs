//! Periods of the calendar in a time zone: from when to when a moment's quota counts.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::ToSpan;
use jiff::tz::TimeZone;

use super::PeriodUnit;
use crate::model::Timestamp;

/// Hours, days, months or years of one time zone.
#[derive(Debug)]
pub struct Period {
    unit: PeriodUnit,
    zone: TimeZone,
    /// The one that was asked for last: the calendar is slow, and the next moment nearly always
    /// lies in the same.
    last: ArcSwap<(Timestamp, Timestamp)>,
}

impl PartialEq for Period {
    fn eq(&self, other: &Self) -> bool {
        self.unit == other.unit && self.zone == other.zone
    }
}

/// There is no such time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{0}`; use a name like `Europe/Berlin` or `UTC`")]
pub struct PeriodError(String);

impl Period {
    /// Of the zone that the IANA time zone database calls `timezone`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn new(unit: PeriodUnit, timezone: &str) -> Result<Self, PeriodError> {
        let unknown = |_| PeriodError(timezone.chars().take(64).collect());
        let zone = TimeZone::get(timezone).map_err(unknown)?;
        // They are in the database, and say that nobody has said which.
        if zone.is_unknown() || timezone.eq_ignore_ascii_case("Factory") {
            return Err(PeriodError(timezone.into()));
        }
        let nothing = (Timestamp::NEG_INFINITY, Timestamp::NEG_INFINITY);
        Ok(Self { unit, zone, last: ArcSwap::from_pointee(nothing) })
    }

    /// The period that `now` lies in: its start, and the start of the next. A moment beyond the
    /// calendar (before the year -9999 or after 9999) lies in one long period.
    pub fn around(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let (start, next) = **self.last.load();
        if start <= now && now < next {
            return (start, next);
        }
        let whole = (Timestamp::NEG_INFINITY, Timestamp(i64::MAX));
        let found = self.in_calendar(now).unwrap_or(whole);
        self.last.store(Arc::new(found));
        found
    }

    fn in_calendar(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let now = jiff::Timestamp::from_microsecond(now.0).ok()?.to_zoned(self.zone.clone());
        let (start, next) = match self.unit {
            PeriodUnit::Hour => return self.hour(now.timestamp()),
            PeriodUnit::Day => {
                let start = now.start_of_day().ok()?;
                let next = start.tomorrow().ok()?.start_of_day().ok()?;
                (start, next)
            }
            PeriodUnit::Month => {
                let first = now.first_of_month().ok()?;
                let next = first.checked_add(1.month()).ok()?;
                (first.start_of_day().ok()?, next.start_of_day().ok()?)
            }
            PeriodUnit::Year => {
                let first = now.first_of_year().ok()?;
                let next = first.checked_add(1.year()).ok()?;
                (first.start_of_day().ok()?, next.start_of_day().ok()?)
            }
        };
        Some((moment(start.timestamp()), moment(next.timestamp())))
    }

    /// Whole hours of the clock on the wall. One is cut short where that is set by half an hour, as
    /// in a few zones: so every moment lies in one.
    fn hour(&self, now: jiff::Timestamp) -> Option<(Timestamp, Timestamp)> {
        const HOUR: i64 = 3_600_000_000;
        let offset = i64::from(self.zone.to_offset(now).seconds()) * 1_000_000;
        let hour = now.as_microsecond() - (now.as_microsecond() + offset).rem_euclid(HOUR);
        // What precedes lies before, and a shift may be now.
        let after_now = now.checked_add(1.nanosecond()).ok()?;
        let before = self.zone.preceding(after_now).next();
        let after = self.zone.following(now).next();
        let before = before.map_or(Timestamp::NEG_INFINITY, |shift| moment(shift.timestamp()));
        let after = after.map_or(Timestamp(i64::MAX), |shift| moment(shift.timestamp()));
        Some((Timestamp(hour).max(before), Timestamp(hour + HOUR).min(after)))
    }
}

fn moment(at: jiff::Timestamp) -> Timestamp {
    Timestamp(at.as_microsecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn around(unit: PeriodUnit, zone: &str, now: &str) -> (String, String) {
        let now: jiff::Timestamp = now.parse().expect("a moment");
        let period = Period::new(unit, zone).expect("a zone");
        let (start, next) = period.around(Timestamp(now.as_microsecond()));
        (start.to_string(), next.to_string())
    }

    #[test]
    fn periods_follow_the_calendar_of_their_zone() {
        for (unit, zone, now, start, next) in [
            (
                PeriodUnit::Hour,
                "UTC",
                "2026-11-24T13:59:59Z",
                "2026-11-24T13:00:00Z",
                "2026-11-24T14:00:00Z",
            ),
            (
                PeriodUnit::Hour,
                "Asia/Kolkata",
                "2026-11-24T13:45:00Z",
                "2026-11-24T13:30:00Z",
                "2026-11-24T14:30:00Z",
            ),
            (
                PeriodUnit::Day,
                "UTC",
                "2026-11-24T00:00:00Z",
                "2026-11-24T00:00:00Z",
                "2026-11-25T00:00:00Z",
            ),
            // A day of 23 hours, and one of 25.
            (
                PeriodUnit::Day,
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                PeriodUnit::Day,
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                PeriodUnit::Month,
                "America/New_York",
                "2026-03-01T04:59:59Z",
                "2026-02-01T05:00:00Z",
                "2026-03-01T05:00:00Z",
            ),
            (
                PeriodUnit::Month,
                "UTC",
                "2028-02-29T23:59:59Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                PeriodUnit::Year,
                "Pacific/Auckland",
                "2026-12-31T11:00:00Z",
                "2026-12-31T11:00:00Z",
                "2027-12-31T11:00:00Z",
            ),
        ] {
            let expected = (start.to_owned(), next.to_owned());
            assert_eq!(around(unit, zone, now), expected, "{unit:?} {zone} {now}");
        }
    }

    #[test]
    fn what_stands_for_no_zone_is_none() {
        for zone in ["Etc/Unknown", "etc/unknown", "Factory", "factory", "Nowhere", ""] {
            assert!(Period::new(PeriodUnit::Day, zone).is_err(), "{zone}");
        }
        assert!(Period::new(PeriodUnit::Day, "Etc/UTC").is_ok());
    }

    #[test]
    fn an_hour_in_which_the_clock_is_set_by_half_of_one_is_cut_short() {
        let told = |now| around(PeriodUnit::Hour, "Australia/Lord_Howe", now);
        let of = |start: &str, next: &str| (start.to_owned(), next.to_owned());
        let back = of("2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z");
        assert_eq!(told("2026-04-04T15:15:00Z"), back);
        let ahead = of("2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z");
        assert_eq!(told("2026-10-03T15:45:00Z"), ahead);
    }

    #[test]
    fn beyond_the_calendar_nothing_panics() {
        let period = Period::new(PeriodUnit::Month, "UTC").expect("a zone");
        for now in [i64::MIN, i64::MAX] {
            assert_eq!(period.around(Timestamp(now)).0, Timestamp::NEG_INFINITY);
        }
        assert!(Period::new(PeriodUnit::Day, "Mars/Olympus").is_err());
        assert!(Period::new(PeriodUnit::Day, "").is_err());
    }

    /// The last one shifts by half an hour.
    const ZONES: [&str; 5] =
        ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe"];
    const UNITS: [PeriodUnit; 4] =
        [PeriodUnit::Hour, PeriodUnit::Day, PeriodUnit::Month, PeriodUnit::Year];

    proptest! {
        #[test]
        fn every_moment_lies_in_one_period(
            micros in -62_000_000_000_000_000_i64..250_000_000_000_000_000,
            zone in prop::sample::select(&ZONES),
            unit in prop::sample::select(&UNITS),
        ) {
            let period = Period::new(unit, zone).expect("a zone");
            let now = Timestamp(micros);
            let (start, next) = period.around(now);
            prop_assert!(start <= now && now < next);
            prop_assert_eq!(period.around(start), (start, next));
            prop_assert_eq!(period.around(Timestamp(next.0 - 1)), (start, next));
            prop_assert_eq!(period.around(next).0, next);
        }
    }
}
