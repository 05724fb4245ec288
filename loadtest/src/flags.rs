//! Command-line flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

use crate::contender;

/// Puts load on a Pushgateway, sluicegate or the official one, and checks that everything it exposes is correct.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-loadtest", version, max_term_width = 110)]
pub struct Flags {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// Each scenario is a subcommand, and `compare` runs one on several gateways.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Short-lived jobs: one connection per push, many groups
    Fleet(Box<RunFlags>),
    /// Pushers with persistent connections, each with its own groups
    Steady(Box<RunFlags>),
    /// Scrapers of many groups that change slowly
    Scrape(Box<RunFlags>),
    /// All of these at once, with large bodies and invalid pushes
    Mixed(Box<RunFlags>),
    /// Many writers on few groups: PUT, POST, DELETE and pushes that must be rejected
    Contention(Box<RunFlags>),
    /// Groups that appear and disappear
    Churn(Box<RunFlags>),
    /// Large bodies with many families
    Big(Box<RunFlags>),
    /// Run one scenario on several gateways or storage engines and compare them
    Compare(Box<CompareFlags>),
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Short-lived jobs.
    Fleet,
    /// Persistent connections.
    Steady,
    /// Mostly scrapes.
    Scrape,
    /// All of them.
    Mixed,
    /// Many writers on few groups.
    Contention,
    /// Groups that appear and disappear.
    Churn,
    /// Large bodies.
    Big,
}

/// Flags of one run.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// URL of a running gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9091", conflicts_with = "gateway")]
    pub target: String,
    /// Allow a target on another machine; confirms that you may put load on it
    #[arg(long)]
    pub target_is_mine: bool,
    /// Command that starts the gateway; {port} and {dir} are replaced by a free port and a data directory
    #[arg(long, value_name = "COMMAND")]
    pub gateway: Option<String>,
    /// Kill the gateway with SIGKILL at random moments, on average this far apart; requires --gateway
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "gateway")]
    pub kill_every: Option<Duration>,
    /// Size and rate of the load.
    #[command(flatten)]
    pub load: LoadFlags,
    /// Measure only; skip all checks
    #[arg(long)]
    pub no_check: bool,
    /// Also count scrapes that are no consistent snapshot over all groups as violations
    #[arg(long)]
    pub one_moment: bool,
    /// Allow a DELETE to take effect after its response, but before later pushes do (the official program does this)
    #[arg(long)]
    pub late_deletes: bool,
    /// Leave the groups of the run in the gateway
    #[arg(long)]
    pub keep: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// Size and rate of the load. A flag without a default uses the scenario's value.
#[derive(Debug, Clone, Args)]
pub struct LoadFlags {
    /// Duration of the run, for example 500ms, 10s, 2m or 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    pub duration: Duration,
    /// Maximum number of pushes and deletes
    #[arg(long, default_value_t = 2_000_000)]
    pub count: u64,
    /// Requests per second, sent when they are due (open loop); 0 sends the next request after each response (closed loop)
    #[arg(long)]
    pub rate: Option<f64>,
    /// When requests are due in an open loop
    #[arg(long, value_enum, default_value = "poisson")]
    pub arrivals: Arrivals,
    /// Seed of the random choices; the same seed sends the same requests as long as responses arrive in the same order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of requests in flight at a time
    #[arg(long)]
    pub connections: Option<usize>,
    /// Number of threads that push
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Number of groups
    #[arg(long)]
    pub groups: Option<u32>,
    /// Families per push
    #[arg(long)]
    pub families: Option<usize>,
    /// Series per family
    #[arg(long)]
    pub series: Option<usize>,
    /// Exponent of the Zipf distribution of groups; 0 is uniform
    #[arg(long)]
    pub zipf: Option<f64>,
    /// Number of scrapers
    #[arg(long)]
    pub scrapers: Option<usize>,
    /// Time between the scrapes of one scraper
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub scrape_interval: Option<Duration>,
    /// Encoding that the scrapers request
    #[arg(long, value_enum, default_value = "both")]
    pub scrape_encoding: ScrapeEncoding,
    /// Time after which a request without a response counts as lost
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    pub timeout: Duration,
}

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At random times, like many independent clients
    Poisson,
    /// At regular intervals
    Even,
}

/// The encoding that scrapers request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScrapeEncoding {
    /// Compressed
    Gzip,
    /// Uncompressed
    Plain,
    /// Every other scraper requests gzip
    Both,
}

/// Flags of a comparison.
#[derive(Debug, Args)]
pub struct CompareFlags {
    #[arg(long, value_delimiter = ',', default_value = contender::DEFAULT_BACKENDS, help = contender::backends_help())]
    pub backends: Vec<String>,
    /// The sluicegate program
    #[arg(long, value_name = "PROGRAM", default_value = "sluicegate")]
    pub gateway: PathBuf,
    /// Further flags for sluicegate
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    pub gateway_flags: String,
    /// The official Pushgateway program
    #[arg(long, value_name = "PROGRAM")]
    pub official: Option<PathBuf>,
    /// The scenario to run on each gateway
    #[arg(long, value_enum, default_value = "mixed")]
    pub scenario: Scenario,
    /// Number of rounds; each gateway runs once per round
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Size and rate of the load.
    #[command(flatten)]
    pub load: LoadFlags,
    /// Path of the HTML report
    #[arg(long, value_name = "FILE", default_value = "sluicegate-comparison.html")]
    pub report: PathBuf,
    /// Also write an SVG picture of the main figures, for a README
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Print the figures of all rounds as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

/// Why a duration is invalid.
#[derive(Debug, PartialEq, Eq, Error)]
enum DurationError {
    #[error("expected a number with a unit, such as 10s")]
    Number,
    #[error("expected one of the units ms, s, m and h")]
    Unit,
    #[error("the duration is too long")]
    TooLong,
}

/// Parses `300ms`, `10s`, `2m` or `1h`; fractions are allowed.
fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| DurationError::Number)?;
    let seconds = match &text[end..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(DurationError::Unit),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| DurationError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_duration_needs_a_number_and_a_unit() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for (text, error) in
            [("5", DurationError::Unit), ("s", DurationError::Number), ("-1s", DurationError::Number)]
        {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }
}
