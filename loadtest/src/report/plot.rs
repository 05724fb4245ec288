//! The plots, as inline SVG in a coordinate system as wide as a phone.

use std::fmt::Write;

use super::{escape, number};
use crate::compare::Spread;

/// Colours for both schemes; the same names for plots and page. Colours that are told apart with any eyes (Okabe and Ito).
pub const STYLE: &str = "
:root{--ink:#1c2024;--faint:#5d666f;--line:#d9dde2;--paper:#fff;--card:#fafbfc;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0518c;--c4:#8a6d00;--c5:#3a8fc2}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--faint:#9aa4ae;--line:#363c43;--paper:#14171a;--card:#1b1f23;
--c0:#56b4e9;--c1:#f08a45;--c2:#3fc79c;--c3:#e294c2;--c4:#e6c229;--c5:#9ad0f5}}
.b0{background:var(--c0);fill:var(--c0)}.b1{background:var(--c1);fill:var(--c1)}.b2{background:var(--c2);fill:var(--c2)}
.b3{background:var(--c3);fill:var(--c3)}.b4{background:var(--c4);fill:var(--c4)}.b5{background:var(--c5);fill:var(--c5)}
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.l4{stroke:var(--c4)}.l5{stroke:var(--c5)}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .faint{fill:var(--faint)}
svg .grid{stroke:var(--line);fill:none}svg .curve{fill:none;stroke-width:2;stroke-linejoin:round}
svg .spread{stroke:var(--ink);stroke-width:1.5;fill:none}svg .band{opacity:.14;stroke:none}
";
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;
const COLOURS: usize = 6;
const BAR: f64 = 34.0;

/// How high [`bars`] is.
pub fn bars_height(count: usize) -> usize {
    count * BAR as usize + 8
}

/// Lying bars: the median, a line from the least to the most.
pub fn bars(figures: &[(&str, Spread)]) -> String {
    let most = figures.iter().map(|(_, spread)| spread.most).fold(0.0, f64::max).max(1e-9);
    let (left, right) = (102.0, 62.0);
    let x = |value: f64| left + value / most * (WIDTH - left - right);
    let mut text = open(bars_height(figures.len()) as f64);
    for (at, (name, spread)) in figures.iter().enumerate() {
        let y = at as f64 * BAR + 8.0;
        let middle = y + 11.0;
        let _ = write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"b{}\" x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"22\" rx=\"2\"/>\
             <path class=\"spread\" d=\"M{:.1} {middle:.1}H{:.1}m0-4v8M{:.1} {:.1}v8\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 8.0,
            middle + 4.0,
            escape(name),
            at % COLOURS,
            (x(spread.median) - left).max(1.0),
            x(spread.least),
            x(spread.most),
            x(spread.least),
            middle - 4.0,
            x(spread.most) + 8.0,
            middle + 4.0,
            number(spread.median)
        );
    }
    text + "</svg>"
}

/// One curve each over p50, p90, p99, p99.9 and max, on a logarithmic scale, with a band from least to most.
pub fn percentiles(curves: &[[Spread; 5]]) -> String {
    let values = || {
        curves.iter().flatten().flat_map(|spread| [spread.least, spread.most]).filter(|value| *value > 0.0)
    };
    let low = 10_f64.powf(values().fold(f64::MAX, f64::min).min(1e6).log10().floor());
    let high = 10_f64.powf(values().fold(low * 10.0, f64::max).log10().ceil());
    let y = |value: f64| {
        let share = (value.max(low) / low).ln() / (high / low).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    };
    let x = |at: usize| LEFT + 16.0 + at as f64 * (WIDTH - LEFT - RIGHT - 32.0) / 4.0;
    let mut text = open(HEIGHT);
    let mut line = low;
    while line <= high * 1.01 {
        grid(&mut text, y(line), &number(line));
        line *= 10.0;
    }
    for (at, name) in ["p50", "p90", "p99", "p99.9", "max"].into_iter().enumerate() {
        let _ = write!(
            text,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            x(at),
            HEIGHT - 6.0
        );
    }
    for (colour, curve) in curves.iter().enumerate() {
        if curve.iter().all(|spread| spread.most <= 0.0) {
            continue;
        }
        let points =
            |of: fn(&Spread) -> f64| curve.iter().enumerate().map(move |(at, spread)| (at, of(spread)));
        let there = path(points(|spread| spread.most).map(|(at, value)| (x(at), y(value))));
        let back = path(
            points(|spread| spread.least)
                .map(|(at, value)| (x(at), y(value)))
                .collect::<Vec<_>>()
                .into_iter()
                .rev(),
        );
        let middle = path(points(|spread| spread.median).map(|(at, value)| (x(at), y(value))));
        let class = colour % COLOURS;
        let _ = write!(
            text,
            "<path class=\"b{class} band\" d=\"M{there}L{back}Z\"/><path class=\"curve l{class}\" d=\"M{middle}\"/>"
        );
    }
    text + "</svg>"
}

/// One curve each: seconds, and what was then.
pub fn over_time(curves: &[Vec<(f64, f64)>]) -> String {
    let points = || curves.iter().flatten();
    let longest = points().map(|point| point.0).fold(1.0, f64::max);
    let most = points().map(|point| point.1).fold(1.0, f64::max);
    let step = nice_step(most);
    let top = (most / step).ceil() * step;
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let x = |seconds: f64| LEFT + seconds / longest * (WIDTH - LEFT - RIGHT);
    let mut text = open(HEIGHT);
    let mut line = 0.0;
    while line <= top * 1.001 {
        grid(&mut text, y(line), &number(line));
        line += step;
    }
    let step = nice_step(longest);
    let mut second = 0.0;
    while second <= longest {
        let _ = write!(
            text,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
            x(second).min(WIDTH - RIGHT - 8.0),
            HEIGHT - 6.0,
            number(second)
        );
        second += step;
    }
    for (colour, curve) in curves.iter().enumerate().filter(|(_, curve)| !curve.is_empty()) {
        let line = path(curve.iter().map(|(seconds, value)| (x(*seconds), y(*value))));
        let _ = write!(text, "<path class=\"curve l{}\" d=\"M{line}\"/>", colour % COLOURS);
    }
    text + "</svg>"
}

/// A fourth to an eighth of it, of 1, 2 or 5.
fn nice_step(most: f64) -> f64 {
    let decade = 10_f64.powf(most.log10().floor());
    match most / decade {
        share if share > 5.0 => decade * 2.0,
        share if share > 2.0 => decade,
        _ => decade / 2.0,
    }
}

fn open(height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">")
}

fn grid(text: &mut String, y: f64, label: &str) {
    let _ = write!(
        text,
        "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0
    );
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    points.join("L")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_hold_numbers_only() {
        let spread = |median: f64| Spread { median, least: median * 0.9, most: median * 1.2 };
        for scale in [0.0, 1e-6, 1.0, 1e9] {
            let all = [
                bars(&[("a<b", spread(scale))]),
                percentiles(&[[1.0, 2.0, 3.0, 4.0, 5.0].map(|value| spread(value * scale))]),
                over_time(&[vec![(0.0, scale), (1.0, scale * 2.0)], Vec::new()]),
            ];
            for text in all {
                assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains("a<b"), "{text}");
            }
        }
    }
}
