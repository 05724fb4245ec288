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
            "{:<6} push p50 {} p99 {} max {} ms, {} failed; scrape p99 {} ms, {} failed; memory {} → {} → {} MiB; CPU {} %; normal after {:.1} s, freed in {:.1} s, stopped in {:.1} s",
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
