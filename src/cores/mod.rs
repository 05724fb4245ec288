//! One thread per core: how a command reaches the shard of its group.
//!
//! Each core has one shard, owned by its [`shard_task::ShardTask`]. A command goes through a [`mailbox`] to the home core of its
//! group. Jobs that would hold a core too long run on [`workers`].

pub(crate) mod command;
pub(crate) mod leases;
pub(crate) mod mailbox;
mod merging;
pub(crate) mod metrics;
mod push_attempt;
mod shard_access;
pub(crate) mod shard_task;
pub(crate) mod slices;
pub(crate) mod workers;
