//! What was measured: figures, ratios, goals and charts, section by section; said on stderr as it
//! comes, and written at the end as JSON, Markdown and one page.

pub mod chart;
mod draw;
pub mod goal;
mod machine;
mod markdown;
mod page;
pub mod progress;
pub mod series;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use chart::Chart;
use goal::Goal;
use machine::Machine;
use progress::progress;
use series::{Rounds, Series, Turn, number};

/// One figure.
#[derive(Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub ours: Series,
    /// Who was measured in turn with it, and what.
    pub against: Option<(String, Series)>,
    /// Of each round; the median of the ratios is what other load on the machine moves least.
    pub ratio: Option<Series>,
    pub goal: Option<Goal>,
    pub met: Option<bool>,
}

impl Figure {
    /// What the goal is about.
    pub fn value(&self) -> &Series {
        self.ratio.as_ref().unwrap_or(&self.ours)
    }
}

/// One of those who took turns.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub rate: Series,
    /// Against the first.
    pub ratio: Series,
    /// In microseconds.
    pub p50: f64,
    pub p99: f64,
    pub cpu_micros: Series,
}

/// Several who took turns.
#[derive(Serialize)]
pub struct Contest {
    pub title: String,
    pub unit: String,
    pub rows: Vec<Row>,
}

/// One scenario.
#[derive(Default, Serialize)]
pub struct Section {
    pub name: String,
    pub about: String,
    pub seconds: f64,
    pub figures: Vec<Figure>,
    pub contests: Vec<Contest>,
    pub charts: Vec<Chart>,
    pub notes: Vec<String>,
    /// Why it ended before its end.
    pub failed: Option<String>,
}

/// All of it so far.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub quick: bool,
    pub seconds: f64,
    pub sections: Vec<Section>,
}

impl Report {
    pub fn new(quick: bool) -> Self {
        Self { machine: Machine::this(), quick, seconds: 0.0, sections: Vec::new() }
    }

    /// What follows belongs to this scenario.
    pub fn begin(&mut self, name: &str, about: &str) {
        let (name, about) = (name.to_owned(), about.to_owned());
        self.sections.push(Section { name, about, ..Section::default() });
    }

    /// The scenario has ended.
    pub fn end(&mut self, took: Duration, outcome: Result<()>) {
        self.seconds += took.as_secs_f64();
        let section = self.section();
        section.seconds = took.as_secs_f64();
        section.failed = outcome.err().map(|error| format!("{error:#}"));
        if let Some(failed) = &section.failed {
            progress(&format!("failed: {failed}"));
        }
    }

    fn section(&mut self) -> &mut Section {
        self.sections.last_mut().expect("a scenario has begun")
    }

    /// One that was measured in turn with another.
    pub fn ratio(
        &mut self,
        name: &str,
        unit: &str,
        against: &str,
        rounds: &Rounds,
        goal: Option<Goal>,
    ) {
        self.add(Figure {
            name: name.to_owned(),
            unit: unit.to_owned(),
            ours: rounds.ours.clone(),
            against: Some((against.to_owned(), rounds.other.clone())),
            ratio: Some(rounds.ratios()),
            goal,
            met: None,
        });
    }

    /// One on its own.
    pub fn figure(&mut self, name: &str, unit: &str, ours: &Series, goal: Option<Goal>) {
        let (name, unit, ours) = (name.to_owned(), unit.to_owned(), ours.clone());
        self.add(Figure { name, unit, ours, against: None, ratio: None, goal, met: None });
    }

    /// One that was measured once.
    pub fn once(&mut self, name: &str, unit: &str, value: f64, goal: Option<Goal>) {
        self.figure(name, unit, &Series::of(value), goal);
    }

    fn add(&mut self, mut figure: Figure) {
        figure.met = figure.goal.map(|goal| goal.met(figure.value().median()));
        progress::say(&markdown::line(&figure).join("  "));
        self.section().figures.push(figure);
    }

    /// Several who took turns: a table, and two charts. Ratios are to the first.
    pub fn contest(&mut self, title: &str, unit: &str, turns: &[Turn]) {
        let rows = turns.iter().map(|turn| Row {
            name: turn.name.clone(),
            rate: turn.rates.clone(),
            ratio: turn.rates.per(&turns[0].rates),
            p50: turn.latency.at(50.0),
            p99: turn.latency.at(99.0),
            cpu_micros: turn.cpu.clone(),
        });
        let rows: Vec<Row> = rows.collect();
        for row in &rows {
            progress::say(&format!("{title}: {}  {} {unit}", row.name, row.rate));
        }
        let section = self.section();
        section.contests.push(Contest { title: title.to_owned(), unit: unit.to_owned(), rows });
        section.charts.extend(Chart::both(title, unit, turns));
    }

    pub fn chart(&mut self, chart: Chart) {
        self.section().charts.push(chart);
    }

    /// What should be known with the figures.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        progress::say(&note);
        self.section().notes.push(note);
    }

    /// All figures with a goal, with the name of their section.
    pub fn goals(&self) -> impl Iterator<Item = (&str, &Figure)> {
        let all = self.sections.iter().flat_map(|section| {
            section.figures.iter().map(move |figure| (section.name.as_str(), figure))
        });
        all.filter(|(_, figure)| figure.goal.is_some())
    }

    /// How many goals there are, and how many of them are met.
    pub fn score(&self) -> (usize, usize) {
        let met = self.goals().filter(|(_, figure)| figure.met == Some(true)).count();
        (self.goals().count(), met)
    }

    pub fn failures(&self) -> usize {
        self.sections.iter().filter(|section| section.failed.is_some()).count()
    }

    /// For whoever waits for it: as the Markdown.
    pub fn text(&self) -> String {
        markdown::render(self)
    }

    /// As `report.json`, `report.md` and `report.html`.
    pub fn write(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out).with_context(|| out.display().to_string())?;
        let files = [
            ("report.json", serde_json::to_string_pretty(self)?),
            ("report.md", markdown::render(self)),
            ("report.html", page::render(self)),
        ];
        for (name, text) in files {
            let file = out.join(name);
            fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }
}

/// How a figure's verdict is called.
fn verdict(figure: &Figure) -> &'static str {
    match figure.met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    }
}

/// A value with its unit.
fn with_unit(value: impl std::fmt::Display, unit: &str) -> String {
    if unit.is_empty() { value.to_string() } else { format!("{value} {unit}") }
}

/// Microseconds as a person says them.
fn micros(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} s", number(value / 1e6)),
        value if value >= 1e3 => format!("{} ms", number(value / 1e3)),
        value => format!("{} µs", number(value)),
    }
}
