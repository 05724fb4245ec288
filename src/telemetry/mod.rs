//! The gateway's own metrics and logs. A leaf: uses nothing of the server.
//!
//! Numbers only: how metrics are written on the wire is not known here.

pub mod log;
pub mod metrics;
pub mod names;
mod summary;
mod utc;
