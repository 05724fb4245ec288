//! Flags as typed, configuration as meant. A leaf: uses nothing of the server.
//!
//! Read what was typed ([`flags`]), then say what it means ([`Config`]); after that nobody looks at a flag again. Nothing here
//! opens a file, resolves a name or looks at the machine.

mod build;
mod duration;
mod flags;
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
use std::time::Duration;

use clap::ValueEnum;

pub use build::{BUILD, BuildInfo};
pub use flags::{Driver, Exit, LogFormat, LogLevel};
pub use listen::{AddressError, ListenAddress};
pub use program::{Program, StorageCommand, StorePlace};
pub use store::{Durability, EngineChoices, StoreConfig};

use flags::Flags;

/// What the gateway shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; never empty.
    pub listen: Vec<ListenAddress>,
    /// Prefix of all routes, to be compared with decoded paths: empty, or with a slash in front and none behind.
    pub route_prefix: String,
    /// Prefix of the links on the web page, of the same form. It differs from `route_prefix` behind a proxy that rewrites paths.
    pub external_prefix: String,
    /// The path of the exposition, with `route_prefix` in it.
    pub telemetry_path: String,
    /// Whether `/-/quit` ends the program.
    pub lifecycle: bool,
    /// Whether the API can wipe all metrics.
    pub admin_api: bool,
    /// Whether a push is answered only after it was checked.
    pub consistency_check: bool,
    /// Whether names of metrics and labels may be any UTF-8.
    pub utf8_names: bool,
    /// Where groups are kept beyond the life of the process; `None`: nowhere.
    pub store: Option<StoreConfig>,
    /// What is refused because it would be too much.
    pub limits: Limits,
    /// How many cores to use; `None` means all that the process may use.
    pub cores: Option<NonZeroUsize>,
    /// What does the network IO.
    pub driver: Driver,
    /// The least severity that is logged.
    pub log_level: LogLevel,
    /// How log messages are written.
    pub log_format: LogFormat,
    /// Every flag by name with its value, as the status API and the web page show it. The route prefix and the engine are those
    /// in force.
    pub flags: BTreeMap<String, String>,
    /// Facts of the build.
    pub build: BuildInfo,
}

/// Limits; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body after decompression.
    pub push_body_bytes_max: Option<u64>,
    /// Pushes waiting for one core.
    pub push_queue_max: Option<NonZeroUsize>,
    /// Bytes of a request's head.
    pub web_head_bytes_max: Option<u64>,
    /// Open connections.
    pub web_connections_max: Option<NonZeroUsize>,
    /// For a request's head to arrive.
    pub web_head_timeout: Option<Duration>,
    /// For a whole request to arrive.
    pub web_request_timeout: Option<Duration>,
    /// For an answer to be read by the client.
    pub web_response_timeout: Option<Duration>,
    /// Scrapes answered at one time.
    pub web_scrapes_max: Option<NonZeroUsize>,
}

impl Config {
    /// Reads the arguments; the first is the name of the program.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        engines: &EngineChoices,
    ) -> Result<Self, Exit> {
        let flags = Flags::read(arguments.into_iter().map(Into::into), engines)?;
        if let Some((name, _)) = NOT_YET.iter().find(|(_, used)| used(&flags)) {
            return Err(Exit::usage(format_args!("--{name} is not available yet")));
        }
        Self::from_flags(&flags, engines)
    }

    fn from_flags(flags: &Flags, engines: &EngineChoices) -> Result<Self, Exit> {
        let external_path = url::path_of(&flags.web.external_url)
            .map_err(|error| Exit::usage(format_args!("--web.external-url: {error}")))?;
        let external_prefix = url::normal_prefix(&external_path);
        let route_prefix = match flags.web.route_prefix.as_str() {
            "" => external_prefix.clone(),
            prefix => url::normal_prefix(prefix),
        };
        let store = store::store(flags, engines)?;
        Ok(Self {
            telemetry_path: telemetry_path(&route_prefix, &flags.web.telemetry_path)?,
            flags: shown(flags, &route_prefix, store.as_ref()),
            listen: flags.web.listen_address.clone(),
            route_prefix,
            external_prefix,
            lifecycle: flags.web.enable_lifecycle,
            admin_api: flags.web.enable_admin_api,
            consistency_check: !flags.push.disable_consistency_check,
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

/// Whether a flag was used.
type Used = fn(&Flags) -> bool;

/// Flags that are read but have nothing behind them yet. To start without what they ask for could lose data or open a door, so
/// their use stops the start. A flag becomes available by leaving this table, and its help text.
const NOT_YET: [(&str, Used); 2] = [
    ("web.config.file", |flags| !flags.web.config_file.is_empty()),
    ("web.systemd-socket", |flags| flags.web.systemd_socket),
];

/// Where the exposition lives. It may not take the place of another route.
fn telemetry_path(route_prefix: &str, typed: &str) -> Result<String, Exit> {
    if route_prefix.is_empty() && !typed.starts_with('/') {
        return Err(Exit::usage("--web.telemetry-path must begin with a slash"));
    }
    let path = url::clean(&format!("{route_prefix}/{typed}"));
    let own = path.strip_prefix(route_prefix).unwrap_or(&path);
    let taken = matches!(own, "" | "/" | "/status" | "/-/healthy" | "/-/ready" | "/-/quit")
        || own.starts_with("/static/")
        || own.starts_with("/api/v1/");
    if taken {
        return Err(Exit::usage("--web.telemetry-path is the path of something else"));
    }
    Ok(path)
}

fn limits(flags: &Flags) -> Limits {
    let limits = &flags.limits;
    Limits {
        push_body_bytes_max: nonzero(limits.push_body_bytes_max.0),
        push_queue_max: NonZeroUsize::new(limits.push_queue_max),
        web_head_bytes_max: nonzero(limits.web_head_bytes_max.0),
        web_connections_max: NonZeroUsize::new(limits.web_connections_max),
        web_head_timeout: limits.web_head_timeout.non_negative().and_then(nonzero),
        web_request_timeout: limits.web_request_timeout.non_negative().and_then(nonzero),
        web_response_timeout: limits.web_response_timeout.non_negative().and_then(nonzero),
        web_scrapes_max: NonZeroUsize::new(limits.web_scrapes_max),
    }
}

fn nonzero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn shown(flags: &Flags, route_prefix: &str, store: Option<&StoreConfig>) -> BTreeMap<String, String> {
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
        ("web.head-bytes-max", limits.web_head_bytes_max.to_string()),
        ("web.connections-max", limits.web_connections_max.to_string()),
        ("web.head-timeout", limits.web_head_timeout.to_string()),
        ("web.request-timeout", limits.web_request_timeout.to_string()),
        ("web.response-timeout", limits.web_response_timeout.to_string()),
        ("web.scrapes-max", limits.web_scrapes_max.to_string()),
        ("runtime.cores", runtime.cores.to_string()),
        ("runtime.driver", word(&runtime.driver)),
        ("log.level", word(&log.level)),
        ("log.format", word(&log.format)),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The word by which a choice is typed.
fn word(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
