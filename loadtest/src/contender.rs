//! The gateways of a comparison: which ones there are, how each is started, and the figures of its rounds.

use serde::Serialize;
use thiserror::Error;

use crate::flags::CompareFlags;
use crate::summary::{MemorySample, Quantiles, Summary};

/// The storage engines of sluicegate, one row per engine.
const ENGINES: [Engine; 3] = [
    Engine { name: "memory", is_persistent: false },
    Engine { name: "snapshot", is_persistent: true },
    Engine { name: "sled", is_persistent: true },
];

/// Default of `--backends`.
pub const DEFAULT_BACKENDS: &str = "memory,snapshot,snapshot:disk,sled";
/// Durability of an engine without a suffix.
const DEFAULT_DURABILITY: &str = "process";

struct Engine {
    name: &'static str,
    /// It stores data on disk, and so takes a path and a durability.
    is_persistent: bool,
}

impl Engine {
    /// Flags that select the engine; `{dir}` is the data directory.
    fn flags(&self, durability: &str) -> String {
        if self.is_persistent {
            let name = self.name;
            format!("--storage.backend={name} --storage.path={{dir}} --storage.durability={durability}")
        } else {
            String::new()
        }
    }
}

/// Why there is nothing to compare.
#[derive(Debug, Error)]
pub enum ContenderError {
    #[error("unknown storage engine in --backends: {0} (known: {names})", names = engine_names())]
    UnknownEngine(String),
    #[error("nothing to compare: name storage engines with --backends, or a program with --official")]
    Empty,
}

/// Help of `--backends`.
pub fn backends_help() -> String {
    format!(
        "Storage engines of sluicegate, separated by commas: {}. The suffix :disk makes acknowledged pushes survive a power failure",
        engine_names()
    )
}

fn engine_names() -> String {
    ENGINES.map(|engine| engine.name).join(", ")
}

/// A gateway and the figures of its rounds.
#[derive(Debug, Serialize)]
pub struct Contender {
    /// Name in the report.
    pub name: String,
    /// Command with `{port}` and `{dir}`.
    #[serde(skip)]
    pub command: String,
    /// It is the official program: its violations are reported but do not fail the comparison, and deletes may be late.
    #[serde(skip)]
    pub is_official: bool,
    /// In order of time.
    pub rounds: Vec<Round>,
}

/// The figures of one round.
#[derive(Debug, Serialize)]
pub struct Round {
    /// Requests per second.
    pub rate: f64,
    /// Latency of pushes.
    pub push: Latency,
    /// Latency of scrapes.
    pub scrape: Latency,
    /// Microseconds of CPU time per push.
    pub cpu: f64,
    /// Maximum memory, in MB.
    pub memory: f64,
    /// Memory over time.
    pub memory_over_time: Vec<MemorySample>,
    /// MB on disk after the run, with the gateway stopped.
    pub disk: f64,
    /// Milliseconds from a start with the data of the run until the gateway was ready.
    pub restart: f64,
    /// Number of violations.
    pub violations: usize,
    /// See [`crate::check::Findings::torn_scrapes`].
    pub torn_scrapes: usize,
    /// Requests without a clear response.
    pub failed: u64,
}

/// Latency in milliseconds at each of [`Latency::PERCENTILES`].
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct Latency(pub [f64; 5]);

impl Latency {
    /// Names of the percentiles.
    pub const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

    fn new(quantiles: &Quantiles) -> Self {
        let Quantiles { p50, p90, p99, p999, max, count: _ } = *quantiles;
        Self([p50, p90, p99, p999, max])
    }

    /// Median.
    pub fn p50(&self) -> f64 {
        self.0[0]
    }

    /// 99th percentile.
    pub fn p99(&self) -> f64 {
        self.0[2]
    }

    /// 99.9th percentile.
    pub fn p999(&self) -> f64 {
        self.0[3]
    }
}

/// A figure over all rounds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
}

impl Round {
    /// The figures of a run and of the restart after it.
    pub fn new(summary: Summary, disk_bytes: u64, restart_seconds: f64) -> Self {
        Self {
            rate: summary.pushes_per_second,
            push: Latency::new(&summary.push),
            scrape: Latency::new(&summary.scrape),
            cpu: summary.gateway_cpu_microseconds_per_push.unwrap_or(0.0),
            memory: summary.memory_bytes_max().unwrap_or(0) as f64 / 1e6,
            disk: disk_bytes as f64 / 1e6,
            restart: restart_seconds * 1e3,
            violations: summary.violations(),
            torn_scrapes: summary.torn_scrapes(),
            failed: summary.counts.failed(),
            memory_over_time: summary.memory,
        }
    }
}

impl Contender {
    /// The gateways that the flags ask for.
    pub fn from_flags(flags: &CompareFlags) -> Result<Vec<Self>, ContenderError> {
        let program = flags.gateway.display();
        let listen = "--web.listen-address=127.0.0.1:{port}";
        let mut contenders = Vec::new();
        for backend in flags.backends.iter().filter(|backend| !backend.is_empty()) {
            let (name, durability) = backend.split_once(':').unwrap_or((backend, DEFAULT_DURABILITY));
            let engine = ENGINES.iter().find(|engine| engine.name == name);
            let engine = engine.ok_or_else(|| ContenderError::UnknownEngine(backend.clone()))?;
            let command = format!("{program} {listen} {} {}", engine.flags(durability), flags.gateway_flags);
            contenders.push(Self { name: backend.clone(), command, is_official: false, rounds: Vec::new() });
        }
        if let Some(official) = &flags.official {
            let command = format!("{} {listen} --persistence.file={{dir}}/persistence", official.display());
            contenders.push(Self {
                name: "official".to_owned(),
                command,
                is_official: true,
                rounds: Vec::new(),
            });
        }
        if contenders.is_empty() { Err(ContenderError::Empty) } else { Ok(contenders) }
    }

    /// A figure over all rounds.
    pub fn spread(&self, figure: impl Fn(&Round) -> f64) -> Spread {
        let mut all: Vec<f64> = self.rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (all.first(), all.last()) else {
            return Spread { median: 0.0, min: 0.0, max: 0.0 };
        };
        let median = f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]);
        Spread { median, min: *min, max: *max }
    }

    /// The round with the median rate.
    pub fn median_round(&self) -> Option<&Round> {
        let mut rounds: Vec<&Round> = self.rounds.iter().collect();
        rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Command, Flags};
    use clap::Parser;

    fn contenders(arguments: &[&str]) -> Result<Vec<Contender>, ContenderError> {
        let arguments = ["sluicegate-loadtest", "compare"].iter().chain(arguments);
        let Command::Compare(flags) = Flags::parse_from(arguments).command else { unreachable!("compare") };
        Contender::from_flags(&flags)
    }

    #[test]
    fn every_default_backend_is_a_known_engine() {
        let contenders = contenders(&[]).expect("known engines");
        let names: Vec<_> = contenders.iter().map(|contender| contender.name.as_str()).collect();
        assert_eq!(names.join(","), DEFAULT_BACKENDS);
        assert!(!contenders[0].command.contains("--storage"), "{}", contenders[0].command);
        let disk = "--storage.backend=snapshot --storage.path={dir} --storage.durability=disk";
        assert!(contenders[2].command.contains(disk), "{}", contenders[2].command);
    }

    #[test]
    fn rejects_an_unknown_engine_and_an_empty_comparison() {
        let error = contenders(&["--backends=memory,redis"]).expect_err("an unknown engine");
        assert!(error.to_string().contains("redis (known: memory, snapshot, sled)"), "{error}");
        assert!(matches!(contenders(&["--backends="]), Err(ContenderError::Empty)));
        assert_eq!(contenders(&["--backends=", "--official=x"]).expect("one").len(), 1);
    }
}
