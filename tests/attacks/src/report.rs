//! What an attack did, as a line, as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::play::{P99_WANTED, RECOVERY_WANTED};

/// An attack on all gateways.
#[derive(Debug, Serialize)]
pub struct Report {
    pub name: &'static str,
    pub what: &'static str,
    /// By the name of the gateway.
    pub outcomes: Vec<(String, Outcome)>,
}

/// What an attack did to one gateway.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With the reason.
    Skipped(String),
    Played(Box<Figures>),
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Successful pushes of well-behaved clients.
    pub pushes: usize,
    pub push_p50_ms: f64,
    pub push_p99_ms: f64,
    pub push_max_ms: f64,
    /// Failed pushes of well-behaved clients by reason.
    pub push_failures: BTreeMap<String, u64>,
    /// Successful scrapes.
    pub scrapes: usize,
    pub scrape_p99_ms: f64,
    /// Failed scrapes by reason.
    pub scrape_failures: BTreeMap<String, u64>,
    pub before_mib: f64,
    pub peak_mib: f64,
    /// After everything was deleted.
    pub left_mib: f64,
    pub recovery_seconds: f64,
    /// How long the memory took to go down after everything was deleted.
    pub freed_seconds: f64,
    pub stop_seconds: f64,
    /// CPU time of the gateway during the attack, 100 for one core.
    pub cpu_percent: f64,
    /// The same of this program: attackers and well-behaved clients.
    pub program_cpu_percent: f64,
    /// Whether everything was as always after the attack.
    pub is_normal: bool,
    /// How the gateway ended before all was measured.
    pub end: Option<String>,
    /// What the gateway must not do. Latencies are no failures.
    pub failures: Vec<String>,
    /// The same for a gateway that is not judged.
    pub notes: Vec<String>,
    pub is_judged: bool,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            pushes: 0,
            push_p50_ms: f64::NAN,
            push_p99_ms: f64::NAN,
            push_max_ms: f64::NAN,
            push_failures: BTreeMap::new(),
            scrapes: 0,
            scrape_p99_ms: f64::NAN,
            scrape_failures: BTreeMap::new(),
            before_mib: f64::NAN,
            peak_mib: f64::NAN,
            left_mib: f64::NAN,
            recovery_seconds: f64::NAN,
            freed_seconds: f64::NAN,
            stop_seconds: f64::NAN,
            cpu_percent: f64::NAN,
            program_cpu_percent: f64::NAN,
            is_normal: false,
            end: None,
            failures: Vec::new(),
            notes: Vec::new(),
            is_judged: true,
        }
    }
}

impl Figures {
    fn failures(&self) -> Vec<String> {
        let mut failures = self.failures.clone();
        if self.is_judged {
            for (what, reasons) in [("push", &self.push_failures), ("scrape", &self.scrape_failures)] {
                failures.extend(
                    reasons.iter().map(|(reason, count)| format!("{count} × {what} failed: {reason}")),
                );
            }
            if self.pushes == 0 || self.scrapes == 0 {
                failures.push("no push or no scrape succeeded".to_owned());
            }
        }
        failures
    }

    /// `over` marks what should be better, and is no failure.
    fn verdict(&self) -> &'static str {
        if !self.failures().is_empty() {
            "FAILED"
        } else if self.push_p99_ms > P99_WANTED.as_secs_f64() * 1000.0
            || self.recovery_seconds > RECOVERY_WANTED.as_secs_f64()
        {
            "over"
        } else {
            "pass"
        }
    }

    fn push_failed(&self) -> u64 {
        self.push_failures.values().sum()
    }

    fn scrape_failed(&self) -> u64 {
        self.scrape_failures.values().sum()
    }
}

impl Outcome {
    /// What the gateway must not do.
    pub fn failures(&self) -> Vec<String> {
        match self {
            Self::Skipped(_) => Vec::new(),
            Self::Played(figures) => figures.failures(),
        }
    }

    /// Everything in one line, failures below.
    pub fn line(&self) -> String {
        let figures = match self {
            Self::Skipped(reason) => return format!("skipped: {reason}"),
            Self::Played(figures) => figures,
        };
        let mut line = format!(
            "{:<6} push p50 {} p99 {} max {} ms, {} failed; scrape p99 {} ms, {} failed; memory {} → {} → {} MiB; CPU {} %, attack and clients {} %; normal after {:.1} s, freed in {:.1} s, stopped in {:.1} s",
            figures.verdict(),
            number(figures.push_p50_ms),
            number(figures.push_p99_ms),
            number(figures.push_max_ms),
            figures.push_failed(),
            number(figures.scrape_p99_ms),
            figures.scrape_failed(),
            number(figures.before_mib),
            number(figures.peak_mib),
            number(figures.left_mib),
            number(figures.cpu_percent),
            number(figures.program_cpu_percent),
            figures.recovery_seconds,
            figures.freed_seconds,
            figures.stop_seconds,
        );
        for problem in figures.failures().iter().chain(&figures.notes) {
            // Writing to a string cannot fail.
            let _ = write!(line, "\n    {problem}");
        }
        line
    }

    /// p99, failures, scrapes, memory and recovery as cells of a table.
    fn cells(&self) -> String {
        let figures = match self {
            Self::Skipped(reason) => return format!(" – | – | – | – | skipped: {reason} |"),
            Self::Played(figures) => figures,
        };
        let failed = |count: u64| if count == 0 { String::new() } else { format!(", {count} failed") };
        format!(
            " {} / {}{} | {}{} | {} → {} | {:.1} | {} |",
            number(figures.push_p99_ms),
            number(figures.push_max_ms),
            failed(figures.push_failed()),
            number(figures.scrape_p99_ms),
            failed(figures.scrape_failed()),
            number(figures.peak_mib),
            number(figures.left_mib),
            figures.recovery_seconds,
            figures.verdict(),
        )
    }
}

impl Outcome {
    /// The latency of pushes, the memory and the recovery, for [`comparison`].
    fn compared(&self) -> [String; 3] {
        let figures = match self {
            Self::Skipped(reason) => return ["–".to_owned(), "–".to_owned(), reason.clone()],
            Self::Played(figures) => figures,
        };
        let failed = match figures.push_failed() + figures.scrape_failed() {
            0 => String::new(),
            count => format!(", {} failed", commas(&count.to_string())),
        };
        let normal = match &figures.end {
            Some(end) => end.clone(),
            None if figures.is_normal => format!("{:.1} s", figures.recovery_seconds),
            None => format!("over {:.0} s", figures.recovery_seconds.floor()),
        };
        let memory = format!("{} → {}", grouped(figures.peak_mib), grouped(figures.left_mib));
        [format!("{}{failed}", grouped(figures.push_p99_ms)), memory, normal]
    }
}

/// One row for each attack, in which the gateways stand side by side.
pub fn comparison(reports: &[Report]) -> String {
    let names: Vec<&str> = reports
        .first()
        .map(|report| report.outcomes.iter().map(|(name, _)| name.as_str()).collect())
        .unwrap_or_default();
    let columns = ["push p99, ms", "memory, MiB", "normal after"];
    let head = columns.map(|column| {
        names
            .iter()
            .enumerate()
            .map(|(at, name)| if at == 0 { format!("{column}: {name}") } else { (*name).to_owned() })
            .collect::<Vec<_>>()
            .join(" | ")
    });
    let mut text = format!("| attack | {} |\n|---|", head.join(" | "));
    text.push_str(&"---|".repeat(columns.len() * names.len()));
    text.push('\n');
    for report in reports {
        let _ = write!(text, "| {} |", report.what);
        let outcomes: Vec<[String; 3]> =
            report.outcomes.iter().map(|(_, outcome)| outcome.compared()).collect();
        for column in 0..columns.len() {
            for cells in &outcomes {
                let _ = write!(text, " {} |", cells[column]);
            }
        }
        text.push('\n');
    }
    text
}

/// Like [`number`], with commas between thousands.
fn grouped(value: f64) -> String {
    let plain = number(value);
    if value.is_nan() || plain.contains('.') { plain } else { commas(&plain) }
}

/// Digits with commas between thousands.
fn commas(digits: &str) -> String {
    let len = digits.len();
    digits.char_indices().fold(String::new(), |mut text, (at, digit)| {
        if at > 0 && (len - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
        text
    })
}

/// Three digits or more.
fn number(value: f64) -> String {
    if value.is_nan() {
        "–".to_owned()
    } else if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// One row for each attack and gateway.
pub fn markdown(reports: &[Report]) -> String {
    let mut text = "| attack | gateway | push p99 / max, ms | scrape p99, ms | memory: peak → left, MiB | normal after, s | |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for report in reports {
        for (gateway, outcome) in &report.outcomes {
            let _ = writeln!(text, "| {} | {gateway} |{}", report.what, outcome.cells());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_stand_side_by_side() {
        let played = |p99, is_normal| {
            let (peak_mib, left_mib, recovery_seconds) = (2845.0, 9.5, 10.02);
            let figures = Figures {
                push_p99_ms: p99,
                peak_mib,
                left_mib,
                recovery_seconds,
                is_normal,
                ..Figures::default()
            };
            Outcome::Played(Box::new(figures))
        };
        let killed = Figures { end: Some("killed at 4096 MiB".to_owned()), ..Figures::default() };
        let outcomes = [played(11_444.2, false), played(8.44, true)];
        let ended = [Outcome::Played(Box::new(killed)), Outcome::Skipped("no selectors".to_owned())];
        let report = |what, [official, ours]: [Outcome; 2]| Report {
            name: "name",
            what,
            outcomes: vec![("official".to_owned(), official), ("ours".to_owned(), ours)],
        };
        assert_eq!(
            comparison(&[report("one", outcomes), report("two", ended)]),
            "| attack | push p99, ms: official | ours | memory, MiB: official | ours | normal after: official | ours |\n\
             |---|---|---|---|---|---|---|\n\
             | one | 11,444 | 8.4 | 2,845 → 9.5 | 2,845 → 9.5 | over 10 s | 10.0 s |\n\
             | two | – | – | – → – | – | killed at 4096 MiB | no selectors |\n"
        );
    }
}
