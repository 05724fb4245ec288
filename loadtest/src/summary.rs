//! The result of a run, as text and as JSON.

use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::check::Findings;

/// Whether the checks of a command found violations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// No violation, or not checked.
    Passed,
    /// At least one violation.
    Failed,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Quantiles {
    /// Number of requests.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Maximum.
    pub max: f64,
}

impl Quantiles {
    /// Quantiles of a histogram in microseconds.
    pub fn from_microseconds(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let max = histogram.max() as f64 / 1000.0;
        Self { count: histogram.len(), p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), p999: ms(0.999), max }
    }
}

/// Numbers of requests, by outcome and by operation.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// 2xx.
    pub accepted: u64,
    /// 400 from the consistency check.
    pub inconsistent: u64,
    /// Any other 4xx.
    pub rejected: u64,
    /// 5xx.
    pub unknown: u64,
    /// No response.
    pub lost: u64,
    /// No connection.
    pub not_sent: u64,
    /// Valid PUT and POST.
    pub pushes: u64,
    /// DELETE.
    pub deletes: u64,
    /// PUT and POST that must be rejected.
    pub bad_pushes: u64,
}

impl Counts {
    /// Requests with a response that says what happened.
    pub fn answered(&self) -> u64 {
        self.accepted + self.inconsistent + self.rejected
    }

    /// Requests whose effect is unknown, and requests that were not sent.
    pub fn failed(&self) -> u64 {
        self.unknown + self.lost + self.not_sent
    }
}

/// Resident memory at one time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemorySample {
    /// Since the run began.
    pub seconds: f64,
    /// Resident memory.
    pub bytes: u64,
}

/// The result of a run.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Name of the scenario.
    pub scenario: String,
    /// How long the writers ran.
    pub seconds: f64,
    /// A signal ended the run.
    pub stopped_early: bool,
    /// Requested rate per second; `None` in a closed loop.
    pub open_loop_rate: Option<f64>,
    /// Length of the body of an ordinary push.
    pub body_bytes: usize,
    /// Pushes and deletes with a clear response, per second.
    pub pushes_per_second: f64,
    /// Numbers of requests.
    pub counts: Counts,
    /// Requests that were due but not sent before the run ended.
    pub unsent: u64,
    /// Latency of PUT and POST.
    pub push: Quantiles,
    /// Latency of DELETE.
    pub delete: Quantiles,
    /// Latency of scrapes.
    pub scrape: Quantiles,
    /// Successful scrapes.
    pub scrapes: u64,
    /// Failed scrapes.
    pub scrapes_failed: u64,
    /// Bytes of all scrapes as received.
    pub scrape_wire_bytes: u64,
    /// CPU time of the load test per push, including its scrapers.
    pub own_cpu_microseconds_per_push: f64,
    /// CPU time of the gateway per push, including its scrapes.
    pub gateway_cpu_microseconds_per_push: Option<f64>,
    /// Number of kills.
    pub kills: usize,
    /// Starts after a kill that failed and were repeated.
    pub starts_failed: usize,
    /// Memory over time of a gateway that the load test started.
    pub memory: Vec<MemorySample>,
    /// Result of the checker; `None` with `--no-check`.
    pub findings: Option<Findings>,
}

impl Summary {
    /// Number of violations.
    pub fn violations(&self) -> usize {
        self.findings.as_ref().map_or(0, |findings| findings.violations_total)
    }

    /// Number of scrapes that are no consistent snapshot over all groups.
    pub fn torn_scrapes(&self) -> usize {
        self.findings.as_ref().map_or(0, |findings| findings.torn_scrapes)
    }

    /// The highest memory sample in bytes; `None` without samples.
    pub fn memory_bytes_max(&self) -> Option<u64> {
        self.memory.iter().map(|sample| sample.bytes).max()
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { scenario, seconds, body_bytes, counts, .. } = self;
        let arrivals =
            self.open_loop_rate.map_or("closed loop".to_owned(), |rate| format!("open loop, {rate}/s"));
        let early = if self.stopped_early { " (stopped early)" } else { "" };
        writeln!(f, "{scenario}: {seconds:.1} s, {arrivals}, {body_bytes} bytes per push{early}")?;
        write!(f, "  {:.0} requests/s: {} pushes", self.pushes_per_second, counts.pushes)?;
        writeln!(f, ", {} deletes, {} invalid pushes", counts.deletes, counts.bad_pushes)?;
        write!(f, "  responses: {} accepted, {} inconsistent", counts.accepted, counts.inconsistent)?;
        write!(f, ", {} rejected, {} unknown", counts.rejected, counts.unknown)?;
        writeln!(f, ", {} lost, {} not sent", counts.lost, counts.not_sent)?;
        if self.unsent > 0 {
            writeln!(
                f,
                "  about {} due requests were not sent: the gateway is too slow for this rate",
                self.unsent
            )?;
        }
        if self.kills > 0 {
            writeln!(f, "  killed {} times; {} restarts were repeated", self.kills, self.starts_failed)?;
        }
        self.fmt_latencies(f)?;
        if self.scrapes_failed > 0 {
            writeln!(f, "  {} scrapes failed", self.scrapes_failed)?;
        }
        self.fmt_resources(f)?;
        match &self.findings {
            None => writeln!(f, "  not checked"),
            Some(findings) => write!(f, "{findings}"),
        }
    }
}

impl Summary {
    fn fmt_latencies(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  {:>8} {:>9}", "ms", "count")?;
        writeln!(f, " {:>9} {:>9} {:>9} {:>9} {:>9}", "p50", "p90", "p99", "p99.9", "max")?;
        for (name, q) in [("push", &self.push), ("delete", &self.delete), ("scrape", &self.scrape)] {
            if q.count > 0 {
                let Quantiles { count, p50, p90, p99, p999, max } = q;
                write!(f, "  {name:>8} {count:>9}")?;
                writeln!(f, " {p50:>9.3} {p90:>9.3} {p99:>9.3} {p999:>9.3} {max:>9.3}")?;
            }
        }
        Ok(())
    }

    fn fmt_resources(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let own = self.own_cpu_microseconds_per_push;
        write!(f, "  CPU per push: load test {own:.1} µs")?;
        if let Some(gateway) = self.gateway_cpu_microseconds_per_push {
            write!(f, ", gateway {gateway:.1} µs (ratio {:.0} %)", 100.0 * own / gateway)?;
        }
        if let Some(bytes) = self.memory_bytes_max() {
            write!(f, "; gateway memory up to {:.1} MB", bytes as f64 / 1e6)?;
        }
        writeln!(f)
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { groups, requests, scrapes, observations, violations_total, undecided, .. } = self;
        write!(
            f,
            "  checked {groups} groups, {requests} requests, {scrapes} scrapes, {observations} group states: "
        )?;
        writeln!(f, "{violations_total} violations, {undecided} undecided intervals")?;
        if self.torn_scrapes > 0 {
            let torn = self.torn_scrapes;
            writeln!(f, "  {torn} scrapes are no consistent snapshot over all groups, for example:")?;
            self.torn_scrape.iter().try_for_each(|violation| write!(f, "{violation}"))?;
        }
        for violation in &self.violations {
            write!(f, "{violation}")?;
        }
        let more = self.violations_total - self.violations.len().min(self.violations_total);
        if more > 0 {
            writeln!(f, "  and {more} more violations")?;
        }
        Ok(())
    }
}
