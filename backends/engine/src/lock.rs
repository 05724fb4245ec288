//! The lock of a store: one process, and one engine in it, at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
    file: File,
    path: PathBuf,
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
                Ok(()) => return Ok(Self { file, path: path.to_owned() }),
                Err(TryLockError::WouldBlock) if started.elapsed() < RETRY_TIME => sleep(RETRY_INTERVAL),
                Err(TryLockError::WouldBlock) => return Err(EngineError::InUse { file: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(error("lock", source)),
            }
        }
    }

    /// Checks that the path still names the locked file: nobody removed, renamed or replaced it, or a folder above it. Costs two
    /// calls of `stat`.
    ///
    /// # Errors
    /// [`EngineError::Moved`] if it does not.
    pub fn check(&self) -> Result<(), EngineError> {
        let error = |source| EngineError::Io { file: self.path.clone(), doing: "find", source };
        let locked = self.file.metadata().map_err(error)?;
        match fs::metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => Ok(()),
            Err(source) if !is_about_the_path(&source) => Err(error(source)),
            Ok(_) | Err(_) => Err(EngineError::Moved { file: self.path.clone() }),
        }
    }
}

/// Whether there is no file under the path, as opposed to a failure to look.
fn is_about_the_path(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_notices_that_its_path_names_another_file() {
        let folder = tempfile::tempdir().expect("a folder for a test");
        let (store, moved) = (folder.path().join("store"), folder.path().join("moved"));
        fs::create_dir(&store).expect("a folder can be created");
        let lock = Lock::take(&store.join("lock")).expect("the lock is free");
        let is_moved = || matches!(lock.check(), Err(EngineError::Moved { .. }));
        lock.check().expect("nothing has changed");
        fs::rename(&store, &moved).expect("the folder can be renamed");
        assert!(is_moved(), "the folder was renamed");
        fs::create_dir(&store).expect("a folder can be created");
        File::create(store.join("lock")).expect("a file can be created");
        assert!(is_moved(), "the folder was replaced");
        fs::remove_dir_all(&store).expect("the folder can be removed");
        fs::rename(&moved, &store).expect("the folder can be renamed");
        lock.check().expect("the folder is back");
        fs::remove_dir_all(&store).expect("the folder can be removed");
        assert!(is_moved(), "the folder was removed");
    }
}
