//! Where groups are kept beyond the life of the process, if anywhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::flags::{Backend, Exit, Flags, PersistenceFlags, StorageFlags};

/// A shorter interval than this would write archives and nothing else. Nothing is safer for it: pushes are in the log.
const ARCHIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// What follows the name of the official persistence file in that of our store beside it.
const BESIDE: &str = ".sluicegate";

/// A store of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// What keeps them.
    pub engine: EngineKind,
    /// The folder of the store.
    pub path: PathBuf,
    /// What an acknowledged push survives.
    pub durability: Durability,
    /// How often the engine shall fold its log into its archives, if it has these.
    pub archive_interval: Duration,
    /// The persistence file of the official program, to be taken over if it is there and the store is new.
    pub import: Option<PathBuf>,
}

/// What keeps groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// A log of pushes, folded into archives.
    Snapshot,
    /// The embedded database sled.
    Sled,
}

impl EngineKind {
    /// The word by which it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Sled => "sled",
        }
    }
}

/// What an acknowledged push survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Durability {
    /// The death of the process.
    #[default]
    Process,
    /// A loss of power.
    Disk,
}

impl Durability {
    /// The word by which it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// The store that the flags mean. Both kinds of flag together could mean two, so they mean none.
pub(super) fn store(flags: &Flags) -> Result<Option<Store>, Exit> {
    let (StorageFlags { backend, path, durability }, persistence) = (&flags.storage, &flags.persistence);
    if !persistence.file.is_empty() {
        if backend.is_some() || !path.is_empty() || durability.is_some() {
            return Err(Exit::usage(format_args!(
                "--persistence.file and --storage.* cannot be used together: the file selects the snapshot engine in {0:?}; \
                 for other settings give --storage.path={0:?} instead of the file",
                beside(Path::new(&persistence.file))
            )));
        }
        return Ok(Some(beside_the_official(persistence)));
    }
    let engine = match (backend, path.is_empty()) {
        (None, true) if durability.is_some() => {
            return Err(Exit::usage("--storage.durability needs --storage.path"));
        }
        (Some(Backend::Memory), _) if durability.is_some() => {
            return Err(Exit::usage(
                "--storage.backend=memory keeps nothing, so --storage.durability has no meaning",
            ));
        }
        (None | Some(Backend::Memory), true) => return Ok(None),
        (Some(Backend::Memory), false) => {
            return Err(Exit::usage(
                "--storage.backend=memory keeps nothing, so --storage.path has no meaning",
            ));
        }
        (Some(_), true) => return Err(Exit::usage("--storage.backend needs --storage.path")),
        (None | Some(Backend::Snapshot), false) => EngineKind::Snapshot,
        (Some(Backend::Sled), false) => EngineKind::Sled,
    };
    Ok(Some(Store {
        engine,
        path: PathBuf::from(path),
        durability: durability.unwrap_or_default(),
        archive_interval: archive_interval(persistence),
        import: None,
    }))
}

fn beside_the_official(persistence: &PersistenceFlags) -> Store {
    let file = PathBuf::from(&persistence.file);
    Store {
        engine: EngineKind::Snapshot,
        path: beside(&file),
        durability: Durability::default(),
        archive_interval: archive_interval(persistence),
        import: Some(file),
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(BESIDE);
    name.into()
}

/// The official program takes a negative interval for "at once", too.
fn archive_interval(persistence: &PersistenceFlags) -> Duration {
    persistence.interval.non_negative().unwrap_or_default().max(ARCHIVE_INTERVAL_MIN)
}
