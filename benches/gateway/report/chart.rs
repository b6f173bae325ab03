//! What is drawn: the data of each chart. How it is drawn is told in `draw.rs`.

use serde::Serialize;

use super::series::{Series, Turn};
use crate::load::latency::Latency;

/// A line or the bar of one name.
#[derive(Clone, Serialize)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A stretch of time in which something was done to it.
#[derive(Clone, Serialize)]
pub struct Shade {
    pub from: f64,
    pub to: f64,
    pub name: String,
}

/// One bar, with the range that its rounds fell in.
#[derive(Clone, Serialize)]
pub struct Bar {
    pub name: String,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// One chart.
#[derive(Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Chart {
    /// Percentile against latency in microseconds, both ends stretched.
    Latencies { title: String, lines: Vec<Line> },
    /// Seconds against a value.
    Timeline { title: String, unit: String, lines: Vec<Line>, shades: Vec<Shade>, log: bool },
    /// One bar for each name.
    Bars { title: String, unit: String, bars: Vec<Bar> },
}

impl Chart {
    pub fn latencies<'a>(
        title: &str,
        of: impl IntoIterator<Item = (&'a str, &'a Latency)>,
    ) -> Self {
        let line = |(name, latency): (&str, &Latency)| Line {
            name: name.to_owned(),
            points: latency.curve(),
        };
        Self::Latencies { title: title.to_owned(), lines: of.into_iter().map(line).collect() }
    }

    pub fn bars<'a>(
        title: &str,
        unit: &str,
        of: impl IntoIterator<Item = (&'a str, &'a Series)>,
    ) -> Self {
        let bars = of.into_iter().map(|(name, series)| {
            let (least, most) = series.range();
            Bar { name: name.to_owned(), median: series.median(), least, most }
        });
        Self::Bars { title: title.to_owned(), unit: unit.to_owned(), bars: bars.collect() }
    }

    /// Both of those who took turns: how much, and how long it took.
    pub fn both(title: &str, unit: &str, turns: &[Turn]) -> [Self; 2] {
        let name = |turn: &'_ Turn| turn.name.clone();
        let names: Vec<String> = turns.iter().map(name).collect();
        let named = || names.iter().map(String::as_str).zip(turns);
        [
            Self::bars(title, unit, named().map(|(name, turn)| (name, &turn.rates))),
            Self::latencies(title, named().map(|(name, turn)| (name, &turn.latency))),
        ]
    }
}
