//! The report as Markdown: for a pull request, and for `docs/evidence.md`.

use comfy_table::{Table, presets};

use super::series::number;
use super::{Contest, Figure, Report, Section, micros, verdict, with_unit};

const FIGURES: [&str; 6] = ["figure", "gatepost", "compared with", "ratio", "goal", ""];
const CONTEST: [&str; 6] = ["", "rate", "of the first", "p50", "p99", "processor, µs each"];

pub fn render(report: &Report) -> String {
    let mut text = format!("# gatepost, measured\n\n{}\n\n", report.machine.text());
    let machine = &report.machine;
    let (goals, met) = report.score();
    let effort = if report.quick { ", with `--quick`: rough" } else { "" };
    text.push_str(&format!(
        "{}; gatepost {}; load average at the start {}. {:.0} s{effort}; {met} of {goals} goals \
         met.\n\n",
        machine.programs.join("; "),
        machine.version,
        machine.load,
        report.seconds,
    ));
    for section in &report.sections {
        of_section(&mut text, section);
    }
    text
}

fn of_section(text: &mut String, section: &Section) {
    text.push_str(&format!(
        "## {}\n\n{} ({:.0} s)\n\n",
        section.name, section.about, section.seconds
    ));
    if let Some(failed) = &section.failed {
        text.push_str(&format!("**Failed**: {failed}\n\n"));
    }
    if !section.figures.is_empty() {
        let rows = section.figures.iter().map(line);
        text.push_str(&format!("{}\n\n", table(&FIGURES, rows)));
    }
    for contest in &section.contests {
        text.push_str(&format!("{}:\n\n{}\n\n", contest.title, table(&CONTEST, rows(contest))));
    }
    for figure in section.figures.iter().filter(|figure| figure.met == Some(false)) {
        let binds = figure.goal.map_or("", |goal| goal.binds);
        let binds = if binds.is_empty() { "nobody has measured what binds it yet" } else { binds };
        text.push_str(&format!("- {}, missed: {binds}.\n", figure.name));
    }
    for note in &section.notes {
        text.push_str(&format!("- {note}\n"));
    }
    text.push('\n');
}

/// A figure as the cells of a row.
pub fn line(figure: &Figure) -> [String; 6] {
    let against = figure.against.as_ref();
    [
        figure.name.clone(),
        with_unit(&figure.ours, &figure.unit),
        against.map_or_else(String::new, |(name, series)| {
            format!("{name}: {}", with_unit(series, &figure.unit))
        }),
        figure.ratio.as_ref().map_or_else(String::new, ToString::to_string),
        figure.goal.map_or_else(String::new, super::Goal::text),
        verdict(figure).to_owned(),
    ]
}

/// One who took turns, as the cells of a row.
pub fn rows(contest: &Contest) -> impl Iterator<Item = [String; 6]> {
    contest.rows.iter().map(|row| {
        let cpu = row.cpu_micros.median();
        [
            row.name.clone(),
            with_unit(&row.rate, &contest.unit),
            row.ratio.to_string(),
            micros(row.p50),
            micros(row.p99),
            if cpu > 0.0 { number(cpu) } else { "–".to_owned() },
        ]
    })
}

fn table(head: &[&str; 6], rows: impl Iterator<Item = [String; 6]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}
