//! What the engine does after errors and panics: it stops accepting commits, and threads do not affect each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sluicegate_engine::{EngineError, panic_message};

/// The error after which the engine accepts no more commits, because it is unknown what is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    reason: OnceLock<String>,
}

impl Failure {
    /// Makes all later commits fail. The first reason is reported; later ones are consequences.
    pub fn set(&self, reason: &impl ToString) {
        let _ = self.reason.set(reason.to_string());
    }

    /// Returns [`EngineError::Failed`] if the engine has failed.
    pub fn check(&self) -> Result<(), EngineError> {
        match self.reason.get() {
            Some(reason) => Err(EngineError::Failed { why: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// Runs `task` and returns the message of its panic, if it panics.
///
/// The caller must treat a panic like a failed operation: `task` may have stopped anywhere.
pub(crate) fn catch_panic<T>(task: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(task)).map_err(|panic| panic_message(&*panic).to_owned())
}

/// Locks a mutex, also after a panic: the values behind this engine's mutexes are replaced as a whole, so they stay consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
