//! `sluicegate-attacks`: plays what one hostile client can do to a Pushgateway, one attack at a time, and measures what
//! well-behaved clients notice.
//!
//! Modules, lower ones first: `http` (bytes), `stream` (connections), `scene` (what attackers do with connections), `attack` (what an attack is),
//! `bodies` (what they send), `attacks` (all of them), `gateway` (the process), `victims` (the well-behaved clients), `play` (one
//! attack from start to end, under a `watch`) and `report`. The crate shares no code with the server.

mod attack;
mod attacks;
mod bodies;
mod gateway;
mod http;
mod play;
mod report;
mod scene;
mod stream;
mod victims;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use rustix::process::{Resource, Rlimit};

use attack::Attack;
use gateway::GatewayCommand;
use play::{Options, play};
use report::{Outcome, Report};
use watch::Bounds;

/// Exit status if sluicegate did not withstand an attack.
const EXIT_FAILED: u8 = 1;
/// Exit status if the attacks could not be played; also used by clap for invalid flags.
const EXIT_ERROR: u8 = 2;
const MIB: u64 = 1 << 20;
/// How long a return to normal may take.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// The same for the table, which also shows gateways that need much longer.
const RECOVERY_MAX_OF_TABLE: Duration = Duration::from_secs(10);

/// Plays what one hostile client can do to a Pushgateway, and measures what well-behaved clients notice.
#[derive(Debug, Parser)]
struct Flags {
    /// Command that starts a gateway, with {port} and optionally {dir}; repeat it as NAME=COMMAND to compare several
    #[arg(long, required_unless_present_any = ["list", "official"], value_name = "COMMAND")]
    gateway: Vec<String>,
    /// The official program, which is attacked first; short for --gateway 'official=PROGRAM --web.listen-address=127.0.0.1:{port}'
    #[arg(long, value_name = "PROGRAM")]
    official: Option<String>,
    /// Play the attacks of the table in docs/benchmarks.md, wait 10 s at most for a return to normal, and print that table
    #[arg(long)]
    table: bool,
    /// Play only the attacks whose names contain one of these words
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// List the attacks and exit
    #[arg(long)]
    list: bool,
    /// Duration of each attack in seconds
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    duration: f64,
    /// Smaller preparations, and one second for each attack
    #[arg(long)]
    quick: bool,
    /// The gateway's budget for requests in flight, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    budget_mib: u64,
    /// A gateway with more resident memory is killed, in MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    memory_max_mib: u64,
    /// A gateway is killed so many seconds after its start
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    time_max: u64,
    /// Write the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match execute(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("sluicegate-attacks: {error:#}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Whether sluicegate withstood all attacks.
fn execute(flags: &Flags) -> Result<bool> {
    let is_selected =
        |attack: &&Attack| flags.only.is_empty() || flags.only.iter().any(|word| attack.name.contains(word));
    let attacks: Vec<&Attack> = if flags.table {
        attacks::table().filter(is_selected).collect()
    } else {
        attacks::all().filter(is_selected).collect()
    };
    if attacks.is_empty() {
        bail!("no attack has a name that contains {}", flags.only.join(" or "));
    }
    if flags.list {
        for attack in attacks {
            println!("{:<24} {}", attack.name, attack.what);
        }
        return Ok(true);
    }
    // Attackers hold many connections.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;

    let official = flags
        .official
        .as_ref()
        .map(|program| format!("official={program} --web.listen-address=127.0.0.1:{{port}}"));
    let gateways: Vec<GatewayCommand> =
        official.iter().chain(&flags.gateway).map(|text| GatewayCommand::parse(text)).collect();
    let options = Options {
        duration: Duration::from_secs_f64(if flags.quick { 1.0 } else { flags.duration }),
        is_quick: flags.quick,
        budget: flags.budget_mib * MIB,
        recovery_max: if flags.table { RECOVERY_MAX_OF_TABLE } else { RECOVERY_MAX },
        bounds: Bounds {
            memory: flags.memory_max_mib.saturating_mul(MIB),
            time: Duration::from_secs(flags.time_max),
        },
    };
    let mut reports = Vec::new();
    for attack in attacks {
        let outcomes: Vec<(String, Outcome)> = gateways
            .iter()
            .map(|gateway| {
                let outcome = play(attack, gateway, &options);
                eprintln!("{:<24} {:<12} {}", attack.name, gateway.name, outcome.line());
                (gateway.name.clone(), outcome)
            })
            .collect();
        reports.push(Report { name: attack.name, what: attack.what, outcomes });
    }
    if let Some(path) = &flags.json {
        std::fs::write(path, serde_json::to_string_pretty(&reports)?)?;
    }
    let text = if flags.table { report::comparison(&reports) } else { report::markdown(&reports) };
    print!("{text}");
    Ok(reports.iter().flat_map(|report| &report.outcomes).all(|(_, outcome)| outcome.failures().is_empty()))
}
