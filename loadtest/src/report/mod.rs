//! What a comparison came to: a table for the terminal, one HTML file, one picture.
//!
//! The HTML file needs nothing else: no network, no script. It is light or dark as the reader's system is, and its columns
//! become one on a phone.

mod plot;

use std::fmt::Write;

use crate::compare::{About, Contender, Round, Spread};

/// A row of the table.
struct Figure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Round) -> f64,
}

const FIGURES: [Figure; 11] = [
    Figure { name: "requests", unit: "/s", of: |round| round.rate },
    Figure { name: "push p50", unit: "ms", of: |round| round.push[0] },
    Figure { name: "push p99", unit: "ms", of: |round| round.push[2] },
    Figure { name: "push p99.9", unit: "ms", of: |round| round.push[3] },
    Figure { name: "scrape p50", unit: "ms", of: |round| round.scrape[0] },
    Figure { name: "scrape p99", unit: "ms", of: |round| round.scrape[2] },
    Figure { name: "CPU per push", unit: "µs", of: |round| round.cpu },
    Figure { name: "memory", unit: "MB", of: |round| round.memory },
    Figure { name: "on disk", unit: "MB", of: |round| round.disk },
    Figure { name: "restart", unit: "ms", of: |round| round.restart },
    Figure { name: "violations", unit: "", of: |round| round.violations as f64 },
];

/// The table for the terminal: medians, with the least and the most below.
pub fn table(contenders: &[Contender]) -> String {
    let mut text = format!("{:<17}", "");
    for contender in contenders {
        let _ = write!(text, " {:>18}", contender.name);
    }
    text.push('\n');
    for figure in &FIGURES {
        let name = format!("{} {}", figure.name, figure.unit);
        let _ = write!(text, "{name:<17}");
        let spreads: Vec<Spread> = contenders.iter().map(|contender| contender.spread(figure.of)).collect();
        for spread in &spreads {
            let _ = write!(text, " {:>18}", number(spread.median));
        }
        let _ = write!(text, "\n{:<17}", "");
        for spread in &spreads {
            let _ = write!(text, " {:>18}", format!("{} – {}", number(spread.least), number(spread.most)));
        }
        text.push('\n');
    }
    text
}

/// The report.
pub fn html(about: &About, contenders: &[Contender]) -> String {
    let mut rows = String::new();
    for figure in &FIGURES {
        let _ = write!(rows, "<tr><th scope=\"row\">{} <small>{}</small></th>", figure.name, figure.unit);
        for contender in contenders {
            let spread = contender.spread(figure.of);
            let _ = write!(
                rows,
                "<td>{}<br><small>{} – {}</small></td>",
                number(spread.median),
                number(spread.least),
                number(spread.most)
            );
        }
        rows.push_str("</tr>\n");
    }
    let mut heads = String::new();
    let mut legend = String::new();
    for (at, contender) in contenders.iter().enumerate() {
        let name = escape(&contender.name);
        let _ = write!(heads, "<th scope=\"col\">{name}</th>");
        let _ = write!(legend, "<span><i class=\"b{at}\"></i>{name}</span>");
    }
    let bars = [0, 6, 8, 9].map(|at| {
        let figure = &FIGURES[at];
        let spreads =
            contenders.iter().map(|contender| (contender.name.as_str(), contender.spread(figure.of)));
        (format!("{}, {}", figure.name, figure.unit), plot::bars(&spreads.collect::<Vec<_>>()))
    });
    let percentiles = [("push", 0), ("scrape", 1)].map(|(name, which)| {
        let lines = contenders.iter().map(|contender| {
            [0, 1, 2, 3, 4].map(|at| contender.spread(|round| [round.push, round.scrape][which][at]))
        });
        (format!("latency of a {name}, ms"), plot::percentiles(&lines.collect::<Vec<_>>()))
    });
    let memory = contenders.iter().map(|contender| {
        let points = contender.middle_round().map(|round| &round.memory_over_time[..]).unwrap_or_default();
        points.iter().map(|memory| (memory.seconds, memory.bytes as f64 / 1e6)).collect::<Vec<_>>()
    });
    let memory = ("memory over time, MB".to_owned(), plot::over_time(&memory.collect::<Vec<_>>()));
    let [rate, cpu, disk, restart] = bars;
    let [push, scrape] = percentiles;
    let mut figures = String::new();
    for (name, picture) in [rate, push, scrape, memory, cpu, disk, restart] {
        let _ = writeln!(figures, "<figure><figcaption>{name}</figcaption>{picture}</figure>");
    }
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>Pushgateways side by side</title>
<style>{}{PAGE}</style></head><body>
<h1>Pushgateways side by side</h1>
<p>{}.<br>{}.</p>
<p class="legend">{legend}</p>
<main>{figures}</main>
<h2>Figures</h2>
<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead><tbody>
{rows}</tbody></table></div>
<p><small>Each figure is the median over the rounds, with the least and the most. Memory over time is that of the round with the median rate.
A restart lasts from the start of the program with the data of the run until it says it is ready.
In an open loop latency counts from when a request was due.</small></p>
</body></html>
"#,
        plot::STYLE,
        escape(&about.scenario),
        escape(&about.machine)
    )
}

/// One picture: rates and restart times, to stand in a text.
pub fn picture(contenders: &[Contender]) -> String {
    let of = |at: usize| {
        let figure = &FIGURES[at];
        let spreads =
            contenders.iter().map(|contender| (contender.name.as_str(), contender.spread(figure.of)));
        plot::bars(&spreads.collect::<Vec<_>>())
    };
    let part = |at: usize, x: usize, y: usize, title: &str| {
        let height = plot::bars_height(contenders.len());
        let inner = of(at).replacen(
            "<svg ",
            &format!("<svg x=\"{x}\" y=\"{}\" width=\"420\" height=\"{height}\" ", y + 24),
            1,
        );
        format!("<text class=\"title\" x=\"{}\" y=\"{}\">{title}</text>{inner}", x + 8, y + 16)
    };
    let height = plot::bars_height(contenders.len()) + 34;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {}\" role=\"img\" aria-label=\"Pushgateways side by side\">\
         <style>{}.title{{font:600 14px system-ui,sans-serif;fill:var(--ink)}}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>{}{}{}{}</svg>\n",
        height * 2,
        plot::STYLE,
        part(0, 0, 0, "requests a second (more is better)"),
        part(2, 430, 0, "push p99, ms (less is better)"),
        part(6, 0, height, "CPU per push, µs (less is better)"),
        part(7, 430, height, "memory, MB (less is better)")
    )
}

const PAGE: &str = "
body{margin:0 auto;padding:1rem;max-width:76rem;font:16px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem;margin:.3rem 0}h2{font-size:1.15rem;margin:1.5rem 0 .4rem}p{margin:.4rem 0;overflow-wrap:anywhere}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem;margin-top:1rem}
figure{margin:0;padding:.6rem;border:1px solid var(--line);border-radius:.5rem;background:var(--card)}
figcaption{font-weight:600;margin-bottom:.3rem}svg{display:block;width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1rem;position:sticky;top:0;background:var(--paper);padding:.4rem 0}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
tbody th{text-align:left;font-weight:600;position:sticky;left:0;background:var(--paper)}
small{color:var(--faint)}
";

/// Three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
