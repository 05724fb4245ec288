//! sluicegate: a drop-in replacement for the Prometheus Pushgateway.

pub mod config;
pub mod cores;
pub mod encoding;
pub mod exposition;
pub mod handlers;
pub mod http;
pub mod runtime;
pub mod scrape;
pub mod server;
pub mod shard;
pub mod storage;
pub mod telemetry;
