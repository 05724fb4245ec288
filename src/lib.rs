//! sluicegate: a drop-in replacement for the Prometheus Pushgateway.
//!
//! The map, in dependency order: a room uses those above it, never those below.
//!
//! * [`exposition`] — PURE. bytes ↔ metric families: parser, numbers, names, rendering.
//! * [`encoding`] — PURE. content codings: decodes request bodies, encodes scrape responses.
//! * [`shard`] — PURE. The state of one core: groups, segments, the push rules, the consistency check.
//! * [`storage`] — opening storage engines, taking over the official persistence file, `sluicegate storage …`.
//! * [`api`] — routes, headers and status codes; the JSON API; the web page.
//! * [`config`] — flags as typed, configuration as meant. A leaf.
//! * [`telemetry`] — the gateway's own metrics and logs. A leaf.
//! * [`runtime`] — the only place that knows monoio, threads, sockets, clocks and signals.

pub mod api;
pub mod config;
pub mod encoding;
pub mod exposition;
pub mod runtime;
pub mod shard;
pub mod storage;
pub mod telemetry;
