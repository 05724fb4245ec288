//! The result of a comparison: a table for the terminal, an HTML report and an SVG picture.
//!
//! The HTML file is self-contained: no network and no script. It follows the colour scheme of the reader's system, and it has
//! one column on a phone. The text of the page and of the picture is in `templates/`.

mod plot;

use std::fmt::Write;

use askama::Template;

use crate::contender::{Contender, Latency, Round, Spread};
use plot::{COLOURS, Plot, Point};

/// A figure of a round, and a row of the table.
struct Figure {
    name: &'static str,
    unit: &'static str,
    value: fn(&Round) -> f64,
}

const REQUESTS: Figure = Figure { name: "requests", unit: "/s", value: |round| round.rate };
const PUSH_P50: Figure = Figure { name: "push p50", unit: "ms", value: |round| round.push.p50() };
const PUSH_P99: Figure = Figure { name: "push p99", unit: "ms", value: |round| round.push.p99() };
const PUSH_P999: Figure = Figure { name: "push p99.9", unit: "ms", value: |round| round.push.p999() };
const SCRAPE_P50: Figure = Figure { name: "scrape p50", unit: "ms", value: |round| round.scrape.p50() };
const SCRAPE_P99: Figure = Figure { name: "scrape p99", unit: "ms", value: |round| round.scrape.p99() };
const CPU: Figure = Figure { name: "CPU per push", unit: "µs", value: |round| round.cpu };
const MEMORY: Figure = Figure { name: "memory", unit: "MB", value: |round| round.memory };
const DISK: Figure = Figure { name: "on disk", unit: "MB", value: |round| round.disk };
const RESTART: Figure = Figure { name: "restart", unit: "ms", value: |round| round.restart };
const VIOLATIONS: Figure = Figure { name: "violations", unit: "", value: |round| round.violations as f64 };

/// The rows of the table.
const FIGURES: [Figure; 11] =
    [REQUESTS, PUSH_P50, PUSH_P99, PUSH_P999, SCRAPE_P50, SCRAPE_P99, CPU, MEMORY, DISK, RESTART, VIOLATIONS];

/// Width of a column of [`table`].
const COLUMN: usize = 18;
/// Width of the first column of [`table`].
const FIRST_COLUMN: usize = 17;

/// The first lines of a report.
pub struct ReportHeader {
    /// The scenario and its numbers.
    pub scenario: String,
    /// Processor, number of cores and kernel.
    pub machine: String,
}

/// The table for the terminal: medians, and below them minimum and maximum.
pub fn table(contenders: &[Contender]) -> String {
    let mut text = String::new();
    let names = contenders.iter().map(|contender| contender.name.clone());
    push_row(&mut text, "", names);
    for figure in &FIGURES {
        let spreads = || contenders.iter().map(|contender| contender.spread(figure.value));
        let name = format!("{} {}", figure.name, figure.unit);
        push_row(&mut text, &name, spreads().map(|spread| three_digits(spread.median)));
        let range = |spread: Spread| format!("{} – {}", three_digits(spread.min), three_digits(spread.max));
        push_row(&mut text, "", spreads().map(range));
    }
    text
}

fn push_row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = write!(text, "{name:<FIRST_COLUMN$}");
    for cell in cells {
        let _ = write!(text, " {cell:>COLUMN$}");
    }
    text.push('\n');
}

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage<'a> {
    header: &'a ReportHeader,
    names: Vec<&'a str>,
    colours: usize,
    charts: Vec<Chart>,
    rows: Vec<Row>,
}

struct Chart {
    caption: String,
    plot: Plot,
}

struct Row {
    name: &'static str,
    unit: &'static str,
    cells: Vec<Cell>,
}

struct Cell {
    median: String,
    min: String,
    max: String,
}

/// The HTML report.
pub fn html(header: &ReportHeader, contenders: &[Contender]) -> askama::Result<String> {
    let charts = vec![
        bar_chart(&REQUESTS, contenders)?,
        latency_chart("push", contenders, |round| round.push)?,
        latency_chart("scrape", contenders, |round| round.scrape)?,
        memory_chart(contenders)?,
        bar_chart(&CPU, contenders)?,
        bar_chart(&DISK, contenders)?,
        bar_chart(&RESTART, contenders)?,
    ];
    let names = contenders.iter().map(|contender| contender.name.as_str()).collect();
    let rows = FIGURES.iter().map(|figure| table_row(figure, contenders)).collect();
    ReportPage { header, names, colours: COLOURS, charts, rows }.render()
}

fn table_row(figure: &Figure, contenders: &[Contender]) -> Row {
    let cell = |contender: &Contender| {
        let Spread { median, min, max } = contender.spread(figure.value);
        Cell { median: three_digits(median), min: three_digits(min), max: three_digits(max) }
    };
    Row { name: figure.name, unit: figure.unit, cells: contenders.iter().map(cell).collect() }
}

fn bar_chart(figure: &Figure, contenders: &[Contender]) -> askama::Result<Chart> {
    Ok(Chart { caption: format!("{}, {}", figure.name, figure.unit), plot: bar_plot(figure, contenders)? })
}

fn bar_plot(figure: &Figure, contenders: &[Contender]) -> askama::Result<Plot> {
    let spreads =
        contenders.iter().map(|contender| (contender.name.as_str(), contender.spread(figure.value)));
    plot::bars(&spreads.collect::<Vec<_>>())
}

fn latency_chart(
    name: &str,
    contenders: &[Contender],
    latency: fn(&Round) -> Latency,
) -> askama::Result<Chart> {
    let curves = contenders.iter().map(|contender| {
        std::array::from_fn(|percentile| contender.spread(|round| latency(round).0[percentile]))
    });
    let plot = plot::percentiles(&curves.collect::<Vec<_>>())?;
    Ok(Chart { caption: format!("{name} latency, ms"), plot })
}

fn memory_chart(contenders: &[Contender]) -> askama::Result<Chart> {
    let curves = contenders.iter().map(|contender| {
        let samples = contender.median_round().map(|round| &round.memory_over_time[..]).unwrap_or_default();
        let point = samples.iter().map(|sample| Point { x: sample.seconds, y: sample.bytes as f64 / 1e6 });
        point.collect()
    });
    let plot = plot::over_time(&curves.collect::<Vec<_>>())?;
    Ok(Chart { caption: "memory over time, MB".to_owned(), plot })
}

#[derive(Template)]
#[template(path = "picture.svg")]
struct Picture {
    width: usize,
    height: usize,
    panels: Vec<Panel>,
}

/// A bar plot with a title.
struct Panel {
    title: &'static str,
    title_x: usize,
    title_y: usize,
    x: usize,
    y: usize,
    plot: Plot,
}

/// The SVG picture: the main figures in two rows of two panels.
pub fn picture(contenders: &[Contender]) -> askama::Result<String> {
    const COLUMN_WIDTH: usize = 430;
    const TITLE_HEIGHT: usize = 24;
    const GAP: usize = 10;
    let titles = [
        ("requests per second (higher is better)", REQUESTS),
        ("push p99, ms (lower is better)", PUSH_P99),
        ("CPU per push, µs (lower is better)", CPU),
        ("memory, MB (lower is better)", MEMORY),
    ];
    let row_height = plot::bars_height(contenders.len()) + TITLE_HEIGHT + GAP;
    let panel = |(at, (title, figure)): (usize, (&'static str, Figure))| {
        let (x, y) = (at % 2 * COLUMN_WIDTH, at / 2 * row_height);
        let plot = bar_plot(&figure, contenders)?;
        Ok(Panel { title, title_x: x + 8, title_y: y + 16, x, y: y + TITLE_HEIGHT, plot })
    };
    let panels = titles.into_iter().enumerate().map(panel).collect::<askama::Result<_>>()?;
    Picture { width: 2 * COLUMN_WIDTH, height: 2 * row_height, panels }.render()
}

/// A number with about three significant digits.
fn three_digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{MemorySample, Summary};

    fn contender(name: &str) -> Contender {
        let memory = vec![MemorySample { seconds: 1.0, bytes: 12_000_000 }];
        let summary = Summary { pushes_per_second: 1234.0, memory, ..Summary::default() };
        let rounds = vec![Round::new(summary, 1_000_000, 0.005)];
        Contender { name: name.to_owned(), command: String::new(), is_official: false, rounds }
    }

    #[test]
    fn the_report_escapes_names_and_needs_no_other_file() {
        let header = ReportHeader { scenario: "a & b".to_owned(), machine: "<unknown>".to_owned() };
        let html = html(&header, &[contender("a<b"), contender("c")]).expect("a report");
        for forbidden in ["a<b", "<unknown>", "<script", "src=", "url("] {
            assert!(!html.contains(forbidden), "{forbidden}: {html}");
        }
        assert!(html.contains("1234") && html.contains("memory over time, MB"), "{html}");
        assert_eq!(html.matches("<svg").count(), 7);
        assert_eq!(html.matches("<tr>").count(), 1 + FIGURES.len());
    }

    #[test]
    fn the_picture_has_four_panels() {
        let picture = picture(&[contender("a<b")]).expect("a picture");
        assert!(!picture.contains("a<b"), "{picture}");
        assert_eq!(picture.matches("<svg").count(), 5);
    }

    #[test]
    fn the_table_has_two_lines_per_figure() {
        let table = table(&[contender("a"), contender("b")]);
        assert_eq!(table.lines().count(), 1 + 2 * FIGURES.len(), "{table}");
    }
}
