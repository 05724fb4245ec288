//! What keeps sled's panics and errors from doing harm.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sluicegate_engine::EngineError;

/// What an operator can do when files are damaged.
pub(crate) const WAY_OUT: &str = "Put the folder back from a copy, or move it away to start with nothing; \
     sled may already have changed files when it opened them";

/// Calls sled. A panic is an error like others.
pub(crate) fn guarded<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, EngineError> {
    // Nothing of ours is half changed: after an error the engine takes no further batch.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) if is_refused(&source) => {
            Err(EngineError::Io { file: path.to_owned(), doing: "use the database", source })
        }
        Ok(Err(error)) => Err(damaged(path, &format!("sled says: {error}"))),
        Err(panic) => Err(damaged(path, &format!("sled panicked: {}", message(&*panic)))),
    }
}

/// Whether the operating system refused. Other errors of that kind are sled's own words for damaged files.
fn is_refused(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some()
}

pub(crate) fn damaged(path: &Path, what: &str) -> EngineError {
    EngineError::Damaged { file: path.to_owned(), what: what.to_owned(), way_out: WAY_OUT.to_owned() }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}
