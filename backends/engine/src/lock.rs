//! The lock of a store: one process, and in it one engine, at a time.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::EngineError;

/// A process that this one or the last user is just starting has a copy of every lock for a moment; one that is just
/// ending, too.
const PATIENCE: Duration = Duration::from_millis(500);

/// A locked file. Free again when it is dropped, and when the process ends, however that happens.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a file, which is made if it does not exist. What is in it does not matter.
    ///
    /// # Errors
    /// [`EngineError::InUse`] if somebody has it and keeps it for half a second.
    pub fn take(path: &Path) -> Result<Self, EngineError> {
        let error = |doing, source| EngineError::Io { file: path.to_owned(), doing, source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|source| error("open", source))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => sleep(Duration::from_millis(5)),
                Err(Errno::WOULDBLOCK) => return Err(EngineError::InUse { file: path.to_owned() }),
                Err(errno) => return Err(error("lock", errno.into())),
            }
        }
    }
}
