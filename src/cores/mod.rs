//! One thread per core: messages between cores, the task that owns a shard, leases, worker threads.

pub mod leases;
pub mod mailbox;
pub(crate) mod metrics;
pub mod shard_task;
pub mod workers;
