//! Compares gateways: runs the same scenario on each, in rounds, and writes the report.
//!
//! The speed of a machine varies over minutes, so the gateways take turns in every round instead of running one after another.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::contender::{Contender, Round};
use crate::flags::CompareFlags;
use crate::gateway::{Gateway, GatewayFolder};
use crate::report::{self, ReportHeader};
use crate::run::{self, Endpoint, RunOptions};
use crate::scenario::Plan;
use crate::summary::{CheckResult, Summary};

/// Runs all rounds, prints the table and writes the report. Violations of the official program do not fail the comparison.
pub fn compare(flags: &CompareFlags, stop: &AtomicBool) -> Result<CheckResult> {
    let mut contenders = Contender::from_flags(flags)?;
    run_rounds(flags, &mut contenders, stop)?;
    contenders.retain(|contender| !contender.rounds.is_empty());
    if contenders.is_empty() {
        bail!("stopped before the first round was complete; nothing to report");
    }
    write_reports(flags, &contenders)?;
    let mut ours = contenders.iter().filter(|contender| !contender.is_official);
    let failed = ours.any(|contender| contender.rounds.iter().any(|round| round.violations > 0));
    Ok(if failed { CheckResult::Failed } else { CheckResult::Passed })
}

fn run_rounds(flags: &CompareFlags, contenders: &mut [Contender], stop: &AtomicBool) -> Result<()> {
    let count = contenders.len();
    for round in 0..flags.rounds.max(1) {
        // A different gateway is first in each round.
        for contender in (0..count).map(|at| (at + round) % count) {
            if stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let contender = &mut contenders[contender];
            if !flags.quiet {
                eprintln!("round {} of {}: {}", round + 1, flags.rounds, contender.name);
            }
            let result = run_round(flags, contender, stop).with_context(|| contender.name.clone())?;
            if !stop.load(Ordering::SeqCst) {
                contender.rounds.push(result);
            }
        }
    }
    Ok(())
}

fn run_round(flags: &CompareFlags, contender: &Contender, stop: &AtomicBool) -> Result<Round> {
    let folder = GatewayFolder::new()?;
    let mut gateway = Gateway::start(&contender.command, &folder)?;
    let options =
        RunOptions { late_deletes: contender.is_official, quiet: flags.quiet, ..RunOptions::default() };
    let summary = run::run(flags.scenario, &flags.load, Endpoint::Started(&mut gateway), &options, stop)?;
    gateway.stop()?;
    let disk_bytes = gateway.disk_bytes();
    let restart = gateway.restart().context("restart with the data of the run")?;
    gateway.stop()?;
    print_violations(flags, &contender.name, &summary);
    Ok(Round::new(summary, disk_bytes, restart.as_secs_f64()))
}

fn write_reports(flags: &CompareFlags, contenders: &[Contender]) -> Result<()> {
    let html = report::html(&header(flags), contenders)?;
    std::fs::write(&flags.report, html)
        .with_context(|| format!("cannot write {}", flags.report.display()))?;
    if let Some(path) = &flags.picture {
        std::fs::write(path, report::picture(contenders)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if flags.json {
        println!("{}", serde_json::to_string_pretty(contenders)?);
    } else {
        print!("{}", report::table(contenders));
        println!("report: {}", flags.report.display());
    }
    Ok(())
}

fn header(flags: &CompareFlags) -> ReportHeader {
    let plan = Plan::new(flags.scenario, &flags.load);
    let rate = plan.rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate} requests/s"));
    let scenario = format!(
        "{:?}, rounds: {} × {:?}, {rate}, {} connections, {} groups, {} scrapers",
        flags.scenario, flags.rounds, flags.load.duration, plan.connections, plan.groups, plan.scrapers
    );
    ReportHeader { scenario: scenario.to_lowercase(), machine: describe_machine() }
}

fn describe_machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let release = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores shared by load test and gateway, Linux {}", release.trim())
}

fn print_violations(flags: &CompareFlags, name: &str, summary: &Summary) {
    if let Some(findings) = &summary.findings
        && findings.violations_total > 0
        && !flags.quiet
    {
        eprint!("{name}:\n{findings}");
    }
}
