//! Storage: how groups survive the end of the process.
//!
//! * [`engines`] — the list of engines, and opening a store.
//! * `store`, `writer`, `outbox`, `completion` — how changes get from the cores to the engine, and the thread that commits them.
//! * `record_writer`, `stored_group` — a group as a record, and back.
//! * `restore` — from the store into the shards, when the gateway starts.
//! * `recovery` — all groups from memory, for the new files that the engine writes after a failure.
//! * [`import`] — the persistence file of the official program.
//! * [`command`] — `sluicegate storage inspect|verify|migrate`.

pub mod command;
pub(crate) mod completion;
pub mod engines;
pub mod import;
pub(crate) mod metrics;
pub(crate) mod outbox;
mod progress;
pub(crate) mod record_writer;
mod recovery;
mod restore;
pub(crate) mod store;
pub(crate) mod stored_group;
mod writer;
