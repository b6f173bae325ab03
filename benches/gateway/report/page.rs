//! The report as one page that needs nothing from elsewhere: style sheet and charts stand in it,
//! and there is no script.

use super::draw::{escape, figure as drawn};
use super::markdown::{line, rows};
use super::{Figure, Report, Section, verdict};

const STYLE: &str = include_str!("page.css");
const FIGURES: [&str; 6] = ["figure", "gatepost", "compared with", "ratio (range)", "goal", ""];
const CONTEST: [&str; 6] =
    ["side by side", "rate (range)", "of the first", "p50", "p99", "processor, µs each"];

pub fn render(report: &Report) -> String {
    let sections: String = report.sections.iter().map(of_section).collect();
    let names = report.sections.iter().map(|section| escape(&section.name));
    let nav: String = names.map(|name| format!("<a href=\"#{name}\">{name}</a>")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>gatepost, measured</title><style>\n{STYLE}</style></head><body><main>\
         {}<nav>{nav}</nav>{}{sections}</main></body></html>\n",
        head(report),
        goals(report)
    )
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    let (goals, met) = report.score();
    let rough =
        if report.quick { " With <code>--quick</code>: the figures are rough." } else { "" };
    format!(
        "<h1>gatepost, measured</h1><p>{}<br>{}<br>gatepost {}; begun {}, load average then {}. \
         Client, gateway and all others share these cores.{rough} Ratios were measured in turns \
         within this run, and say more than rates.</p><div class=\"score\">\
         <div><b class=\"met\">{met}</b>goals met</div><div><b class=\"{}\">{}</b>missed</div>\
         <div><b>{}</b>scenarios</div><div><b>{:.0}:{:02.0}</b>minutes</div></div>",
        escape(&machine.text()),
        escape(&machine.programs.join("; ")),
        escape(&machine.version),
        escape(&machine.at),
        escape(&machine.load),
        if met == goals { "met" } else { "missed" },
        goals - met,
        report.sections.len(),
        (report.seconds / 60.0).floor(),
        (report.seconds % 60.0).floor(),
    )
}

/// All goals in one table: what a reader looks for first.
fn goals(report: &Report) -> String {
    let rows = report.goals().map(|(section, figure)| {
        let binds = figure.goal.map_or("", |goal| goal.binds);
        let known = if binds.is_empty() { "not measured yet" } else { binds };
        let missed = figure.met == Some(false);
        let why =
            if missed { format!("<small>binds: {}</small>", escape(known)) } else { String::new() };
        format!(
            "<tr><td><a href=\"#{0}\">{0}</a></td><td>{1}{why}</td><td>{2}</td><td>{3}</td>\
             <td class=\"{4}\">{4}</td></tr>",
            escape(section),
            escape(&figure.name),
            escape(&goal_value(figure)),
            escape(&figure.goal.map_or_else(String::new, super::Goal::text)),
            verdict(figure)
        )
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Goals</h2><div class=\"scroll\"><table><tr><th>scenario</th><th>figure</th>\
         <th>measured</th><th>goal</th><th></th></tr>{rows}</table></div>"
    )
}

fn goal_value(figure: &Figure) -> String {
    let unit = if figure.ratio.is_some() { "" } else { &figure.unit };
    super::with_unit(figure.value(), unit)
}

fn of_section(section: &Section) -> String {
    let name = escape(&section.name);
    let mut html = format!("<h2 id=\"{name}\">{name}</h2><p>{}</p>", escape(&section.about));
    if let Some(failed) = &section.failed {
        html += &format!("<p class=\"failed\">It failed: {}</p>", escape(failed));
    }
    if !section.figures.is_empty() {
        html += &table(&FIGURES, section.figures.iter().map(line));
    }
    for contest in &section.contests {
        let title = format!("{}, in turns", contest.title);
        let mut head = CONTEST;
        head[0] = &title;
        html += &table(&head, rows(contest));
    }
    if !section.notes.is_empty() {
        let notes = section.notes.iter().map(|note| format!("<li>{}</li>", escape(note)));
        html += &format!("<ul>{}</ul>", notes.collect::<String>());
    }
    let charts: String = section.charts.iter().map(drawn).collect();
    if charts.is_empty() { html } else { html + &format!("<div class=\"charts\">{charts}</div>") }
}

fn table(head: &[&str; 6], rows: impl Iterator<Item = [String; 6]>) -> String {
    let head: String = head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let rows = rows.map(|row| {
        let cell = |text: &String| {
            let class = if matches!(text.as_str(), "met" | "missed") { text.as_str() } else { "" };
            format!("<td class=\"{class}\">{}</td>", escape(text))
        };
        format!("<tr>{}</tr>", row.iter().map(cell).collect::<String>())
    });
    let rows: String = rows.collect();
    format!("<div class=\"scroll\"><table><tr>{head}</tr>{rows}</table></div>")
}
