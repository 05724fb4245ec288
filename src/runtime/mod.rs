//! The executor: threads with monoio runtimes, sockets, signals. The only module that names monoio.

pub mod listen;
pub mod scheduling;
pub mod shutdown;
pub mod socket;
pub mod threads;
