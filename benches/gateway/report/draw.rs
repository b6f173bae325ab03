//! Charts as SVG that needs nothing from elsewhere; colours come from the page's style sheet.

use super::chart::{Bar, Chart, Line, Shade};
use super::micros;
use super::series::number;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
const BAR: f64 = 26.0;
/// Lines that are told apart; the style sheet has as many colours.
const COLOURS: usize = 8;

/// A chart with its title and what its colours mean.
pub fn figure(chart: &Chart) -> String {
    let (title, names, drawing) = match chart {
        Chart::Latencies { title, lines } => {
            (format!("{title}: latency by percentile"), names(lines), latencies(lines))
        }
        Chart::Timeline { title, unit, lines, shades, log } => {
            let title = if unit.is_empty() { title.clone() } else { format!("{title} ({unit})") };
            (title, names(lines), timeline(lines, shades, *log))
        }
        Chart::Bars { title, unit, bars } => (format!("{title} ({unit})"), Vec::new(), bar(bars)),
    };
    let mut legend = String::new();
    if names.len() > 1 {
        for (at, name) in names.iter().enumerate() {
            let colour = at % COLOURS;
            put(&mut legend, &format!("<span><i class=\"k{colour}\"></i>{}</span>", escape(name)));
        }
    }
    let title = escape(&title);
    format!(
        "<figure><figcaption>{title}</figcaption>{drawing}\
         <div class=\"legend\">{legend}</div></figure>"
    )
}

fn names(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| line.name.clone()).collect()
}

/// From values to places.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// Where the two ends are.
    from: f64,
    to: f64,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values within it.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = (self.high / self.low).log10();
            let steps: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let first = self.low.log10().floor() as i32;
            let all = (first..first + 12)
                .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
            return all.filter(|at| (self.low..=self.high).contains(at)).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|by| by * power);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let all = (first..first + 12).map(|at| at as f64 * step);
        all.filter(|at| *at <= self.high * 1.0001).collect()
    }
}

fn across(low: f64, high: f64) -> Scale {
    Scale { low, high, log: false, from: LEFT, to: WIDTH - RIGHT }
}

/// The upright scale for these values.
fn upright(values: impl Iterator<Item = f64> + Clone, log: bool) -> Scale {
    let (from, to) = (HEIGHT - BOTTOM, TOP);
    let fine = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
    let high = fine.clone().fold(f64::MIN, f64::max);
    let low = fine.fold(f64::MAX, f64::min);
    if high < low {
        return Scale { low: 1.0, high: 10.0, log, from, to };
    }
    if log {
        return Scale { low: low / 1.2, high: (high * 1.2).max(low * 2.0), log, from, to };
    }
    Scale { low: 0.0, high: if high > 0.0 { high * 1.08 } else { 1.0 }, log, from, to }
}

fn latencies(lines: &[Line]) -> String {
    // Each nine takes as much room as the one before.
    let stretched = |percentile: f64| -((100.0 - percentile) / 100.0).log10();
    let y = upright(lines.iter().flat_map(|line| line.points.iter().map(|point| point.1)), true);
    let x = across(0.0, 4.0);
    let mut svg = grid(&y, micros);
    for (percentile, name) in [
        (0.0, "least"),
        (50.0, "50 %"),
        (90.0, "90"),
        (99.0, "99"),
        (99.9, "99.9"),
        (99.99, "99.99"),
    ] {
        put(&mut svg, &below(x.place(stretched(percentile)), name));
    }
    for (at, line) in lines.iter().enumerate() {
        let points = line.points.iter();
        put(&mut svg, &path(at, points.map(|(p, v)| (x.place(stretched(*p)), y.place(*v)))));
    }
    whole(&svg, HEIGHT)
}

fn timeline(lines: &[Line], shades: &[Shade], log: bool) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let ends = points().map(|point| point.0).chain(shades.iter().map(|shade| shade.to));
    let x = across(0.0, ends.fold(1e-9, f64::max));
    let y = upright(points().map(|point| point.1), log);
    let mut svg = String::new();
    for shade in shades {
        let (from, to) = (x.place(shade.from), x.place(shade.to));
        let (wide, high) = (to - from, HEIGHT - TOP - BOTTOM);
        put(
            &mut svg,
            &format!(
                "<rect class=\"shade\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" \
                 height=\"{high}\"/>\
             <text class=\"said\" x=\"{:.1}\" y=\"{}\">{}</text>",
                from + 4.0,
                TOP + 12.0,
                escape(&shade.name)
            ),
        );
    }
    put(&mut svg, &grid(&y, number));
    for tick in x.ticks() {
        put(&mut svg, &below(x.place(tick), &format!("{} s", (tick * 1000.0).round() / 1000.0)));
    }
    for (at, line) in lines.iter().enumerate() {
        let fine =
            line.points.iter().filter(|point| point.1.is_finite() && (!log || point.1 > 0.0));
        put(&mut svg, &path(at, fine.map(|(t, v)| (x.place(*t), y.place(*v)))));
    }
    whole(&svg, HEIGHT)
}

fn bar(bars: &[Bar]) -> String {
    const NAMES: f64 = 190.0;
    const VALUES: f64 = 90.0;
    let high = bars.iter().map(|bar| bar.most).fold(1e-9, f64::max);
    let x = Scale { low: 0.0, high, log: false, from: NAMES, to: WIDTH - VALUES };
    let mut svg = String::new();
    for (at, bar) in bars.iter().enumerate() {
        let (top, wide) = (TOP + at as f64 * BAR, x.place(bar.median) - NAMES);
        let (middle, colour) = (top + BAR / 2.0 - 2.0, at % COLOURS);
        let (least, most) = (x.place(bar.least), x.place(bar.most));
        put(
            &mut svg,
            &format!(
                "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <rect class=\"b{colour}\" x=\"{NAMES}\" y=\"{top:.1}\" \
             width=\"{:.1}\" height=\"{:.1}\"/>\
             <path class=\"range\" d=\"M{least:.1} {middle:.1}H{most:.1}\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                NAMES - 8.0,
                middle + 4.0,
                escape(&bar.name),
                wide.max(1.0),
                BAR - 6.0,
                most.max(NAMES + wide) + 6.0,
                middle + 4.0,
                number(bar.median)
            ),
        );
    }
    whole(&svg, TOP + bars.len() as f64 * BAR + 4.0)
}

fn grid(y: &Scale, text: impl Fn(f64) -> String) -> String {
    let mut svg = String::new();
    for tick in y.ticks() {
        let at = y.place(tick);
        put(
            &mut svg,
            &format!(
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
             <text class=\"left\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&text(tick))
            ),
        );
    }
    svg
}

fn below(x: f64, text: &str) -> String {
    let y = HEIGHT - BOTTOM + 18.0;
    format!("<text class=\"below\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text))
}

fn path(colour: usize, points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (at, (x, y)) in points.enumerate() {
        put(&mut d, &format!("{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" }));
    }
    format!("<path class=\"line l{}\" d=\"{d}\"/>", colour % COLOURS)
}

fn whole(svg: &str, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">{svg}</svg>")
}

fn put(text: &mut String, more: &str) {
    text.push_str(more);
}

/// Text as it may stand in a page.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
