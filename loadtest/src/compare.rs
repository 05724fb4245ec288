//! Several gateways side by side: the same scenario on each, in rounds that take turns, because a machine has moods.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::flags::Compare;
use crate::gateway::{Gateway, Scratch};
use crate::report;
use crate::run::{self, Options, Place};
use crate::summary::{Memory, Summary};

/// One gateway with its rounds.
#[derive(Debug, Serialize)]
pub struct Contender {
    /// As the table calls it.
    pub name: String,
    #[serde(skip)]
    command: String,
    #[serde(skip)]
    late_deletes: bool,
    /// One after the other.
    pub rounds: Vec<Round>,
}

/// What one round gave.
#[derive(Debug, Serialize)]
pub struct Round {
    /// Requests a second.
    pub rate: f64,
    /// Milliseconds of pushes: p50, p90, p99, p99.9, max.
    pub push: [f64; 5],
    /// Of scrapes.
    pub scrape: [f64; 5],
    /// Microseconds of CPU for a push.
    pub cpu: f64,
    /// The most memory, in MB.
    pub memory: f64,
    /// Over time.
    pub memory_over_time: Vec<Memory>,
    /// MB on disk after the run, the gateway stopped.
    pub disk: f64,
    /// Milliseconds from a start with these data until it was ready.
    pub restart: f64,
    /// What the checker found.
    pub violations: usize,
    /// See [`crate::check::Findings`].
    pub torn_scrapes: usize,
    /// Requests without a clear answer.
    pub failed: u64,
}

/// Median, least and most.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Contender {
    /// Over all rounds.
    pub fn spread(&self, figure: impl Fn(&Round) -> f64) -> Spread {
        let mut all: Vec<f64> = self.rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (all.first(), all.last()) else {
            return Spread { median: 0.0, least: 0.0, most: 0.0 };
        };
        Spread {
            median: f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]),
            least: *least,
            most: *most,
        }
    }

    /// The round whose rate is the median.
    pub fn middle_round(&self) -> Option<&Round> {
        let mut rounds: Vec<&Round> = self.rounds.iter().collect();
        rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

/// Runs all rounds, prints the table and writes the report; true if something was not true. What the official program
/// shows is told, and does not count.
pub fn compare(flags: &Compare, stop: &AtomicBool) -> Result<bool> {
    let mut contenders = contenders(flags)?;
    'rounds: for round in 0..flags.rounds.max(1) {
        // Each is first once.
        for at in 0..contenders.len() {
            let which = (at + round) % contenders.len();
            if stop.load(Ordering::SeqCst) {
                break 'rounds;
            }
            if !flags.quiet {
                eprintln!("round {} of {}: {}", round + 1, flags.rounds, contenders[which].name);
            }
            let contender = &mut contenders[which];
            let result = one(flags, contender, stop).with_context(|| contender.name.clone())?;
            if !stop.load(Ordering::SeqCst) {
                contender.rounds.push(result);
            }
        }
    }
    contenders.retain(|contender| !contender.rounds.is_empty());
    if contenders.is_empty() {
        bail!("no round was finished");
    }
    let about = About::new(flags);
    let html = report::html(&about, &contenders);
    std::fs::write(&flags.report, html).with_context(|| flags.report.display().to_string())?;
    if let Some(picture) = &flags.picture {
        std::fs::write(picture, report::picture(&contenders))
            .with_context(|| picture.display().to_string())?;
    }
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&contenders)?);
    } else {
        print!("{}", report::table(&contenders));
        println!("report: {}", flags.report.display());
    }
    let ours = contenders.iter().filter(|contender| !contender.late_deletes);
    Ok(ours.flat_map(|contender| &contender.rounds).any(|round| round.violations > 0))
}

/// What was done, for the report.
pub struct About {
    /// The scenario and its numbers.
    pub scenario: String,
    /// Processor, cores, system.
    pub machine: String,
}

impl About {
    fn new(flags: &Compare) -> Self {
        let plan = crate::scenario::Plan::new(flags.scenario, &flags.load);
        let rate = plan
            .rate
            .map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop at {rate} requests/s"));
        let scenario = format!(
            "{:?}, {} rounds of {:?}, {rate}, {} connections, {} groups, {} scrapers",
            flags.scenario, flags.rounds, flags.load.duration, plan.connections, plan.groups, plan.scrapers
        );
        Self { scenario: scenario.to_lowercase(), machine: machine() }
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model).to_owned();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{model}, {cores} cores, Linux {}; load and gateway share them",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn contenders(flags: &Compare) -> Result<Vec<Contender>> {
    let program = flags.gateway.display();
    let listen = "--web.listen-address=127.0.0.1:{port}";
    let mut contenders = Vec::new();
    for backend in flags.backends.iter().filter(|backend| !backend.is_empty()) {
        let (engine, durability) = backend.split_once(':').unwrap_or((backend, "process"));
        let store = match engine {
            "memory" => String::new(),
            "snapshot" | "sled" => {
                format!("--storage.backend={engine} --storage.path={{dir}} --storage.durability={durability}")
            }
            _ => bail!("no such storage engine: {backend}"),
        };
        let command = format!("{program} {listen} {store} {}", flags.gateway_flags);
        contenders.push(Contender {
            name: backend.clone(),
            command,
            late_deletes: false,
            rounds: Vec::new(),
        });
    }
    if let Some(official) = &flags.official {
        let command = format!("{} {listen} --persistence.file={{dir}}/persistence", official.display());
        contenders.push(Contender {
            name: "official".to_owned(),
            command,
            late_deletes: true,
            rounds: Vec::new(),
        });
    }
    if contenders.is_empty() {
        bail!("nothing to compare");
    }
    Ok(contenders)
}

fn one(flags: &Compare, contender: &Contender, stop: &AtomicBool) -> Result<Round> {
    let scratch = Scratch::new()?;
    let mut gateway = Gateway::start(&contender.command, scratch.path())?;
    let options = Options { late_deletes: contender.late_deletes, quiet: flags.quiet, ..Options::default() };
    let summary = run::run(flags.scenario, &flags.load, Place::Own(&mut gateway), &options, stop)?;
    gateway.stop()?;
    let disk = gateway.disk_bytes() as f64 / 1e6;
    let restart = gateway.start_again().context("with its data")?.as_secs_f64() * 1e3;
    gateway.stop()?;
    tell_violations(flags, &contender.name, &summary);
    let findings = summary.findings.as_ref();
    let most = summary.memory.iter().map(|memory| memory.bytes).max().unwrap_or(0);
    let list = |q: &crate::summary::Quantiles| [q.p50, q.p90, q.p99, q.p999, q.max];
    Ok(Round {
        rate: summary.pushes_per_second,
        push: list(&summary.push),
        scrape: list(&summary.scrape),
        cpu: summary.gateway_cpu_microseconds_per_push.unwrap_or(0.0),
        memory: most as f64 / 1e6,
        disk,
        restart,
        violations: findings.map_or(0, |findings| findings.violations_total),
        torn_scrapes: findings.map_or(0, |findings| findings.torn_scrapes),
        failed: summary.counts.unknown + summary.counts.lost + summary.counts.not_sent,
        memory_over_time: summary.memory,
    })
}

fn tell_violations(flags: &Compare, name: &str, summary: &Summary) {
    if let Some(findings) = &summary.findings
        && findings.violations_total > 0
        && !flags.quiet
    {
        eprint!("{name}:\n{findings}");
    }
}
