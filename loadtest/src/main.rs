//! `sluicegate-loadtest`: puts load on a Pushgateway and checks that everything it exposes is correct.
//!
//! Modules, lower ones first: `schema` (groups and bodies), `violation`, `history` (the record of a run), `exposition` and
//! `http` (bytes), `check` (decides whether a history is correct), `scenario`, `gateway`, `run`, `contender`, `compare` and
//! `report`. The crate shares no code with the server, because a checker with the server's parser would have its bugs too.

mod check;
mod compare;
mod contender;
mod exposition;
mod flags;
mod gateway;
mod history;
mod http;
mod report;
mod run;
mod scenario;
mod schema;
mod summary;
mod violation;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::Parser;

use flags::{Command, Flags, RunFlags, Scenario};
use gateway::{Gateway, GatewayFolder, Target};
use run::{Endpoint, RunOptions};
use summary::CheckResult;

/// Exit status after violations.
const EXIT_VIOLATIONS: u8 = 1;
/// Exit status if the run could not be carried out; also used by clap for invalid flags.
const EXIT_ERROR: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match execute(flags.command) {
        Ok(CheckResult::Passed) => ExitCode::SUCCESS,
        Ok(CheckResult::Failed) => ExitCode::from(EXIT_VIOLATIONS),
        Err(error) => {
            eprintln!("sluicegate-loadtest: {error:#}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn execute(command: Command) -> Result<CheckResult> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first signal ends the run with a summary, the second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(EXIT_ERROR), Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    match command {
        Command::Fleet(run) => run_once(Scenario::Fleet, &run, &stop),
        Command::Steady(run) => run_once(Scenario::Steady, &run, &stop),
        Command::Scrape(run) => run_once(Scenario::Scrape, &run, &stop),
        Command::Mixed(run) => run_once(Scenario::Mixed, &run, &stop),
        Command::Contention(run) => run_once(Scenario::Contention, &run, &stop),
        Command::Churn(run) => run_once(Scenario::Churn, &run, &stop),
        Command::Big(run) => run_once(Scenario::Big, &run, &stop),
        Command::Compare(flags) => compare::compare(&flags, &stop),
    }
}

fn run_once(scenario: Scenario, flags: &RunFlags, stop: &AtomicBool) -> Result<CheckResult> {
    let options = RunOptions {
        kill_every: flags.kill_every,
        no_check: flags.no_check,
        late_deletes: flags.late_deletes,
        keep_groups: flags.keep,
        quiet: flags.quiet || flags.json,
    };
    let summary = match &flags.gateway {
        Some(command) => {
            let folder = GatewayFolder::new()?;
            let mut gateway = Gateway::start(command, &folder)?;
            run::run(scenario, &flags.load, Endpoint::Started(&mut gateway), &options, stop)?
        }
        None => {
            let target = Target::parse(&flags.target, flags.target_is_mine)?;
            run::run(scenario, &flags.load, Endpoint::Running(target), &options, stop)?
        }
    };
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{summary}");
    }
    let failed = summary.violations() > 0 || (flags.one_moment && summary.torn_scrapes() > 0);
    Ok(if failed { CheckResult::Failed } else { CheckResult::Passed })
}
