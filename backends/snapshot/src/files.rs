//! File operations in one folder, behind a trait so that tests can make any of them fail or lose power after it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicegate_engine::{EngineError, Lock};

#[cfg(test)]
pub(crate) mod simulated_disk;

/// The suffix of files that do not count until they are renamed.
pub(crate) const TEMPORARY_SUFFIX: &str = ".aside";

const LOCK_NAME: &str = "lock";

/// The operations in one folder.
pub(crate) trait FileSystem: Send + Sync {
    fn path(&self) -> &Path;
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>>;
    /// Creates an empty file, or empties an existing one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
    /// Checks that the path still names this folder.
    fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// An open file.
pub(crate) trait RawFile: Send + Sync {
    fn length(&self) -> io::Result<u64>;
    /// Fills `bytes`; a file that ends before is an error.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder on disk, locked against other processes until this is dropped.
pub(crate) struct Disk {
    folder: PathBuf,
    lock: Lock,
}

impl Disk {
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        fs::create_dir_all(folder).map_err(|source| {
            let file = folder.to_owned();
            EngineError::Io { file, doing: "create the folder", source }
        })?;
        Ok(Self { folder: folder.to_owned(), lock: Lock::take(&folder.join(LOCK_NAME))? })
    }
}

impl FileSystem for Disk {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn names(&self) -> io::Result<Vec<String>> {
        // The store has no names that are not UTF-8.
        let names = fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(self.folder.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.folder)?.sync_all()
    }

    fn check(&self) -> Result<(), EngineError> {
        self.lock.check()
    }
}

impl RawFile for fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        // Includes the length, as far as reading the content needs it.
        self.sync_data()
    }
}

/// A folder whose errors name the file.
#[derive(Clone)]
pub(crate) struct Folder {
    files: Arc<dyn FileSystem>,
}

impl Folder {
    pub fn new(files: Arc<dyn FileSystem>) -> Self {
        Self { files }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn names(&self) -> Result<Vec<String>, EngineError> {
        self.files.names().map_err(|source| self.folder_error("list the folder", source))
    }

    pub fn open(&self, name: &str) -> Result<OpenFile, EngineError> {
        let file = self.files.open(name).map_err(|source| self.error(name, "open", source))?;
        Ok(OpenFile { file, path: self.path(name) })
    }

    /// Opens a file, or returns `None` if it does not exist.
    pub fn open_if_exists(&self, name: &str) -> Result<Option<OpenFile>, EngineError> {
        match self.open(name) {
            Err(EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    pub fn create(&self, name: &str) -> Result<OpenFile, EngineError> {
        let file = self.files.create(name).map_err(|source| self.error(name, "create", source))?;
        Ok(OpenFile { file, path: self.path(name) })
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        self.files.rename(from, to).map_err(|source| self.error(from, "rename", source))
    }

    /// Renames `file`, which is open under the name `from`.
    pub fn rename_open(&self, file: OpenFile, from: &str, to: &str) -> Result<OpenFile, EngineError> {
        self.rename(from, to)?;
        Ok(OpenFile { path: self.path(to), ..file })
    }

    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.files.remove(name).map_err(|source| self.error(name, "remove", source))
    }

    pub fn sync(&self) -> Result<(), EngineError> {
        self.files.sync().map_err(|source| self.folder_error("sync the folder", source))
    }

    /// Checks that the path still names this folder.
    ///
    /// # Errors
    /// [`EngineError::Moved`] if the folder was removed, renamed or replaced.
    pub fn check(&self) -> Result<(), EngineError> {
        self.files.check()
    }

    /// Replaces a whole file. After a crash it has either the old content or the new one.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), EngineError> {
        let temporary = format!("{name}{TEMPORARY_SUFFIX}");
        let file = self.create(&temporary)?;
        file.write_at(content, 0)?;
        file.sync()?;
        self.rename(&temporary, name)?;
        self.sync()
    }

    /// Reads a whole file, or returns `None` if it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(file) = self.open_if_exists(name)? else { return Ok(None) };
        let mut bytes = vec![0; file.length()? as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    /// The error for a file that is not as it was written. `what` follows the name of the file in the message.
    pub fn damaged(&self, name: &str, what: &str) -> EngineError {
        EngineError::Damaged { file: self.path(name), what: what.to_owned(), remedy: REMEDY.to_owned() }
    }

    fn error(&self, name: &str, doing: &'static str, source: io::Error) -> EngineError {
        EngineError::Io { file: self.path(name), doing, source }
    }

    fn folder_error(&self, doing: &'static str, source: io::Error) -> EngineError {
        EngineError::Io { file: self.files.path().to_owned(), doing, source }
    }
}

/// What an operator can do about damaged files.
const REMEDY: &str = "Restore the folder from a backup, or move it away to start with an empty store";

/// An open file whose errors name it.
#[derive(Clone)]
pub(crate) struct OpenFile {
    file: Arc<dyn RawFile>,
    path: PathBuf,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("OpenFile").field(&self.path).finish()
    }
}

impl OpenFile {
    pub fn length(&self) -> Result<u64, EngineError> {
        self.file.length().map_err(|source| self.error("get the length", source))
    }

    pub fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<(), EngineError> {
        self.file.read_at(bytes, at).map_err(|source| self.error("read", source))
    }

    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), EngineError> {
        self.file.write_at(bytes, at).map_err(|source| self.error("write", source))
    }

    pub fn sync(&self) -> Result<(), EngineError> {
        self.file.sync().map_err(|source| self.error("sync", source))
    }

    fn error(&self, doing: &'static str, source: io::Error) -> EngineError {
        EngineError::Io { file: self.path.clone(), doing, source }
    }
}
