//! What was measured: medians, ranges, ratios and goals, as one table.

use std::fmt;

use comfy_table::{Table, presets};

/// Says on stderr what is going on.
pub fn progress(what: &str) {
    eprintln!("{}: {what}", env!("CARGO_CRATE_NAME"));
}

/// Several measurements of one thing.
#[derive(Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => self.0[len / 2],
            len => self.0[len / 2 - 1].midpoint(self.0[len / 2]),
        }
    }
}

/// What two measured in turn, and the ratio of each round.
#[derive(Default)]
pub struct Rounds {
    ours: Series,
    other: Series,
    ratios: Series,
}

impl Rounds {
    pub fn push(&mut self, ours: f64, other: f64) {
        self.ours.push(ours);
        self.other.push(other);
        self.ratios.push(ours / other);
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: f64| {
            let digits = if value.abs() < 100.0 { 2 } else { 0 };
            format!("{value:.digits$}")
        };
        write!(f, "{}", text(self.median()))?;
        match self.0.as_slice() {
            [first, .., last] => write!(f, " ({}–{})", text(*first), text(*last)),
            _ => Ok(()),
        }
    }
}

/// Which way a goal points.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Told for its own sake.
    None,
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::AtLeast(goal) => format!("≥ {goal}"),
            Self::AtMost(goal) => format!("≤ {goal}"),
            Self::None => String::new(),
        }
    }

    fn verdict(self, value: f64) -> &'static str {
        match self {
            Self::AtLeast(goal) if value >= goal => "met",
            Self::AtMost(goal) if value <= goal => "met",
            Self::None => "",
            _ => "missed",
        }
    }
}

/// All lines so far.
pub struct Report(Table);

impl Default for Report {
    fn default() -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "figure",
            "gateway",
            "compared with",
            "result",
            "goal",
            "",
        ]);
        Self(table)
    }
}

impl Report {
    /// What was measured in turn: the median of the ratios is what other load on the machine moves
    /// least.
    pub fn ratio(&mut self, figure: &str, unit: &str, rounds: &Rounds, goal: Goal) {
        let Rounds { ours, other, ratios } = rounds;
        let shown = [figure.to_owned(), format!("{ours} {unit}"), format!("{other} {unit}")];
        self.line(shown, ratios.to_string(), ratios.median(), goal);
    }

    /// One figure on its own.
    pub fn figure(&mut self, figure: &str, unit: &str, ours: &Series, goal: Goal) {
        let shown = [figure.to_owned(), format!("{ours} {unit}"), String::new()];
        self.line(shown, String::new(), ours.median(), goal);
    }

    fn line(&mut self, shown: [String; 3], result: String, value: f64, goal: Goal) {
        let row: Vec<String> = shown
            .into_iter()
            .chain([result, goal.text(), goal.verdict(value).to_owned()])
            .collect();
        progress(&row.join("  "));
        self.0.add_row(row);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
