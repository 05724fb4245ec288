//! Where groups are kept: the official persistence flags, and ours.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{Durability, Flags, Stop, StorageBackend};

/// Where groups are kept beyond the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// What keeps them.
    pub engine: Engine,
    /// The folder of the store.
    pub path: PathBuf,
    /// What an acknowledged push survives.
    pub durability: Durability,
    /// How often the log of a snapshot store is folded into its archives.
    pub archive_interval: Duration,
    /// A file of the official program, to be taken over by a store that is new.
    pub import: Option<PathBuf>,
}

/// What keeps groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A log and archives.
    Snapshot,
    /// The embedded database sled.
    Sled,
}

impl Engine {
    /// The word by which it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Sled => "sled",
        }
    }
}

/// What the flags mean together.
pub(super) fn meant_by(flags: &Flags) -> Result<Option<Store>, Stop> {
    let (persistence, storage) = (&flags.persistence, &flags.storage);
    let store = |engine, path, import| Store {
        engine,
        path,
        durability: storage.durability,
        // The official program takes a negative interval for "at once", too.
        archive_interval: persistence.interval.non_negative().unwrap_or_default(),
        import,
    };
    let (file, path) = (persistence.file.as_str(), storage.path.as_str());
    match (file, path, storage.backend) {
        ("", "", None | Some(StorageBackend::Memory)) => Ok(None),
        ("", "", Some(_)) => Err(Stop::refuse("--storage.backend needs --storage.path")),
        ("", _, Some(StorageBackend::Memory)) => {
            Err(Stop::refuse("--storage.backend=memory keeps nothing, so it has no --storage.path"))
        }
        ("", path, Some(StorageBackend::Sled)) => Ok(Some(store(Engine::Sled, path.into(), None))),
        ("", path, _) => Ok(Some(store(Engine::Snapshot, path.into(), None))),
        (file, "", None) => {
            Ok(Some(store(Engine::Snapshot, format!("{file}.sluicegate").into(), Some(file.into()))))
        }
        _ => Err(Stop::refuse(
            "--persistence.file cannot be used together with --storage.backend or --storage.path",
        )),
    }
}
