//! The engines of this build, and from a configured store to an open engine.

use std::path::{Path, PathBuf};

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

/// Opens the store of a gateway, or creates it.
///
/// # Errors
/// The folder contains the store of another engine, or the engine fails: another process uses the store, or it is damaged.
pub(crate) fn open(store: &StoreConfig) -> Result<UnreadStore, OpenError> {
    let options = OpenOptions { archive_interval: Some(store.archive_interval) };
    open_or_create(store.engine, &store.path, options)
}

/// Opens an existing store for a tool, without a schedule for archives.
///
/// # Errors
/// The folder contains no store, or as for [`open`].
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
/// As for [`open`].
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
            let opened = open(&store(engine, &path)).expect("the store opens");
            let (mut opened, _) =
                opened.read_all(NonZeroUsize::MIN, &|_, _| ()).expect("the store can be read");
            let put = Change::Put { key: "job=\"a\"", record: b"x" };
            opened.commit(&[put], Durability::Process).expect("the batch is committed");
            drop(opened);
            assert!(open_existing(engine, &path).is_ok());
            for other in ENGINES.iter().filter(|other| *other != engine) {
                let error =
                    open(&store(other, &path)).err().expect("the store of another engine is not hidden");
                let text = error.to_string();
                assert!(text.contains(engine.name) && text.contains("migrate"), "{text}");
            }
        }
    }
}
