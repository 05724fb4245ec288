//! Command line and configuration. A leaf: uses no other module of the server.
//!
//! [`arguments`] splits the command line into flags and values, [`flags`] reads the values, and the rest is checked and converted into
//! a [`Config`]; nothing else reads a flag. Apart from `@FILE` arguments, this module does not open files, resolve names or examine
//! the machine.

mod arguments;
mod build;
mod duration;
mod error;
mod flags;
mod help;
mod listen;
mod program;
mod size;
mod store;
mod url;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

pub use build::{BUILD, BuildInfo};
pub use duration::GoDuration;
pub use flags::{Driver, Exit, LogFormat, LogLevel};
pub use listen::{AddressError, ListenAddress};
pub use program::{Program, StorageCommand, StorePlace};
pub use store::{Durability, EngineChoices, StoreConfig};

use error::ConfigError;
use flags::Flags;

/// The configuration of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The addresses to listen on; never empty.
    pub listen: Vec<ListenAddress>,
    /// Whether to use the sockets that systemd passes instead of `listen`.
    pub systemd_socket: bool,
    /// The file that configures TLS, authentication and headers; `None` for plain HTTP for everybody.
    pub web_config_file: Option<PathBuf>,
    /// The prefix of all routes, decoded: empty, or with a leading slash and without a trailing one.
    pub route_prefix: String,
    /// The prefix of the links on the web page, in the same form. Behind a proxy that rewrites paths, it differs from
    /// `route_prefix`.
    pub external_prefix: String,
    /// The path of the exposition, including `route_prefix`.
    pub telemetry_path: String,
    /// Whether `/-/quit` is enabled.
    pub lifecycle: bool,
    /// Whether `/api/v1/admin/wipe` is enabled.
    pub admin_api: bool,
    /// Whether an inconsistent push gets 400; otherwise it gets 202. It is not applied in either case.
    pub consistency_check: bool,
    /// Whether pushes with the same series as an earlier one are recognised without parsing them.
    pub shapes: bool,
    /// Whether metric and label names may be any UTF-8.
    pub utf8_names: bool,
    /// The store of groups; `None` if they are in memory only.
    pub store: Option<StoreConfig>,
    /// Limits of requests and connections.
    pub limits: Limits,
    /// The number of cores to use; `None` means all that are available to the process.
    pub cores: Option<NonZeroUsize>,
    /// The driver of network IO.
    pub driver: Driver,
    /// The lowest level that is logged.
    pub log_level: LogLevel,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The value of each flag by its name, for the status API and the web page. The route prefix and the engine are those in
    /// effect.
    pub flags: BTreeMap<String, String>,
    /// Information about the build.
    pub build: BuildInfo,
}

/// Limits of requests and connections; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of a push body after decompression.
    pub push_body_bytes_max: Option<u64>,
    /// Pushes waiting for one core.
    pub push_queue_max: Option<NonZeroUsize>,
    /// Groups.
    pub push_groups_max: Option<NonZeroUsize>,
    /// Series in all groups, including push times.
    pub push_series_max: Option<NonZeroUsize>,
    /// Size of the text of all groups.
    pub push_bytes_max: Option<u64>,
    /// Memory of everything in flight.
    pub memory_in_flight: MemoryLimit,
    /// Size of the request line and headers.
    pub web_head_bytes_max: Option<u64>,
    /// Open connections.
    pub web_connections_max: Option<NonZeroUsize>,
    /// Time for the request line and headers to arrive.
    pub web_head_timeout: Option<Duration>,
    /// Time for the body of a request to arrive.
    pub web_request_timeout: Option<Duration>,
    /// Time for the client to read the response.
    pub web_response_timeout: Option<Duration>,
    /// Bytes per second that the client must read of a response.
    pub web_response_rate_min: Option<u64>,
    /// Concurrent scrapes.
    pub web_scrapes_max: Option<NonZeroUsize>,
    /// Concurrent responses that list groups.
    pub web_group_lists_max: Option<NonZeroUsize>,
}

/// A limit of memory whose default depends on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// A share of the memory that is available to the process.
    Automatic,
    /// That many bytes.
    Bytes(u64),
    /// No limit.
    Unlimited,
}

impl MemoryLimit {
    fn of(flag: Option<size::ByteSize>) -> Self {
        flag.map_or(Self::Automatic, |size| size.limit().map_or(Self::Unlimited, Self::Bytes))
    }

    /// The limit in bytes on a machine with that much memory for the process; `None` means no limit.
    pub fn bytes_max(self, available_bytes: Option<u64>) -> Option<u64> {
        match self {
            Self::Automatic => Some(
                available_bytes.map_or(AUTOMATIC_BYTES_MAX, |bytes| (bytes / 2).min(AUTOMATIC_BYTES_MAX)),
            ),
            Self::Bytes(bytes) => Some(bytes),
            Self::Unlimited => None,
        }
    }
}

/// The largest limit that is chosen automatically. The rest of a large machine is for groups.
const AUTOMATIC_BYTES_MAX: u64 = 1 << 30;

impl Config {
    /// Parses the arguments; the first is the name of the program.
    ///
    /// # Errors
    /// If help or the version was requested, or the flags are invalid.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        engines: &EngineChoices,
    ) -> Result<Self, Exit> {
        let flags = Flags::parse(arguments.into_iter().map(Into::into), engines)?;
        Ok(Self::from_flags(&flags, engines)?)
    }

    fn from_flags(flags: &Flags, engines: &EngineChoices) -> Result<Self, ConfigError> {
        let external_path = url::path_of(&flags.web.external_url)
            .map_err(|source| ConfigError::ExternalUrl { value: flags.web.external_url.clone(), source })?;
        let external_prefix = url::normal_prefix(&external_path);
        let route_prefix = match flags.web.route_prefix.as_str() {
            "" => external_prefix.clone(),
            prefix => url::normal_prefix(prefix),
        };
        let store = store::store(flags, engines)?;
        Ok(Self {
            telemetry_path: telemetry_path(&route_prefix, &flags.web.telemetry_path)?,
            flags: effective_flags(flags, &route_prefix, store.as_ref()),
            listen: flags.web.listen_address.clone(),
            systemd_socket: flags.web.systemd_socket,
            web_config_file: Some(&flags.web.config_file).filter(|path| !path.is_empty()).map(PathBuf::from),
            route_prefix,
            external_prefix,
            lifecycle: flags.web.enable_lifecycle,
            admin_api: flags.web.enable_admin_api,
            consistency_check: !flags.push.disable_consistency_check,
            shapes: !flags.push.disable_shapes,
            utf8_names: flags.push.enable_utf8_names,
            store,
            limits: limits(flags),
            cores: NonZeroUsize::new(flags.runtime.cores),
            driver: flags.runtime.driver,
            log_level: flags.log.level,
            log_format: flags.log.format,
            build: BUILD,
        })
    }
}

/// Returns the path of the exposition, which must not be the path of another endpoint.
fn telemetry_path(route_prefix: &str, value: &str) -> Result<String, ConfigError> {
    if route_prefix.is_empty() && !value.starts_with('/') {
        return Err(ConfigError::TelemetryPathWithoutSlash(value.to_owned()));
    }
    let path = url::clean(&format!("{route_prefix}/{value}"));
    let own = path.strip_prefix(route_prefix).unwrap_or(&path);
    let is_in_use = matches!(own, "" | "/" | "/status" | "/-/healthy" | "/-/ready" | "/-/quit")
        || own.starts_with("/static/")
        || own.starts_with("/api/v1/");
    if is_in_use {
        return Err(ConfigError::TelemetryPathInUse(value.to_owned()));
    }
    Ok(path)
}

fn limits(flags: &Flags) -> Limits {
    let limits = &flags.limits;
    Limits {
        push_body_bytes_max: limits.push_body_bytes_max.limit(),
        push_queue_max: NonZeroUsize::new(limits.push_queue_max),
        push_groups_max: NonZeroUsize::new(limits.push_groups_max),
        push_series_max: NonZeroUsize::new(limits.push_series_max),
        push_bytes_max: limits.push_bytes_max.limit(),
        memory_in_flight: MemoryLimit::of(limits.memory_in_flight_max),
        web_head_bytes_max: limits.web_head_bytes_max.limit(),
        web_connections_max: NonZeroUsize::new(limits.web_connections_max),
        web_head_timeout: limits.web_head_timeout.limit(),
        web_request_timeout: limits.web_request_timeout.limit(),
        web_response_timeout: limits.web_response_timeout.limit(),
        web_response_rate_min: limits.web_response_rate_min.limit(),
        web_scrapes_max: NonZeroUsize::new(limits.web_scrapes_max),
        web_group_lists_max: NonZeroUsize::new(limits.web_group_lists_max),
    }
}

/// The value of each flag by its name, as the status API and the web page show it.
fn effective_flags(
    flags: &Flags,
    route_prefix: &str,
    store: Option<&StoreConfig>,
) -> BTreeMap<String, String> {
    let Flags { web, push, persistence, storage, limits, runtime, log, .. } = flags;
    let listen: Vec<String> = web.listen_address.iter().map(ToString::to_string).collect();
    let entries = [
        ("web.listen-address", listen.join(",")),
        ("web.systemd-socket", web.systemd_socket.to_string()),
        ("web.config.file", web.config_file.clone()),
        ("web.telemetry-path", web.telemetry_path.clone()),
        ("web.external-url", web.external_url.clone()),
        ("web.route-prefix", route_prefix.to_owned()),
        ("web.enable-lifecycle", web.enable_lifecycle.to_string()),
        ("web.enable-admin-api", web.enable_admin_api.to_string()),
        ("push.disable-consistency-check", push.disable_consistency_check.to_string()),
        ("push.enable-utf8-names", push.enable_utf8_names.to_string()),
        ("persistence.file", persistence.file.clone()),
        ("persistence.interval", persistence.interval.to_string()),
        ("storage.backend", store::backend_in_effect(store).to_owned()),
        ("storage.path", storage.path.clone()),
        ("storage.durability", storage.durability.unwrap_or_default().name().to_owned()),
        ("push.body-bytes-max", limits.push_body_bytes_max.to_string()),
        ("push.queue-max", limits.push_queue_max.to_string()),
        ("push.groups-max", limits.push_groups_max.to_string()),
        ("push.series-max", limits.push_series_max.to_string()),
        ("push.bytes-max", limits.push_bytes_max.to_string()),
        (
            "memory.in-flight-max",
            limits.memory_in_flight_max.map_or_else(|| "auto".to_owned(), |max| max.to_string()),
        ),
        ("web.head-bytes-max", limits.web_head_bytes_max.to_string()),
        ("web.connections-max", limits.web_connections_max.to_string()),
        ("web.head-timeout", limits.web_head_timeout.to_string()),
        ("web.request-timeout", limits.web_request_timeout.to_string()),
        ("web.response-timeout", limits.web_response_timeout.to_string()),
        ("web.response-rate-min", limits.web_response_rate_min.to_string()),
        ("web.scrapes-max", limits.web_scrapes_max.to_string()),
        ("web.group-lists-max", limits.web_group_lists_max.to_string()),
        ("runtime.cores", runtime.cores.to_string()),
        ("runtime.driver", value_name(&runtime.driver)),
        ("log.level", value_name(&log.level)),
        ("log.format", value_name(&log.format)),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The value of a flag that selects this variant.
fn value_name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
