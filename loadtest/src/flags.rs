//! The flags as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Loads a Pushgateway, ours or the official one, and checks whether what it shows is true.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-loadtest", version, max_term_width = 110)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Short-lived jobs: a connection for each push, many groups
    Fleet(Box<Run>),
    /// Pushers that keep their connections, each with groups of its own
    Steady(Box<Run>),
    /// Scrapers over many groups that change slowly
    Scrape(Box<Run>),
    /// All of it at once
    Mixed(Box<Run>),
    /// Many writers on few groups: PUT, POST, DELETE and pushes that must be refused
    Contention(Box<Run>),
    /// Groups that come and go
    Churn(Box<Run>),
    /// Large bodies of many families
    Big(Box<Run>),
    /// The same scenario on several gateways or storage engines, side by side
    Compare(Box<Compare>),
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// See [`Command`].
    Fleet,
    /// See [`Command`].
    Steady,
    /// See [`Command`].
    Scrape,
    /// See [`Command`].
    Mixed,
    /// See [`Command`].
    Contention,
    /// See [`Command`].
    Churn,
    /// See [`Command`].
    Big,
}

/// One run.
#[derive(Debug, Args)]
pub struct Run {
    /// The gateway, which is running already
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9091", conflicts_with = "gateway")]
    pub target: String,
    /// Yes, load a machine that is not this one
    #[arg(long)]
    pub target_is_mine: bool,
    /// A command that starts the gateway, with {port} and {dir} where its port and its data belong
    #[arg(long, value_name = "COMMAND")]
    pub gateway: Option<String>,
    /// Kill the gateway with SIGKILL at random moments, this far apart on average; needs --gateway
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "gateway")]
    pub kill_every: Option<Duration>,
    /// The shape of the load
    #[command(flatten)]
    pub load: Load,
    /// Check nothing, only measure
    #[arg(long)]
    pub no_check: bool,
    /// Scrapes that are not one moment over all groups are violations, too
    #[arg(long)]
    pub one_moment: bool,
    /// A DELETE may take effect after its answer, but before a push that is sent then does: so promises the official program
    #[arg(long)]
    pub late_deletes: bool,
    /// Leave the groups in the gateway
    #[arg(long)]
    pub keep: bool,
    /// The summary as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// The shape of the load. Without a flag each scenario has a value of its own.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// How long
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub duration: Duration,
    /// At most that many requests that push or delete
    #[arg(long, default_value_t = 2_000_000)]
    pub count: u64,
    /// Requests a second, sent whether or not earlier ones were answered in time (open loop); 0: as fast as answers come (closed loop)
    #[arg(long)]
    pub rate: Option<f64>,
    /// When requests are due, in an open loop
    #[arg(long, value_enum, default_value = "poisson")]
    pub arrivals: Arrivals,
    /// The same seed sends the same requests, as far as answers come in the same order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Requests under way at a time
    #[arg(long)]
    pub connections: Option<usize>,
    /// Threads that push
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Groups
    #[arg(long)]
    pub groups: Option<u32>,
    /// Families of a push
    #[arg(long)]
    pub families: Option<usize>,
    /// Series of a family
    #[arg(long)]
    pub series: Option<usize>,
    /// Exponent of the Zipf distribution of groups; 0: all alike
    #[arg(long)]
    pub zipf: Option<f64>,
    /// Scrapers
    #[arg(long)]
    pub scrapers: Option<usize>,
    /// Time from scrape to scrape
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub scrape_interval: Option<Duration>,
    /// How scrapers want it
    #[arg(long, value_enum, default_value = "both")]
    pub scrape_encoding: Encoding,
    /// A request without an answer for so long is lost
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub timeout: Duration,
}

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At random, as from many clients that do not know of each other.
    Poisson,
    /// Evenly.
    Even,
}

/// How scrapes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// Compressed.
    Gzip,
    /// As text.
    Plain,
    /// Scrapers take turns.
    Both,
}

/// Several gateways, side by side.
#[derive(Debug, Args)]
pub struct Compare {
    /// Storage engines of sluicegate, separated by commas: memory, snapshot, sled; with :disk to survive power loss
    #[arg(long, value_delimiter = ',', default_value = "memory,snapshot,snapshot:disk,sled")]
    pub backends: Vec<String>,
    /// The program of sluicegate
    #[arg(long, value_name = "PROGRAM", default_value = "sluicegate")]
    pub gateway: PathBuf,
    /// Further flags for it
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    pub gateway_flags: String,
    /// The program of the official Pushgateway
    #[arg(long, value_name = "PROGRAM")]
    pub official: Option<PathBuf>,
    /// What to run on each
    #[arg(long, value_enum, default_value = "mixed")]
    pub scenario: Scenario,
    /// How often
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// The shape of the load
    #[command(flatten)]
    pub load: Load,
    /// Where the report goes
    #[arg(long, value_name = "FILE", default_value = "sluicegate-comparison.html")]
    pub report: PathBuf,
    /// A picture of it, for a README
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// The figures as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// `300ms`, `10s`, `2m`, `1h`, with a fraction if need be.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| "a number and a unit, such as 10s")?;
    let seconds = match &text[end..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("the unit is ms, s, m or h".to_owned()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Flags::command().debug_assert();
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(duration("5").is_err() && duration("s").is_err() && duration("-1s").is_err());
    }
}
