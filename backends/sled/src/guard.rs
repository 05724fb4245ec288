//! Turns sled's errors and panics into errors of the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sluicegate_engine::{EngineError, panic_message};

/// What the operator can do when files are damaged.
pub(crate) const REMEDY: &str = "Restore the folder from a backup, or move it away to start with an empty store; \
     sled may already have changed files when it opened them";

/// Calls sled. A panic becomes an error.
pub(crate) fn guarded<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, EngineError> {
    // No state of the engine is half changed: after an error it accepts no further batch.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) if is_from_the_system(&source) => {
            Err(EngineError::Io { file: path.to_owned(), doing: "use the database", source })
        }
        Ok(Err(error)) => Err(damaged(path, &format!("sled failed: {error}"))),
        Err(panic) => Err(damaged(path, &format!("sled panicked: {}", panic_message(&*panic)))),
    }
}

/// Whether the operating system returned the error. sled also uses this kind of error for damaged files.
fn is_from_the_system(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some()
}

pub(crate) fn damaged(path: &Path, what: &str) -> EngineError {
    EngineError::Damaged { file: path.to_owned(), what: what.to_owned(), remedy: REMEDY.to_owned() }
}
