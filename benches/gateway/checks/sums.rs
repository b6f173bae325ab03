//! Percentiles, medians, spreads, ratios, goals.

use std::time::Duration;

use crate::goal::Goal;
use crate::load::latency::Latency;
use crate::series::{Rounds, Series, number};

fn micros(all: impl IntoIterator<Item = u64>) -> Latency {
    let mut latency = Latency::default();
    all.into_iter().for_each(|micros| latency.record(Duration::from_micros(micros)));
    latency
}

fn series(all: &[f64]) -> Series {
    let mut series = Series::default();
    all.iter().for_each(|value| series.push(*value));
    series
}

/// To one in a thousand, as it promises.
fn near(value: f64, wanted: f64) {
    assert!((value - wanted).abs() <= wanted / 1000.0, "{value} instead of {wanted}");
}

#[test]
fn a_percentile_is_that_of_all_answers() {
    // In no order: 617 and 1009 have no divisor in common.
    let thousand = micros((1..1009).map(|at| at * 617 % 1009 * 1000).filter(|at| *at <= 1_000_000));
    assert_eq!(thousand.count(), 1000);
    for (percent, wanted) in [(50.0, 500.0), (90.0, 900.0), (99.0, 990.0), (100.0, 1000.0)] {
        near(thousand.at(percent), wanted * 1000.0);
    }
    // One slow answer of a thousand is the last, and moves no percentile before it.
    let mut one = micros(std::iter::repeat_n(100, 999));
    one.record(Duration::from_secs(3));
    near(one.at(99.0), 100.0);
    near(one.at(100.0), 3_000_000.0);
    // Two of a hundred are beyond the 98th.
    let two = micros(std::iter::repeat_n(100, 98).chain([50_000, 50_000]));
    near(two.at(98.0), 100.0);
    near(two.at(99.0), 50_000.0);
}

#[test]
fn parts_add_up_and_nothing_is_no_number() {
    let (mut low, high) =
        (micros((1..=500).map(|at| at * 10)), micros((501..=1000).map(|at| at * 10)));
    low.add(&high);
    assert_eq!(low.count(), 1000);
    near(low.at(50.0), 5000.0);
    near(low.at(99.0), 9900.0);
    assert!(Latency::default().at(99.0).is_nan());
    // Beyond the longest that is told apart it is counted, as that.
    let long = micros([3_600_000_000]);
    assert_eq!(long.count(), 1);
    near(long.at(50.0), 600_000_000.0);
}

#[test]
fn a_curve_ends_where_answers_become_few() {
    assert!(Latency::default().curve().is_empty());
    let last = |answers| micros(1..=answers).curve().last().map(|(percent, _)| *percent);
    assert_eq!(last(9), None);
    assert_eq!(last(10), Some(0.0));
    assert_eq!(last(1000), Some(99.0));
    assert_eq!(last(100_000), Some(99.99));
}

#[test]
fn a_median_is_the_middle_and_a_spread_the_ends() {
    assert!(Series::default().median().is_nan());
    assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
    assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    // One round that other work spoilt moves the spread alone.
    let spoilt = series(&[10.0, 11.0, 0.1, 10.5, 10.2]);
    assert_eq!((spoilt.median(), spoilt.range()), (10.2, (0.1, 11.0)));
    assert_eq!(spoilt.to_string(), "10.2 (0.10–11)");
    assert_eq!(Series::of(0.5).to_string(), "0.50");
}

/// The machine is slow in the second round, for both: the ratio is that of each round.
#[test]
fn a_ratio_is_that_of_each_round() {
    let mut rounds = Rounds::default();
    for (ours, other) in [(90.0, 100.0), (20.0, 40.0), (80.0, 100.0)] {
        rounds.push(ours, other);
    }
    let ratios = rounds.ratios();
    assert_eq!((ratios.median(), ratios.range()), (0.8, (0.5, 0.9)));
    assert!(rounds.ours.median() / rounds.other.median() < 0.81);
    let mut apart = Rounds::default();
    for (ours, other) in [(100.0, 100.0), (50.0, 25.0), (10.0, 20.0)] {
        apart.push(ours, other);
    }
    assert_eq!(apart.ratios().median(), 1.0, "not 50 by 25");
}

#[test]
fn a_goal_is_met_at_its_bound_and_never_by_nothing() {
    let (least, most) = (Goal::at_least(0.9).unwrap(), Goal::at_most(20.0).unwrap());
    assert!(least.met(0.9) && least.met(1.0) && !least.met(0.899));
    assert!(most.met(20.0) && most.met(0.0) && !most.met(20.1));
    for none in [f64::NAN, Series::default().median()] {
        assert!(!least.met(none) && !most.met(none));
    }
}

#[test]
fn numbers_say_what_they_are() {
    let texts = [0.0, 0.004, 0.756, 9.999, 12.34, 99.96, 100.0, 1234.5, 119_037.2, -1234.0];
    let texts = texts.map(number);
    let wanted = ["0", "0", "0.76", "10.00", "12.3", "100", "100", "1,234", "119,037", "-1,234"];
    assert_eq!(texts, wanted);
    assert_eq!(number(f64::NAN), "–");
}
