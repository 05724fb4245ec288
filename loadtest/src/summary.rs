//! What a run came to, for people and as JSON.

use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::check::{Findings, Violation};

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Quantiles {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let max = histogram.max() as f64 / 1000.0;
        Self { count: histogram.len(), p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), p999: ms(0.999), max }
    }
}

/// Requests that push or delete, by answer and by kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// 2xx.
    pub done: u64,
    /// Refused as inconsistent.
    pub refused: u64,
    /// Another 4xx.
    pub rejected: u64,
    /// 5xx.
    pub unknown: u64,
    /// No answer.
    pub lost: u64,
    /// No connection.
    pub not_sent: u64,
    /// PUT and POST.
    pub pushes: u64,
    /// DELETE.
    pub deletes: u64,
    /// PUT and POST that must be refused.
    pub bad_pushes: u64,
}

/// Resident memory at a moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Since the run began.
    pub seconds: f64,
    /// Then.
    pub bytes: u64,
}

/// What a run came to.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Which scenario.
    pub scenario: String,
    /// How long it pushed.
    pub seconds: f64,
    /// Ctrl-C.
    pub stopped_early: bool,
    /// Requests a second that were asked for.
    pub open_loop_rate: Option<f64>,
    /// Bytes of an ordinary push.
    pub body_bytes: usize,
    /// Pushes and deletes that were answered.
    pub pushes_per_second: f64,
    /// By answer and kind.
    pub counts: Counts,
    /// Requests that were due and not sent before the end.
    pub unsent: u64,
    /// PUT and POST.
    pub push: Quantiles,
    /// DELETE.
    pub delete: Quantiles,
    /// Scrapes.
    pub scrape: Quantiles,
    /// Scrapes that were answered.
    pub scrapes: u64,
    /// Scrapes that were not.
    pub scrapes_failed: u64,
    /// Their bytes as they came.
    pub scrape_wire_bytes: u64,
    /// CPU of this program for a push, its scrapers included.
    pub own_cpu_microseconds_per_push: f64,
    /// CPU of the gateway for a push, its scrapes included.
    pub gateway_cpu_microseconds_per_push: Option<f64>,
    /// How often it was killed.
    pub kills: usize,
    /// Starts after a kill that did not succeed at once.
    pub starts_failed: usize,
    /// Of a gateway that was started here.
    pub memory: Vec<Memory>,
    /// What the checker found.
    pub findings: Option<Findings>,
}

impl Summary {
    /// Whether anything is wrong; torn scrapes count if `one_moment` was asked for.
    pub fn is_wrong(&self, one_moment: bool) -> bool {
        self.findings.as_ref().is_some_and(|findings| {
            findings.violations_total > 0 || (one_moment && findings.torn_scrapes > 0)
        })
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let loop_kind = self
            .open_loop_rate
            .map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop, {rate} /s"));
        writeln!(
            f,
            "{}: {:.1} s, {loop_kind}, {} bytes a push{}",
            self.scenario,
            self.seconds,
            self.body_bytes,
            if self.stopped_early { " (stopped early)" } else { "" }
        )?;
        writeln!(
            f,
            "  {:.0} requests/s: {} pushes, {} deletes, {} bad pushes; {} refused, {} rejected, {} unknown, {} lost, {} not sent",
            self.pushes_per_second,
            counts.pushes,
            counts.deletes,
            counts.bad_pushes,
            counts.refused,
            counts.rejected,
            counts.unknown,
            counts.lost,
            counts.not_sent
        )?;
        if self.unsent > 0 {
            writeln!(
                f,
                "  about {} requests were due and not sent: the gateway cannot take this rate",
                self.unsent
            )?;
        }
        if self.kills > 0 {
            writeln!(
                f,
                "  killed {} times; {} starts had to be tried again",
                self.kills, self.starts_failed
            )?;
        }
        writeln!(
            f,
            "  {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "ms", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, q) in [("push", &self.push), ("delete", &self.delete), ("scrape", &self.scrape)] {
            if q.count > 0 {
                writeln!(
                    f,
                    "  {name:>8} {:>9} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
                    q.count, q.p50, q.p90, q.p99, q.p999, q.max
                )?;
            }
        }
        if self.scrapes_failed > 0 {
            writeln!(f, "  {} scrapes failed", self.scrapes_failed)?;
        }
        write!(f, "  CPU per push: {:.1} µs here", self.own_cpu_microseconds_per_push)?;
        if let Some(gateway) = self.gateway_cpu_microseconds_per_push {
            let share = 100.0 * self.own_cpu_microseconds_per_push / gateway;
            write!(f, ", {gateway:.1} µs in the gateway ({share:.0} %)")?;
        }
        if let Some(memory) = self.memory.iter().map(|memory| memory.bytes).max() {
            write!(f, "; up to {:.1} MB there", memory as f64 / 1e6)?;
        }
        writeln!(f)?;
        match &self.findings {
            None => writeln!(f, "  not checked"),
            Some(findings) => write!(f, "{findings}"),
        }
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  checked: {} groups, {} requests, {} scrapes, {} sights; {} violations, {} stretches undecided",
            self.groups, self.requests, self.scrapes, self.sights, self.violations_total, self.undecided
        )?;
        if self.torn_scrapes > 0 {
            writeln!(f, "  {} scrapes are not one moment over all groups, for example", self.torn_scrapes)?;
            self.torn_scrape.iter().try_for_each(|torn| write!(f, "{torn}"))?;
        }
        for violation in &self.violations {
            write!(f, "{violation}")?;
        }
        let more = self.violations_total - self.violations.len().min(self.violations_total);
        if more > 0 {
            writeln!(f, "  and {more} more")?;
        }
        Ok(())
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {}{}",
            self.kind,
            self.group.as_ref().map_or_else(String::new, |group| format!(" ({group})"))
        )?;
        self.story.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}
