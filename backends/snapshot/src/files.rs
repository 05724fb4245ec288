//! The few things done to files, behind a trait so that a test can lose power at any of them.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicegate_engine::{EngineError, Lock};

#[cfg(test)]
pub(crate) mod simulated_disk;

/// One folder of files.
pub(crate) trait Files: Send + Sync {
    fn path(&self) -> &Path;
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens what exists, to read and write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>>;
    /// Makes an empty file, also where one was.
    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync(&self) -> io::Result<()>;
}

/// One open file.
pub(crate) trait RawFile: Send + Sync {
    fn length(&self) -> io::Result<u64>;
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self) -> io::Result<()>;
}

const LOCK: &str = "lock";
/// The end of names that mean nothing until they are renamed.
pub(crate) const ASIDE: &str = ".aside";

/// A folder on disk, locked against other processes as long as this lives.
pub(crate) struct Disk {
    folder: PathBuf,
    _lock: Lock,
}

impl Disk {
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        fs::create_dir_all(folder).map_err(|source| {
            let file = folder.to_owned();
            EngineError::Io { file, doing: "make the folder", source }
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: Lock::take(&folder.join(LOCK))? })
    }
}

impl Files for Disk {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn names(&self) -> io::Result<Vec<String>> {
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
        // Carries the length too, where that is needed to read the content.
        self.sync_data()
    }
}

/// A folder whose errors name the file.
#[derive(Clone)]
pub(crate) struct Folder {
    files: Arc<dyn Files>,
}

impl Folder {
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self { files }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub fn names(&self) -> Result<Vec<String>, EngineError> {
        self.files.names().map_err(self.error("", "list the folder"))
    }

    pub fn open(&self, name: &str) -> Result<Handle, EngineError> {
        let file = self.files.open(name).map_err(self.error(name, "open"))?;
        Ok(Handle { file, path: self.path(name) })
    }

    pub fn create(&self, name: &str) -> Result<Handle, EngineError> {
        let file = self.files.create(name).map_err(self.error(name, "create"))?;
        Ok(Handle { file, path: self.path(name) })
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        self.files.rename(from, to).map_err(self.error(from, "rename"))
    }

    /// Renames a file that is open.
    pub fn rename_open(&self, handle: Handle, from: &str, to: &str) -> Result<Handle, EngineError> {
        self.rename(from, to)?;
        Ok(Handle { path: self.path(to), ..handle })
    }

    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.files.remove(name).map_err(self.error(name, "remove"))
    }

    pub fn sync(&self) -> Result<(), EngineError> {
        self.files.sync().map_err(self.error("", "sync the folder"))
    }

    /// Writes a whole file so that its name has either the old content or the new: aside, synced, renamed, synced.
    pub fn replace(&self, name: &str, parts: &[&[u8]]) -> Result<(), EngineError> {
        let aside = format!("{name}{ASIDE}");
        let handle = self.create(&aside)?;
        let mut at = 0;
        for part in parts {
            handle.write_at(part, at)?;
            at += part.len() as u64;
        }
        handle.sync()?;
        self.rename(&aside, name)?;
        self.sync()
    }

    /// Opens a file, or gives `None` if there is no such file.
    pub fn open_if_there(&self, name: &str) -> Result<Option<Handle>, EngineError> {
        match self.open(name) {
            Err(EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// The whole content, or `None` if there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(handle) = self.open_if_there(name)? else { return Ok(None) };
        let mut bytes = vec![0; handle.length()? as usize];
        handle.read_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    fn error(&self, name: &str, doing: &'static str) -> impl FnOnce(io::Error) -> EngineError {
        let file = if name.is_empty() { self.files.path().to_owned() } else { self.path(name) };
        move |source| EngineError::Io { file, doing, source }
    }
}

/// An open file whose errors name it.
#[derive(Clone)]
pub(crate) struct Handle {
    file: Arc<dyn RawFile>,
    path: PathBuf,
}

impl fmt::Debug for Handle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Handle").field(&self.path).finish()
    }
}

impl Handle {
    pub fn length(&self) -> Result<u64, EngineError> {
        self.file.length().map_err(|source| self.error("measure", source))
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
