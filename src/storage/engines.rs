//! From a configured store to an open engine. The only place that knows which engines there are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_engine::{Engine, EngineError};

use crate::config::{EngineKind, Store};

/// Why there is no open store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine was left out when the program was built.
    #[error(
        "this build has no {0} engine; build it with the feature {0:?}, or choose another engine",
        engine.name()
    )]
    NotInThisBuild {
        /// The engine.
        engine: EngineKind,
    },
    /// Opening it would begin a second store in the same folder, and hide the first.
    #[error(
        "{} holds a store of the {} engine, not of {}; choose that engine or another folder, or carry the groups over with \
         `sluicegate storage migrate`",
        path.display(), found.name(), wanted.name()
    )]
    OtherEngine {
        /// The folder.
        path: PathBuf,
        /// Whose store is there.
        found: EngineKind,
        /// Whose was asked for.
        wanted: EngineKind,
    },
    /// There is nothing to look at.
    #[error("there is no store of the {} engine in {}", engine.name(), path.display())]
    NoStore {
        /// The folder.
        path: PathBuf,
        /// Whose store was asked for.
        engine: EngineKind,
    },
    /// The engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Opens the store, or makes a new one.
///
/// # Errors
/// The build lacks the engine, the folder is another engine's, or the engine refuses: somebody else has the store, or it is damaged.
pub fn open(store: &Store) -> Result<Box<dyn Engine>, OpenError> {
    open_or_make(store.engine, &store.path, Some(store.archive_interval))
}

/// Opens a store that is to be there, to read it.
///
/// # Errors
/// There is none, and as [`open`].
pub(super) fn open_existing(engine: EngineKind, path: &Path) -> Result<Box<dyn Engine>, OpenError> {
    refuse_other_engine(engine, path)?;
    if !is_there(engine, path) {
        return Err(OpenError::NoStore { path: path.to_owned(), engine });
    }
    open_or_make(engine, path, None)
}

/// Opens a store, or makes a new one, that no gateway will use now.
///
/// # Errors
/// As [`open`].
pub(super) fn open_or_make(
    engine: EngineKind,
    path: &Path,
    archive_interval: Option<Duration>,
) -> Result<Box<dyn Engine>, OpenError> {
    refuse_other_engine(engine, path)?;
    match engine {
        EngineKind::Snapshot => snapshot(path, archive_interval),
        EngineKind::Sled => sled(path),
    }
}

#[cfg(feature = "snapshot")]
fn snapshot(path: &Path, archive_interval: Option<Duration>) -> Result<Box<dyn Engine>, OpenError> {
    use sluicegate_snapshot::{Options, Snapshot};
    Ok(Box::new(Snapshot::open(path, Options { archive_interval, ..Options::default() })?))
}

#[cfg(not(feature = "snapshot"))]
fn snapshot(_: &Path, _: Option<Duration>) -> Result<Box<dyn Engine>, OpenError> {
    Err(OpenError::NotInThisBuild { engine: EngineKind::Snapshot })
}

#[cfg(feature = "sled")]
fn sled(path: &Path) -> Result<Box<dyn Engine>, OpenError> {
    Ok(Box::new(sluicegate_sled::Sled::open(path)?))
}

#[cfg(not(feature = "sled"))]
fn sled(_: &Path) -> Result<Box<dyn Engine>, OpenError> {
    Err(OpenError::NotInThisBuild { engine: EngineKind::Sled })
}

fn refuse_other_engine(wanted: EngineKind, path: &Path) -> Result<(), OpenError> {
    let found = [EngineKind::Snapshot, EngineKind::Sled]
        .into_iter()
        .find(|other| *other != wanted && is_there(*other, path));
    match found {
        Some(found) => Err(OpenError::OtherEngine { path: path.to_owned(), found, wanted }),
        None => Ok(()),
    }
}

/// Whether an engine has kept anything in a folder. A damaged store counts: the engine shall say so.
pub(super) fn is_there(engine: EngineKind, path: &Path) -> bool {
    let names: &[&str] = match engine {
        EngineKind::Snapshot => &["manifest"],
        EngineKind::Sled => &["db", "mark"],
    };
    names.iter().any(|name| path.join(name).exists())
        || (engine == EngineKind::Snapshot && has_segments(path))
}

fn has_segments(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.into_iter().any(|name| name.starts_with("log-0") || name.starts_with("archive-0"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use sluicegate_engine::{Change, Durability};

    use super::*;

    fn store(engine: EngineKind, path: &Path) -> Store {
        Store {
            engine,
            path: path.to_owned(),
            durability: crate::config::Durability::Process,
            archive_interval: Duration::from_secs(300),
            import: None,
        }
    }

    #[test]
    fn a_folder_has_one_engine() {
        for (engine, other) in
            [(EngineKind::Snapshot, EngineKind::Sled), (EngineKind::Sled, EngineKind::Snapshot)]
        {
            let folder = tempfile::tempdir().expect("a folder for a test");
            let path = folder.path().join("new");
            assert!(matches!(open_existing(engine, &path), Err(OpenError::NoStore { .. })));
            assert!(!path.exists(), "looking makes no store");
            let opened = open(&store(engine, &path));
            if let Err(OpenError::NotInThisBuild { .. }) = opened {
                continue;
            }
            let mut backend = opened.expect("it opens");
            backend.restore(NonZeroUsize::MIN, &|_, _| ()).expect("it can be read");
            let put = Change::Put { key: "job=\"a\"", record: b"x" };
            backend.commit(&[put], Durability::Process).expect("a batch is kept");
            drop(backend);
            assert!(open_existing(engine, &path).is_ok());
            let Err(error) = open(&store(other, &path)) else { panic!("the store of {engine:?} is hidden") };
            let text = error.to_string();
            assert!(text.contains(engine.name()) && text.contains("migrate"), "{text}");
        }
    }
}
