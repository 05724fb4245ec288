//! Stores from the outside: which engine is opened, what is taken over from the official program, and what an operator does
//! with a store while no gateway uses it.
//!
//! * [`engines`] — from a configured store to an open engine.
//! * [`import`] — the persistence file of the official program → records.
//! * [`command`] — `sluicegate storage inspect|verify|migrate`.
//!
//! Who writes while the gateway runs is the runtime's business; what a record says is the shards'. Nothing here knows HTTP.

pub mod command;
pub(crate) mod completion;
pub mod engines;
pub mod import;
pub(crate) mod metrics;
pub(crate) mod outbox;
mod progress;
pub(crate) mod record_writer;
mod restore;
pub(crate) mod store;
pub(crate) mod stored_group;
mod writer;
