//! The plots: SVG in a coordinate system about as wide as a phone.

use std::fmt::{self, Display, Formatter};

use askama::Template;

use super::three_digits;
use crate::contender::{Latency, Spread};

/// Number of colours in `plot.css`; further curves repeat them.
pub const COLOURS: usize = 6;

const WIDTH: f64 = 420.0;
/// Height of a line plot.
const HEIGHT: f64 = 230.0;
/// Margins of a line plot.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;
/// Margins of a bar plot, for names and values.
const BAR_LEFT: f64 = 102.0;
const BAR_RIGHT: f64 = 62.0;
/// Height of a bar with its gap.
const BAR_PITCH: usize = 34;
/// From the top of a bar to its middle.
const BAR_MIDDLE: f64 = 11.0;
const BAR_TOP: usize = 8;
/// From the middle of a line of text to its baseline.
const BASELINE: f64 = 4.0;

/// The content of an `<svg>` element and its size.
pub struct Plot {
    /// Width of the view box.
    pub width: f64,
    /// Height of the view box.
    pub height: f64,
    /// SVG elements.
    pub content: String,
}

/// A point of a curve, in the units of the data or of the plot.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upwards in data, downwards in plots.
    pub y: f64,
}

/// A coordinate, printed with one decimal.
#[derive(Clone, Copy)]
struct Coordinate(f64);

impl Display for Coordinate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.0)
    }
}

/// Points as the data of an SVG path, without the first command.
struct Path(Vec<Point>);

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, Point { x, y }) in self.0.iter().enumerate() {
            write!(f, "{}{x:.1} {y:.1}", if at > 0 { "L" } else { "" })?;
        }
        Ok(())
    }
}

#[derive(Template)]
#[template(path = "bars.svg")]
struct Bars<'a> {
    bars: Vec<Bar<'a>>,
}

struct Bar<'a> {
    name: &'a str,
    value: String,
    colour: usize,
    x: Coordinate,
    y: Coordinate,
    width: Coordinate,
    middle_y: Coordinate,
    text_y: Coordinate,
    name_x: Coordinate,
    value_x: Coordinate,
    min_x: Coordinate,
    max_x: Coordinate,
}

/// Height of [`bars`].
pub fn bars_height(count: usize) -> usize {
    count * BAR_PITCH + BAR_TOP
}

/// Horizontal bars for the medians, with a line from the minimum to the maximum.
pub fn bars<'a>(figures: &[(&'a str, Spread)]) -> askama::Result<Plot> {
    let max = figures.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max).max(1e-9);
    let x = |value: f64| BAR_LEFT + value / max * (WIDTH - BAR_LEFT - BAR_RIGHT);
    let bar = |(at, (name, spread)): (usize, &(&'a str, Spread))| {
        let y = (at * BAR_PITCH + BAR_TOP) as f64;
        let middle = y + BAR_MIDDLE;
        Bar {
            name,
            value: three_digits(spread.median),
            colour: at % COLOURS,
            x: Coordinate(BAR_LEFT),
            y: Coordinate(y),
            width: Coordinate((x(spread.median) - BAR_LEFT).max(1.0)),
            middle_y: Coordinate(middle),
            text_y: Coordinate(middle + BASELINE),
            name_x: Coordinate(BAR_LEFT - 8.0),
            value_x: Coordinate(x(spread.max) + 8.0),
            min_x: Coordinate(x(spread.min)),
            max_x: Coordinate(x(spread.max)),
        }
    };
    let content = Bars { bars: figures.iter().enumerate().map(bar).collect() }.render()?;
    Ok(Plot { width: WIDTH, height: bars_height(figures.len()) as f64, content })
}

#[derive(Template)]
#[template(path = "lines.svg")]
struct Lines {
    left: Coordinate,
    right: Coordinate,
    grid_label_x: Coordinate,
    tick_y: Coordinate,
    grid: Vec<GridLine>,
    ticks: Vec<Tick>,
    curves: Vec<Curve>,
}

struct GridLine {
    y: Coordinate,
    label_y: Coordinate,
    label: String,
}

struct Tick {
    x: Coordinate,
    label: String,
}

struct Curve {
    colour: usize,
    line: Path,
    /// Outline of the area from the minimum to the maximum.
    band: Option<Path>,
}

impl Lines {
    fn plot(grid: Vec<GridLine>, ticks: Vec<Tick>, curves: Vec<Curve>) -> askama::Result<Plot> {
        let lines = Self {
            left: Coordinate(LEFT),
            right: Coordinate(WIDTH - RIGHT),
            grid_label_x: Coordinate(LEFT - 6.0),
            tick_y: Coordinate(HEIGHT - 6.0),
            grid,
            ticks,
            curves,
        };
        Ok(Plot { width: WIDTH, height: HEIGHT, content: lines.render()? })
    }
}

fn grid_line(y: f64, value: f64) -> GridLine {
    GridLine { y: Coordinate(y), label_y: Coordinate(y + BASELINE), label: three_digits(value) }
}

/// One curve per contender over the percentiles of [`Latency`], on a logarithmic scale, with a band from minimum to maximum.
pub fn percentiles(curves: &[[Spread; 5]]) -> askama::Result<Plot> {
    let values =
        || curves.iter().flatten().flat_map(|spread| [spread.min, spread.max]).filter(|value| *value > 0.0);
    let low = 10_f64.powf(values().fold(f64::MAX, f64::min).min(1e6).log10().floor());
    let high = 10_f64.powf(values().fold(low * 10.0, f64::max).log10().ceil());
    let y = |value: f64| {
        let share = (value.max(low) / low).ln() / (high / low).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    };
    let x = |at: usize| LEFT + 16.0 + at as f64 * (WIDTH - LEFT - RIGHT - 32.0) / 4.0;
    let decades = std::iter::successors(Some(low), |value| Some(value * 10.0));
    let grid = decades.take_while(|value| *value <= high * 1.01).map(|value| grid_line(y(value), value));
    let tick = |(at, name): (usize, &&str)| Tick { x: Coordinate(x(at)), label: (*name).to_owned() };
    let ticks = Latency::PERCENTILES.iter().enumerate().map(tick);
    let curve = |(colour, spreads): (usize, &[Spread; 5])| {
        let points = |value: fn(&Spread) -> f64| {
            spreads.iter().enumerate().map(move |(at, spread)| Point { x: x(at), y: y(value(spread)) })
        };
        let upper = points(|spread| spread.max);
        let lower = points(|spread| spread.min).rev();
        Curve {
            colour: colour % COLOURS,
            line: Path(points(|spread| spread.median).collect()),
            band: Some(Path(upper.chain(lower).collect())),
        }
    };
    let has_values = |(_, spreads): &(usize, &[Spread; 5])| spreads.iter().any(|spread| spread.max > 0.0);
    let curves = curves.iter().enumerate().filter(has_values).map(curve);
    Lines::plot(grid.collect(), ticks.collect(), curves.collect())
}

/// One curve per contender over seconds.
pub fn over_time(curves: &[Vec<Point>]) -> askama::Result<Plot> {
    let points = || curves.iter().flatten();
    let longest = points().map(|point| point.x).fold(1.0, f64::max);
    let max = points().map(|point| point.y).fold(1.0, f64::max);
    let step = round_step(max);
    let top = (max / step).ceil() * step;
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let x = |seconds: f64| LEFT + seconds / longest * (WIDTH - LEFT - RIGHT);
    let grid = multiples(step, top).map(|value| grid_line(y(value), value));
    let ticks = multiples(round_step(longest), longest).map(|seconds| Tick {
        x: Coordinate(x(seconds).min(WIDTH - RIGHT - 8.0)),
        label: format!("{} s", three_digits(seconds)),
    });
    let curve = |(colour, points): (usize, &Vec<Point>)| Curve {
        colour: colour % COLOURS,
        line: Path(points.iter().map(|point| Point { x: x(point.x), y: y(point.y) }).collect()),
        band: None,
    };
    let curves = curves.iter().enumerate().filter(|(_, points)| !points.is_empty()).map(curve);
    Lines::plot(grid.collect(), ticks.collect(), curves.collect())
}

/// Multiples of `step` from 0 to `max`.
fn multiples(step: f64, max: f64) -> impl Iterator<Item = f64> {
    let values = std::iter::successors(Some(0.0), move |value| Some(value + step));
    values.take_while(move |value| *value <= max * 1.001)
}

/// 1, 2 or 5 times a power of ten, and about a quarter to an eighth of `max`.
fn round_step(max: f64) -> f64 {
    let decade = 10_f64.powf(max.log10().floor());
    match max / decade {
        share if share > 5.0 => decade * 2.0,
        share if share > 2.0 => decade,
        _ => decade / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_contain_only_finite_numbers_and_escaped_names() {
        let spread = |median: f64| Spread { median, min: median * 0.9, max: median * 1.2 };
        let point = |x, y| Point { x, y };
        for scale in [0.0, 1e-6, 1.0, 1e9] {
            let plots = [
                bars(&[("a<b", spread(scale))]),
                percentiles(&[[1.0, 2.0, 3.0, 4.0, 5.0].map(|value| spread(value * scale))]),
                over_time(&[vec![point(0.0, scale), point(1.0, scale * 2.0)], Vec::new()]),
            ];
            for plot in plots {
                let text = plot.expect("a plot").content;
                assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains("a<b"), "{text}");
            }
        }
    }
}
