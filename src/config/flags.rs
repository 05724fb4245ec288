//! Flags: names, defaults, help and syntax. The parent module checks them against each other.

use std::ffi::OsString;
use std::fs;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum, error::ErrorKind};

use super::arguments::{ArgumentError, Request, normalized};
use super::build::BUILD;
use super::duration::{GoDuration, Timeout};
use super::error::ConfigError;
use super::help;
use super::listen::ListenAddress;
use super::size::ByteSize;
use super::store::{Durability, EngineChoices};

/// All flags of the gateway. The official ones have their official names and defaults.
#[derive(Debug, Parser)]
#[command(
    name = "sluicegate",
    version = BUILD.version,
    about = "A drop-in replacement for the Prometheus Pushgateway.",
    after_help = "Durations: 300ms, 30s, 5m, 1h30m, 1d or 1w. Sizes: 65536, 64KiB, 64MiB or 1GiB. Switches can be negated: \
                  --no-web.enable-lifecycle. @FILE stands for the lines of a file, one argument each. Commands for stores: sluicegate storage --help.",
    override_usage = "sluicegate [<flags>]\n       sluicegate storage inspect|verify|migrate <flags>",
    disable_help_flag = true,
    disable_version_flag = true,
    next_line_help = true
)]
pub(super) struct Flags {
    #[command(flatten)]
    pub web: WebFlags,
    #[command(flatten)]
    pub push: PushFlags,
    #[command(flatten)]
    pub persistence: PersistenceFlags,
    #[command(flatten)]
    pub storage: StorageFlags,
    #[command(flatten)]
    pub limits: LimitFlags,
    #[command(flatten)]
    pub runtime: RuntimeFlags,
    #[command(flatten)]
    pub log: LogFlags,
    #[command(flatten)]
    help: HelpFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Web")]
pub(super) struct WebFlags {
    /// Address to listen on, such as :9091, 127.0.0.1:9091, [::1]:9091, localhost:9091 or unix:/run/sluicegate.sock; can be repeated
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = ":9091")]
    pub listen_address: Vec<ListenAddress>,
    /// Use sockets passed by systemd (TCP or Unix) instead of --web.listen-address
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,
    /// File that configures TLS, authentication, response headers and a rate limit; changes take effect without a restart
    #[arg(long = "web.config.file", value_name = "FILE", default_value = "", hide_default_value = true)]
    pub config_file: String,
    /// Path under which metrics are exposed; the path for pushes is always /metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    pub telemetry_path: String,
    /// URL under which clients reach the gateway, for links on the web page
    #[arg(long = "web.external-url", value_name = "URL", default_value = "", hide_default_value = true)]
    pub external_url: String,
    /// Prefix of all paths [default: the path of --web.external-url]
    #[arg(long = "web.route-prefix", value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub route_prefix: String,
    /// Allow PUT and POST to /-/quit, which stop the gateway; without this flag they get 403
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Allow PUT to /api/v1/admin/wipe, which deletes all metrics; without this flag it gets 404
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin_api: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Pushing")]
pub(super) struct PushFlags {
    /// Respond with 202 to every push that can be parsed; inconsistent pushes are still not applied
    #[arg(long = "push.disable-consistency-check")]
    pub disable_consistency_check: bool,
    /// Parse every push, also if one with the same series was pushed before. For tests
    #[arg(long = "push.disable-shapes", hide = true)]
    pub disable_shapes: bool,
    /// Allow any UTF-8 in metric and label names; without this flag such pushes get 400
    #[arg(long = "push.enable-utf8-names")]
    pub enable_utf8_names: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Persistence")]
pub(super) struct PersistenceFlags {
    /// Store metrics in the folder FILE.sluicegate; a FILE of the official Pushgateway is imported once and not changed
    #[arg(long = "persistence.file", value_name = "FILE", default_value = "", hide_default_value = true)]
    pub file: String,
    /// How often the log of a snapshot store is merged into its archives; acknowledged pushes are already in the log
    #[arg(long = "persistence.interval", value_name = "DURATION", default_value = "5m")]
    pub interval: GoDuration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Storage (instead of --persistence.file)")]
pub(super) struct StorageFlags {
    // `command` adds the help and the values, which come from the list of engines.
    #[arg(long = "storage.backend", value_name = "ENGINE")]
    pub backend: Option<String>,
    /// Folder of the store; it is created if it does not exist
    #[arg(long = "storage.path", value_name = "FOLDER", default_value = "", hide_default_value = true)]
    pub path: String,
    /// What an acknowledged push survives (process: a crash or kill of the gateway; disk: also a power failure)
    /// [default: process]
    // Without a clap default, because using the flag without a store is an error.
    #[arg(long = "storage.durability", value_name = "DURABILITY", value_enum)]
    pub durability: Option<Durability>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits (0 disables a limit)")]
pub(super) struct LimitFlags {
    /// Maximum size of a push body after decompression; larger bodies get 413
    #[arg(long = "push.body-bytes-max", value_name = "SIZE", default_value = "64MiB")]
    pub push_body_bytes_max: ByteSize,
    /// Maximum number of pushes waiting for one core; further pushes get 503
    #[arg(long = "push.queue-max", value_name = "COUNT", value_parser = parse_count, default_value_t = 4096)]
    pub push_queue_max: usize,
    /// Maximum number of groups; a push that would add another one gets 400
    #[arg(long = "push.groups-max", value_name = "COUNT", value_parser = parse_count, default_value_t = 0)]
    pub push_groups_max: usize,
    /// Maximum number of series in all groups, including push times; a push that would exceed it gets 400
    #[arg(long = "push.series-max", value_name = "COUNT", value_parser = parse_count, default_value_t = 0)]
    pub push_series_max: usize,
    /// Maximum size of the text of all groups; a push that would exceed it gets 400
    #[arg(long = "push.bytes-max", value_name = "SIZE", default_value = "0")]
    pub push_bytes_max: ByteSize,
    /// Maximum memory of requests and responses in progress; requests beyond it get 503, and a push that alone needs more gets 413
    /// [default: half of the available memory, at most 1GiB]
    // Without a clap default, because it depends on the machine.
    #[arg(long = "memory.in-flight-max", value_name = "SIZE")]
    pub memory_in_flight_max: Option<ByteSize>,
    /// Maximum size of the request line and headers; larger ones get 431
    #[arg(long = "web.head-bytes-max", value_name = "SIZE", default_value = "64KiB")]
    pub web_head_bytes_max: ByteSize,
    /// Maximum number of open connections, which the limit of open files can lower; beyond it, the connection that has waited
    /// longest for its client is closed, and if none waits, new ones get 503
    #[arg(long = "web.connections-max", value_name = "COUNT", value_parser = parse_count, default_value_t = 16384)]
    pub web_connections_max: usize,
    /// Maximum time for the request line and headers to arrive; slower clients get 408, or are disconnected
    #[arg(long = "web.head-timeout", value_name = "DURATION", default_value = "10s")]
    pub web_head_timeout: Timeout,
    /// Maximum time for the body of a request to arrive; slower clients get 408
    #[arg(long = "web.request-timeout", value_name = "DURATION", default_value = "60s")]
    pub web_request_timeout: Timeout,
    /// Maximum time for the client to read the response; slower clients are disconnected
    #[arg(long = "web.response-timeout", value_name = "DURATION", default_value = "120s")]
    pub web_response_timeout: Timeout,
    /// Minimum rate at which the client reads a response, in bytes per second over ten seconds; slower clients are disconnected
    #[arg(long = "web.response-rate-min", value_name = "SIZE", default_value = "1KiB")]
    pub web_response_rate_min: ByteSize,
    /// Maximum number of concurrent scrapes; a further one takes the place of the longest-stalled one, or gets 503
    #[arg(long = "web.scrapes-max", value_name = "COUNT", value_parser = parse_count, default_value_t = 32)]
    pub web_scrapes_max: usize,
    /// Maximum number of concurrent responses that list groups (the web page and the API); a further one takes the place of the
    /// longest-stalled one, or gets 503
    #[arg(long = "web.group-lists-max", value_name = "COUNT", value_parser = parse_count, default_value_t = 16)]
    pub web_group_lists_max: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub(super) struct RuntimeFlags {
    /// Number of cores to use; 0 means all that are available to the process. At most 16, or four times those available if that is more
    #[arg(long = "runtime.cores", value_name = "COUNT", value_parser = parse_count, default_value_t = 0)]
    pub cores: usize,
    /// Driver of network IO; auto uses io_uring if the kernel allows it, otherwise epoll
    #[arg(long = "runtime.driver", value_name = "DRIVER", value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct LogFlags {
    /// Lowest level that is logged
    #[arg(long = "log.level", value_name = "LEVEL", value_enum, ignore_case = true, default_value_t = LogLevel::Info)]
    pub level: LogLevel,
    /// Format of log lines; they are written to stderr
    #[arg(long = "log.format", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Logfmt)]
    pub format: LogFormat,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Help")]
struct HelpFlags {
    /// Print this help and exit; --help-long includes the commands for stores, --help-man is a manual page
    // The short form also for --help: the long form has a line for each value of a choice.
    #[arg(short, long, action = ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print the version and exit
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Details for debugging.
    Debug,
    /// Normal events, such as the start.
    Info,
    /// Events that may need attention.
    Warn,
    /// Failures.
    Error,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// The driver of network IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// io_uring if it is available, otherwise epoll.
    Auto,
    /// io_uring; the gateway does not start without it.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

/// Why the program exits instead of running.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// Help or version was requested: print this text to stdout and exit with status 0.
    Print(String),
    /// The flags are invalid: print this text to stderr and exit with status 1.
    Usage(String),
}

/// In the layout of clap's own errors.
impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::Usage(format!("error: {error}\n\nFor more information, try '--help'.\n"))
    }
}

/// In the layout of the official program.
impl From<ArgumentError> for Exit {
    fn from(error: ArgumentError) -> Self {
        Self::Usage(format!("sluicegate: error: {error}, try --help\n"))
    }
}

impl Flags {
    /// Parses the arguments; the first is the name of the program.
    pub(super) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        engines: &EngineChoices,
    ) -> Result<Self, Exit> {
        let command = command(engines);
        let mut arguments = arguments.into_iter();
        let program = arguments.next().unwrap_or_default();
        let flags = match normalized(arguments, &command, |file| fs::read(file))? {
            Request::Run(flags) => flags,
            Request::LongHelp => return Err(Exit::Print(help::long(engines))),
            Request::Manual => return Err(Exit::Print(help::manual(engines))),
            Request::Completions(words) => return Err(Exit::Print(help::completions(&words, engines))),
            Request::Script(shell) => return Err(Exit::Print(help::script(shell).to_owned())),
        };
        command
            .try_get_matches_from(std::iter::once(program).chain(flags))
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| match error.kind() {
                ErrorKind::DisplayHelp => Exit::Print(error.render().to_string()),
                ErrorKind::DisplayVersion => Exit::Print(BUILD.to_string()),
                _ => Exit::Usage(error.render().to_string()),
            })
    }
}

/// The derived command, the values from the list of engines, and a hidden `--no-x` for each switch `--x`. Using both is an error,
/// as in the official program.
pub(super) fn command(engines: &EngineChoices) -> Command {
    let command = Flags::command().mut_arg("backend", |argument| {
        argument
            .help(format!(
                "Storage engine [default: {} with --storage.path, otherwise memory]",
                engines.default_name()
            ))
            .value_parser(PossibleValuesParser::new(engines.values_with_memory()))
    });
    let switches: Vec<_> = command
        .get_arguments()
        .filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue))
        .filter_map(|argument| Some((argument.get_id().clone(), argument.get_long()?.to_owned())))
        .collect();
    command.args(switches.into_iter().map(|(id, long)| {
        clap::Arg::new(format!("no-{id}"))
            .long(format!("no-{long}"))
            .action(ArgAction::SetTrue)
            .conflicts_with(id)
            .hide(true)
    }))
}

fn parse_count(text: &str) -> Result<usize, CountError> {
    text.parse().map_err(|_| CountError)
}

/// The text is not a count.
#[derive(Debug, thiserror::Error)]
#[error("expected a whole number such as 0 or 1024")]
struct CountError;
