//! The executor: one thread per core with a monoio runtime on io_uring or epoll, and the interface to the operating system.
//!
//! This is the only module that names monoio, so monoio can be replaced by rewriting this folder.

pub mod activation;
pub mod address;
pub mod budget;
pub mod descriptors;
pub mod listen;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod permits;
pub(crate) mod scheduling;
pub(crate) mod service_manager;
pub mod shutdown;
pub(crate) mod stalls;
mod system;
pub(crate) mod tcp;
pub mod threads;
mod turns;
mod unix_listener;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use monoio::task::JoinHandle;

pub(crate) use system::socket;

/// Starts a task on the current core. It runs to its end even if its handle is dropped.
#[expect(clippy::disallowed_methods, reason = "this is the replacement")]
pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    monoio::spawn(turns::TakingTurns::new(future))
}

/// Lets every task that is ready on this core run before the caller continues.
pub(crate) async fn yield_now() {
    turns::wait_for_others().await;
}

/// A number that changes with each poll of a task on this core.
pub(crate) fn poll_number() -> u32 {
    turns::poll_number()
}

/// Waits on the current core's timer.
#[expect(clippy::disallowed_methods, reason = "this is the replacement")]
pub(crate) async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Waits for a future, but no longer than `duration`. Returns `None` on timeout.
#[expect(clippy::disallowed_methods, reason = "this is the replacement")]
pub(crate) async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(duration, future).await.ok()
}

/// The wall-clock time in Unix seconds. A clock before 1970 counts as the first second of 1970, because 0 means never.
pub(crate) fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1.0, |since| since.as_secs_f64())
}
