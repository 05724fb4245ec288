//! sluicegate: a drop-in replacement for the Prometheus Pushgateway.
//!
//! The modules in dependency order; a module never refers to one below it in this list. `docs/architecture.md` says which question each
//! of them answers.
//!
//! * [`config`] and [`telemetry`]: flags; the gateway's own metrics and logs.
//! * [`exposition`]: the text and protobuf formats. No IO, no state.
//! * [`encoding`]: content codings of bodies and scrapes.
//! * [`shard`]: the state of one core and the push rules. No IO, no clock, no waiting.
//! * [`runtime`]: the executor. The only module that names monoio.
//! * [`web_config`]: the file of `--web.config.file`, and TLS.
//! * [`storage`]: how groups survive the end of the process.
//! * `cores`: commands between cores, and the task that owns a shard.
//! * [`scrape`]: from the snapshots of all cores to the body of a scrape.
//! * [`http`]: connections, with their limits and deadlines.
//! * [`handlers`]: one file per endpoint.
//! * [`server`]: start-up and composition.
//!
//! Beside them is `reference`, a slow and simple gateway for tests and for the fuzz target `shard`.
//!
//! The program is the only user of this library. Items are public for its tests, benches and fuzz targets.

pub mod config;
mod cores;
pub mod encoding;
pub mod exposition;
pub mod handlers;
pub mod http;
#[cfg(any(test, feature = "reference"))]
#[doc(hidden)]
pub mod reference;
pub mod runtime;
pub mod scrape;
pub mod server;
pub mod shard;
pub mod storage;
pub mod telemetry;
pub mod web_config;
