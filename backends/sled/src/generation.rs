//! A new generation of the store: another database beside the old one, which takes its place once it is complete.
//!
//! The exchange is two renames. A process that ends between them leaves no `db` but a complete `db-new`, which the next start puts in
//! its place. In every other case, `db` is what counts.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use sluicegate_engine::EngineError;

use crate::engine::sync_folder;
use crate::mark::error;

/// Where the parts of a store are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub folder: PathBuf,
    /// The database that counts.
    pub db: PathBuf,
    /// A database that is being written.
    pub new_db: PathBuf,
    /// The database that was replaced.
    old_db: PathBuf,
    pub mark: PathBuf,
}

impl Places {
    pub fn new(folder: &Path) -> Self {
        let place = |name| folder.join(name);
        Self {
            folder: folder.to_owned(),
            db: place("db"),
            new_db: place("db-new"),
            old_db: place("db-old"),
            mark: place("mark"),
        }
    }

    /// Puts the new database, which is complete and synced, in the place of the old one.
    pub fn exchange(&self) -> Result<(), EngineError> {
        if self.db.exists() {
            fs::rename(&self.db, &self.old_db).map_err(error(&self.db, "rename"))?;
        }
        sync_folder(&self.folder)?;
        self.finish_exchange()
    }

    /// Ends an exchange that was interrupted between its renames, and removes what is left of one.
    pub fn finish_exchange(&self) -> Result<(), EngineError> {
        if !self.db.exists() && self.new_db.exists() {
            fs::rename(&self.new_db, &self.db).map_err(error(&self.new_db, "rename"))?;
            sync_folder(&self.folder)?;
        }
        self.remove_unused()
    }

    /// Removes the databases that do not count.
    pub fn remove_unused(&self) -> Result<(), EngineError> {
        if self.db.exists() {
            remove(&self.new_db)?;
            remove(&self.old_db)?;
        }
        Ok(())
    }
}

/// Removes a database. After a panic, sled may keep its files open for ever, so they are emptied first: a full disk needs the space.
fn remove(path: &Path) -> Result<(), EngineError> {
    let Ok(files) = files(path) else { return Ok(()) };
    for file in files {
        // This only saves space.
        let _ = OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(0));
    }
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(error(path, "remove")),
    }
}

/// Syncs all files of a database and its folders.
pub(crate) fn sync_all(path: &Path) -> Result<(), EngineError> {
    for file in files(path).map_err(error(path, "list"))? {
        match File::open(&file).and_then(|file| file.sync_all()) {
            // sled has deleted it in the meantime.
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(error(&file, "sync"))?,
        }
    }
    Ok(())
}

/// The files and folders of a database, and itself.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at) {
        if path.is_dir() {
            let entries: io::Result<Vec<_>> = fs::read_dir(path)?.collect();
            found.extend(entries?.into_iter().map(|entry| entry.path()));
        }
        at += 1;
    }
    Ok(found)
}
