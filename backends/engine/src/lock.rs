//! The lock of a store: one process, and one engine in it, at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::EngineError;

/// How long to retry. A process that is just being started by this one or by the last user has a copy of every lock for a
/// moment; a process that is just ending has it, too.
const RETRY_TIME: Duration = Duration::from_millis(500);
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A locked file. It is released when the value is dropped and when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a file and creates it if necessary. Its content does not matter.
    ///
    /// # Errors
    /// [`EngineError::InUse`] if it stays locked for half a second.
    pub fn take(path: &Path) -> Result<Self, EngineError> {
        let error = |doing, source| EngineError::Io { file: path.to_owned(), doing, source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|source| error("open", source))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if started.elapsed() < RETRY_TIME => sleep(RETRY_INTERVAL),
                Err(TryLockError::WouldBlock) => return Err(EngineError::InUse { file: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(error("lock", source)),
            }
        }
    }
}
