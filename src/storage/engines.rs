//! The engines of this build, and from a configured store to an open engine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sluicegate_engine::{EngineDescriptor, EngineError, OpenOptions, UnreadStore};

use crate::config::{EngineChoices, StoreConfig};

/// Lists the engines, one per row, with the Cargo feature that compiles each in. The feature has the name of the engine.
macro_rules! engines {
    ($($feature:tt => $engine:path,)*) => {
        /// The engines that were compiled in.
        pub const ENGINES: &[EngineDescriptor] = &[$(#[cfg(feature = $feature)] $engine,)*];

        /// The engines that flags can name. The first row is the default.
        pub const CHOICES: EngineChoices = EngineChoices { all: &[$($feature,)*], compiled_in: ENGINES };
    };
}

engines! {
    "snapshot" => sluicegate_snapshot::ENGINE,
    "sled" => sluicegate_sled::ENGINE,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder contains the store of another engine. Opening a second one there would hide the first.
    #[error(
        "{} contains a store of the {found} engine, not of {wanted}: choose that engine or another folder, or copy the groups with \
         `sluicegate storage migrate`",
        path.display()
    )]
    OtherEngine {
        /// The folder.
        path: PathBuf,
        /// The engine that wrote the store.
        found: &'static str,
        /// The configured engine.
        wanted: &'static str,
    },
    /// The folder contains no store.
    #[error("{} contains no store of the {engine} engine", path.display())]
    NoStore {
        /// The folder.
        path: PathBuf,
        /// The configured engine.
        engine: &'static str,
    },
    /// The engine failed to open the store.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Opens the store of a gateway: at the start, and again after it failed.
pub(crate) struct Opener {
    store: StoreConfig,
    /// The device and the inode of the folder, once the store was opened.
    folder: OnceLock<(u64, u64)>,
}

impl Opener {
    pub(crate) fn new(store: StoreConfig) -> Self {
        Self { store, folder: OnceLock::new() }
    }

    /// Opens the store. The first call creates it if necessary; later calls refuse a folder that is not the one of the first,
    /// because what it contains is not this gateway's.
    ///
    /// # Errors
    /// The folder contains the store of another engine, or is not the one that was opened before, or the engine fails: another
    /// process uses the store, or it is damaged.
    pub(crate) fn open(&self) -> Result<UnreadStore, OpenError> {
        let StoreConfig { engine, path, archive_interval, .. } = &self.store;
        let identity = || fs::metadata(path).ok().map(|folder| (folder.dev(), folder.ino()));
        if self.folder.get().is_some_and(|folder| identity().as_ref() != Some(folder)) {
            return Err(EngineError::Moved { file: path.clone() }.into());
        }
        let options = OpenOptions { archive_interval: Some(*archive_interval) };
        let opened = open_or_create(engine, path, options)?;
        if let Some(identity) = identity() {
            let _ = self.folder.set(identity);
        }
        Ok(opened)
    }
}

/// Opens an existing store for a tool, without a schedule for archives.
///
/// # Errors
/// The folder contains no store, or as for [`Opener::open`].
pub(super) fn open_existing(engine: &EngineDescriptor, path: &Path) -> Result<UnreadStore, OpenError> {
    reject_other_engine(engine, path)?;
    if !(engine.is_present)(path) {
        return Err(OpenError::NoStore { path: path.to_owned(), engine: engine.name });
    }
    open_or_create(engine, path, OpenOptions::default())
}

/// Opens a store, or creates one.
///
/// # Errors
/// As for [`Opener::open`].
pub(super) fn open_or_create(
    engine: &EngineDescriptor,
    path: &Path,
    options: OpenOptions,
) -> Result<UnreadStore, OpenError> {
    reject_other_engine(engine, path)?;
    Ok((engine.open)(path, options)?)
}

/// Engines that were not compiled in cannot be recognised.
fn reject_other_engine(wanted: &EngineDescriptor, path: &Path) -> Result<(), OpenError> {
    match ENGINES.iter().find(|other| *other != wanted && (other.is_present)(path)) {
        Some(found) => {
            Err(OpenError::OtherEngine { path: path.to_owned(), found: found.name, wanted: wanted.name })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use sluicegate_engine::{Change, Durability};

    use super::*;

    fn store(engine: &'static EngineDescriptor, path: &Path) -> StoreConfig {
        StoreConfig {
            engine,
            path: path.to_owned(),
            durability: crate::config::Durability::Process,
            archive_interval: Duration::from_secs(300),
            import: None,
        }
    }

    #[test]
    fn an_engine_has_the_name_of_its_feature() {
        assert!(ENGINES.iter().all(|engine| CHOICES.all.contains(&engine.name)), "{ENGINES:?}");
    }

    #[test]
    fn a_folder_contains_the_store_of_one_engine() {
        for engine in ENGINES {
            let folder = tempfile::tempdir().expect("a temporary folder can be created");
            let path = folder.path().join("new");
            assert!(matches!(open_existing(engine, &path), Err(OpenError::NoStore { .. })));
            assert!(!path.exists(), "a failed open creates no store");
            let opened = Opener::new(store(engine, &path)).open().expect("the store opens");
            let (mut opened, _) =
                opened.read_all(NonZeroUsize::MIN, &|_, _| ()).expect("the store can be read");
            let put = Change::Put { key: "job=\"a\"", record: b"x" };
            opened.commit(&[put], Durability::Process).expect("the batch is committed");
            drop(opened);
            assert!(open_existing(engine, &path).is_ok());
            let opener = Opener::new(store(engine, &path));
            drop(opener.open().expect("the store opens"));
            drop(opener.open().expect("the store opens again"));
            let moved = folder.path().join("moved");
            fs::rename(&path, &moved).expect("the folder can be renamed");
            let reopened = || opener.open().err().expect("the store is elsewhere").to_string();
            assert!(reopened().contains("removed, renamed or replaced"), "{}", reopened());
            assert!(!path.exists(), "a failed open creates no store");
            fs::rename(&moved, &path).expect("the folder can be renamed");
            drop(opener.open().expect("the store is back"));
            for other in ENGINES.iter().filter(|other| *other != engine) {
                let error = Opener::new(store(other, &path))
                    .open()
                    .err()
                    .expect("the store of another engine is not hidden");
                let text = error.to_string();
                assert!(text.contains(engine.name) && text.contains("migrate"), "{text}");
            }
        }
    }
}
