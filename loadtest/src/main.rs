//! `sluicegate-loadtest`: flags → plan → run → summary and exit status.
//!
//! Rooms, in the order of who names whom: `layout` (what pushes look like), `history` (what happened), `exposition` and `http`
//! (bytes), `check` (is it true?), `scenario`, `load`, `scraper`, `gateway`, `run`, `compare` and `report`. It shares no code with the
//! server: a checker with the server's parser would have the server's bugs.

mod check;
mod compare;
mod exposition;
mod flags;
mod gateway;
mod history;
mod http;
mod schema;

mod report;
mod run;
mod scenario;

mod summary;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::Parser;

use flags::{Command, Flags, Run, Scenario};
use gateway::{Gateway, Scratch, Target};

/// Something is not true.
const WRONG: u8 = 1;
/// It could not be tried.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match act(flags.command) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(WRONG),
        Err(error) => {
            eprintln!("sluicegate-loadtest: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Does it; true if something is wrong.
fn act(command: Command) -> Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(FAILED), Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let (scenario, run) = match command {
        Command::Fleet(run) => (Scenario::Fleet, run),
        Command::Steady(run) => (Scenario::Steady, run),
        Command::Scrape(run) => (Scenario::Scrape, run),
        Command::Mixed(run) => (Scenario::Mixed, run),
        Command::Contention(run) => (Scenario::Contention, run),
        Command::Churn(run) => (Scenario::Churn, run),
        Command::Big(run) => (Scenario::Big, run),
        Command::Compare(flags) => return compare::compare(&flags, &stop),
    };
    once(scenario, &run, &stop)
}

fn once(scenario: Scenario, flags: &Run, stop: &AtomicBool) -> Result<bool> {
    let options = run::Options {
        kill_every: flags.kill_every,
        no_check: flags.no_check,
        late_deletes: flags.late_deletes,
        keep: flags.keep,
        quiet: flags.quiet || flags.json,
    };
    let summary = match &flags.gateway {
        Some(command) => {
            let scratch = Scratch::new()?;
            let mut gateway = Gateway::start(command, scratch.path())?;
            run::run(scenario, &flags.load, run::Place::Own(&mut gateway), &options, stop)?
        }
        None => {
            let target = Target::parse(&flags.target, flags.target_is_mine)?;
            run::run(scenario, &flags.load, run::Place::Target(target), &options, stop)?
        }
    };
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{summary}");
    }
    Ok(summary.is_wrong(flags.one_moment))
}
