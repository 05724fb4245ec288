//! Flags as typed: names, defaults, help and syntax. What they mean together is said in the parent module.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum, error::ErrorKind};

use super::build::BUILD;
use super::duration::GoDuration;
use super::listen::ListenAddress;
use super::size::ByteSize;
use super::store::{Durability, EngineChoices};

/// Everything that can be typed. The official flags come first, with the official names and defaults.
#[derive(Debug, Parser)]
#[command(
    name = "sluicegate",
    version = BUILD.version,
    about = "A push gateway for Prometheus that replaces the official one without a change to its clients.",
    after_help = "Durations are written as 300ms, 30s, 5m or 1h30m, sizes as 65536, 64KiB or 64MiB. \
                  A switch can be negated: --no-web.enable-lifecycle.",
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
    /// Where to listen. May be given several times.
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = ":9091")]
    pub listen_address: Vec<ListenAddress>,
    /// Listen on sockets passed by systemd instead. [not available yet]
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,
    /// File that configures TLS and authentication. [not available yet]
    #[arg(long = "web.config.file", value_name = "FILE", default_value = "", hide_default_value = true)]
    pub config_file: String,
    /// Path under which metrics are exposed. Pushing stays at /metrics.
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    pub telemetry_path: String,
    /// URL under which the gateway is reached from outside.
    #[arg(long = "web.external-url", value_name = "URL", default_value = "", hide_default_value = true)]
    pub external_url: String,
    /// Prefix of all paths. Without one, the path of the external URL.
    #[arg(long = "web.route-prefix", value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub route_prefix: String,
    /// Let PUT and POST to /-/quit end the program.
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Let PUT to /api/v1/admin/wipe delete all metrics.
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin_api: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Pushing")]
pub(super) struct PushFlags {
    /// Answer 202 to a push before it has been checked. An inconsistent push is still not applied.
    #[arg(long = "push.disable-consistency-check")]
    pub disable_consistency_check: bool,
    /// Allow any UTF-8 in names of metrics and labels.
    #[arg(long = "push.enable-utf8-names")]
    pub enable_utf8_names: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Persistence")]
pub(super) struct PersistenceFlags {
    /// Keep metrics in the folder FILE.sluicegate. A FILE of the official program is taken over once, and left as it is.
    #[arg(long = "persistence.file", value_name = "FILE", default_value = "", hide_default_value = true)]
    pub file: String,
    /// How often the log is folded into the archives, if anything is in it. Pushes are kept before they are answered.
    #[arg(long = "persistence.interval", value_name = "DURATION", default_value = "5m")]
    pub interval: GoDuration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Storage (instead of --persistence.file)")]
pub(super) struct StorageFlags {
    // `command` adds the help and the values: they come from the list of engines.
    #[arg(long = "storage.backend", value_name = "ENGINE")]
    pub backend: Option<String>,
    /// The folder in which metrics are kept.
    #[arg(long = "storage.path", value_name = "FOLDER", default_value = "", hide_default_value = true)]
    pub path: String,
    /// What a push survives that was answered: the death of the process, or a loss of power, too. Without it process.
    // No default here: that it was typed matters.
    #[arg(long = "storage.durability", value_name = "DURABILITY", value_enum)]
    pub durability: Option<Durability>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits (0 switches one off)")]
pub(super) struct LimitFlags {
    /// The largest body of a push, after decompression. Beyond it: 413.
    #[arg(long = "push.body-bytes-max", value_name = "SIZE", default_value = "64MiB")]
    pub push_body_bytes_max: ByteSize,
    /// How many pushes may wait for one core. Beyond it: 503.
    #[arg(long = "push.queue-max", value_name = "COUNT", default_value_t = 4096)]
    pub push_queue_max: usize,
    /// The largest request line with headers. Beyond it: 431.
    #[arg(long = "web.head-bytes-max", value_name = "SIZE", default_value = "64KiB")]
    pub web_head_bytes_max: ByteSize,
    /// How many connections may be open. Beyond it: 503.
    #[arg(long = "web.connections-max", value_name = "COUNT", default_value_t = 16384)]
    pub web_connections_max: usize,
    /// How long the head of a request may take to arrive. Beyond it: 408, or the connection is closed.
    #[arg(long = "web.head-timeout", value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub web_head_timeout: GoDuration,
    /// How long a whole request may take to arrive. Beyond it: 408.
    #[arg(long = "web.request-timeout", value_name = "DURATION", default_value = "60s", value_parser = timeout)]
    pub web_request_timeout: GoDuration,
    /// How long a client may take to read an answer. Beyond it the connection is closed.
    #[arg(long = "web.response-timeout", value_name = "DURATION", default_value = "120s", value_parser = timeout)]
    pub web_response_timeout: GoDuration,
    /// How many scrapes may be answered at one time. Beyond it: 503.
    #[arg(long = "web.scrapes-max", value_name = "COUNT", default_value_t = 32)]
    pub web_scrapes_max: usize,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub(super) struct RuntimeFlags {
    /// How many cores to use; 0 means all that the process may use.
    #[arg(long = "runtime.cores", value_name = "COUNT", default_value_t = 0)]
    pub cores: usize,
    /// What does the network IO; auto takes io_uring where the kernel allows it.
    #[arg(long = "runtime.driver", value_name = "DRIVER", value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub(super) struct LogFlags {
    /// Log messages of this severity and above.
    #[arg(long = "log.level", value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub level: LogLevel,
    /// How log messages are written.
    #[arg(long = "log.format", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Logfmt)]
    pub format: LogFormat,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Help")]
struct HelpFlags {
    /// Show this help and leave.
    // The short form for both: the long one repeats each value of a choice on a line of its own.
    #[arg(short, long, action = ArgAction::HelpShort)]
    help: Option<bool>,
    /// Show the version and leave.
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The least severity that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to know of a healthy gateway.
    Info,
    /// What may need attention.
    Warn,
    /// What failed.
    Error,
}

/// How a log message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// What does the network IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// io_uring where it can be had, else epoll.
    Auto,
    /// io_uring, or no start.
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

impl Exit {
    /// A usage error in one sentence.
    pub(super) fn usage(sentence: impl std::fmt::Display) -> Self {
        Self::Usage(format!("sluicegate: error: {sentence}, try --help\n"))
    }
}

impl Flags {
    /// Reads the arguments; the first is the name of the program.
    pub(super) fn read(
        arguments: impl IntoIterator<Item = OsString>,
        engines: &EngineChoices,
    ) -> Result<Self, Exit> {
        command(engines)
            .try_get_matches_from(arguments)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| match error.kind() {
                ErrorKind::DisplayHelp => Exit::Print(error.render().to_string()),
                ErrorKind::DisplayVersion => Exit::Print(BUILD.to_string()),
                _ => Exit::Usage(error.render().to_string()),
            })
    }
}

/// The derived command, plus a hidden `--no-x` for each switch `--x`. Giving both is an error, as in the official program.
pub(super) fn command(engines: &EngineChoices) -> Command {
    let command = Flags::command().mut_arg("backend", |argument| {
        argument
            .help(format!(
                "Storage engine. The default is {} with --storage.path, memory without",
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

fn timeout(text: &str) -> Result<GoDuration, String> {
    let duration: GoDuration =
        text.parse().map_err(|error: super::duration::DurationError| error.to_string())?;
    duration.non_negative().map(|_| duration).ok_or_else(|| "a timeout cannot be negative".to_owned())
}
