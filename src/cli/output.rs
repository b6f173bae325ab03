//! The one place that writes: data to stdout, talk to stderr.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{Cell, Table, presets};
use serde_json::Value;

use super::args::Format;
use super::failure::Failure;

/// A column of a list: its title, and the JSON pointer (RFC 6901) of its value.
pub(super) type Column = (&'static str, &'static str);

/// A field that holds a list, and its columns.
pub(super) type Section = (&'static str, &'static [Column]);

/// How an answer looks as a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A row per element.
    List(&'static [Column]),
    /// A row per field.
    One,
    /// As `One`, and a reminder that the key is shown this once.
    NewKey,
    /// One object, whose tokens are shown this once.
    NewSession,
    /// A row per client, and a word when Postgres could not be asked.
    Usage(&'static [Column]),
    /// A table for each of some fields, then a row per other field.
    Sections(&'static [Section]),
    /// As `Sections`; its `ok` says whether the command succeeded.
    Verified(&'static [Section]),
    /// What happens to each of some things, each with its lines of difference.
    Changes(&'static [Column]),
    /// Lines of JSON as they come.
    Lines,
}

/// Writes data.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(asked: Option<Format>) -> Self {
        let json = match asked {
            Some(format) => format == Format::Json,
            None => !io::stdout().is_terminal(),
        };
        Self { json }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes text as it is.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // `gatepost key list | head` is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done.map_err(Failure::from),
        }
    }

    pub(super) fn json(&self, value: &Value) -> Result<(), Failure> {
        self.text(&format!("{value:#}\n"))
    }

    /// Writes an answer of the admin API.
    pub(super) fn show(&self, shape: &Shape, answer: &Value) -> Result<(), Failure> {
        match shape {
            Shape::NewKey => talk("the key is shown this once: keep it now"),
            Shape::NewSession => talk("the tokens are shown this once: hand them on now"),
            Shape::Usage(_) if has_unknown_settled(answer) => talk(
                "Postgres cannot be asked: only unsettled counts are shown, which may hold some \
                 that have settled in the last minutes",
            ),
            _ => {}
        }
        if let (Shape::Usage(_), Some(more)) = (shape, left_out(answer)) {
            talk(&more);
        }
        if self.json {
            self.json(answer)?;
        } else {
            self.text(&as_table(shape, answer))?;
        }
        match shape {
            Shape::Verified(_) if answer["ok"] != true => {
                let strangers = answer["strangers"].as_array().map_or(0, Vec::len);
                let strangers = match strangers {
                    0 => String::new(),
                    count => format!("; what is no segment among them: {count}"),
                };
                let bad = &answer["bad"];
                Err(Failure::Failed(format!("streams with problems: {bad}{strangers}")))
            }
            _ => Ok(()),
        }
    }
}

/// A line for people.
pub(super) fn talk(line: &str) {
    // Nobody is left to be told when stderr is gone.
    writeln!(io::stderr(), "{line}").unwrap_or_default();
}

/// Says what was found in a segment whose facts were printed, and whether that was all.
pub(super) fn ended(last: &Value) -> Result<ExitCode, Failure> {
    if let Some(error) = last["error"].as_str() {
        return Err(Failure::Failed(error.to_owned()));
    }
    let end = &last["end"];
    let (chunks, facts, missing) = (&end["chunks"], &end["facts"], &end["missing"]["chunks"]);
    talk(&format!("{chunks} chunks with {facts} facts; {missing} chunks are missing"));
    match end["error"].as_str() {
        Some(error) => Err(Failure::Failed(format!("it cannot be read to its end: {error}"))),
        None => Ok(ExitCode::SUCCESS),
    }
}

pub(super) fn as_table(shape: &Shape, answer: &Value) -> String {
    match shape {
        Shape::List(columns) => list(columns, answer),
        Shape::Changes(columns) => changes(columns, answer),
        Shape::Usage(columns) => list(columns, &with_known(answer)) + &quotas(answer),
        Shape::One | Shape::NewKey | Shape::NewSession | Shape::Lines => fields(answer),
        Shape::Sections(sections) | Shape::Verified(sections) => {
            let (mut rest, mut text) = (answer.clone(), String::new());
            for (name, columns) in *sections {
                let taken = rest.as_object_mut().and_then(|fields| fields.remove(*name));
                let rows = taken.unwrap_or_default();
                if rows.as_array().is_some_and(|rows| !rows.is_empty()) {
                    text += &format!("{}\n", list(columns, &rows));
                }
            }
            text + &fields(&rest)
        }
    }
}

fn changes(columns: &[Column], answer: &Value) -> String {
    let mut text = list(columns, &answer["changes"]);
    for change in answer["changes"].as_array().into_iter().flatten() {
        let lines = change["difference"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !lines.is_empty() {
            text += &format!("\n{}\n", plain(&change["name"]));
            text.extend(lines.iter().map(|line| format!("  {}\n", plain(line))));
        }
    }
    if answer["applied"] == false {
        text += "\nNothing was changed: this was a dry run.\n";
    }
    text
}

const QUOTAS: &[Column] = &[
    ("QUOTA", "/quota"),
    ("PER", "/per"),
    ("OF", "/of"),
    ("USED", "/used"),
    ("LIMIT", "/limit"),
    ("REMAINING", "/remaining"),
    ("UNTIL", "/period_end"),
];

/// The quotas of all rows, if there are any.
fn quotas(answer: &Value) -> String {
    let rows = answer.as_array().into_iter().flatten();
    let all: Vec<Value> =
        rows.flat_map(|row| row["quotas"].as_array().cloned().unwrap_or_default()).collect();
    if all.is_empty() { String::new() } else { format!("\n{}", list(QUOTAS, &Value::Array(all))) }
}

/// Where quotas of further keys are left out, how to see them.
fn left_out(answer: &Value) -> Option<String> {
    let last = answer.as_array()?.iter().find_map(|row| row["more_keys_after"].as_str())?;
    Some(format!("quotas of further keys are left out; go on with --after {last}"))
}

/// Adds to each row what is known: the sum, or while Postgres cannot be asked what is unsettled.
fn with_known(answer: &Value) -> Value {
    let mut answer = answer.clone();
    for row in answer.as_array_mut().into_iter().flatten() {
        let known = if row["sum"].is_null() { "unsettled" } else { "sum" };
        row["known"] = row[known].clone();
    }
    answer
}

fn has_unknown_settled(answer: &Value) -> bool {
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().any(|row| row["settled"].is_null())
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn list(columns: &[Column], answer: &Value) -> String {
    let mut table = bare();
    table.set_header(columns.iter().map(|(title, _)| Cell::new(title)));
    for row in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        let cells = columns.iter().map(|(_, at)| plain(row.pointer(at).unwrap_or(&Value::Null)));
        table.add_row(cells.collect::<Vec<_>>());
    }
    printed(table)
}

fn fields(answer: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", answer, &mut rows);
    let mut table = bare();
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    printed(table)
}

fn printed(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// Nested fields by dotted names.
fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{name}"), value, rows);
            }
        }
        value => rows.push((prefix.to_owned(), plain(value))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
