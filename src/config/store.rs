//! The storage flags, and the store that they select.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use sluicegate_engine::EngineDescriptor;

use super::error::ConfigError;
use super::flags::{Flags, PersistenceFlags, StorageFlags};

/// The value of `--storage.backend` without a store.
const MEMORY: &str = "memory";
/// A shorter interval would only rewrite archives. It would make nothing safer: the log already contains every push.
const ARCHIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The folder of the store is named after the official persistence file, with this suffix.
const STORE_SUFFIX: &str = ".sluicegate";

/// The store of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The engine.
    pub engine: &'static EngineDescriptor,
    /// The folder of the store.
    pub path: PathBuf,
    /// What an acknowledged push survives.
    pub durability: Durability,
    /// How often an engine with a log merges it into its archives.
    pub archive_interval: Duration,
    /// The persistence file of the official program. It is imported if it exists and the store is new.
    pub import: Option<PathBuf>,
}

/// The engines that flags can name.
#[derive(Debug, Clone, Copy)]
pub struct EngineChoices {
    /// All names, with those of engines that this build leaves out. The first is the default. The name of an engine is also the
    /// name of the Cargo feature that compiles it in.
    pub all: &'static [&'static str],
    /// The engines of this build.
    pub compiled_in: &'static [EngineDescriptor],
}

impl EngineChoices {
    /// The engine for a path without `--storage.backend`.
    pub(super) fn default_name(&self) -> &'static str {
        self.all.first().copied().unwrap_or(MEMORY)
    }

    /// The values that a flag accepts. Engines that this build leaves out are hidden: [`Self::find`] explains them.
    pub(super) fn values(&self) -> impl Iterator<Item = PossibleValue> {
        self.all.iter().map(|name| match self.compiled_in.iter().find(|engine| engine.name == *name) {
            Some(engine) => PossibleValue::new(engine.name).help(engine.summary),
            None => PossibleValue::new(*name).hide(true),
        })
    }

    /// The values of `--storage.backend`.
    pub(super) fn values_with_memory(&self) -> impl Iterator<Item = PossibleValue> {
        std::iter::once(PossibleValue::new(MEMORY).help("nothing outlives the process")).chain(self.values())
    }

    /// The engine of a name.
    ///
    /// # Errors
    /// This build leaves it out.
    pub(super) fn find(&self, name: &str) -> Result<&'static EngineDescriptor, ConfigError> {
        let engine = self.compiled_in.iter().find(|engine| engine.name == name);
        engine.ok_or_else(|| ConfigError::EngineNotCompiledIn(name.to_owned()))
    }
}

/// What an acknowledged push survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Durability {
    /// A crash or kill of the gateway.
    #[default]
    Process,
    /// Also a power failure.
    Disk,
}

impl Durability {
    /// The value of the flag.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// The store that the flags select. `--persistence.file` and `--storage.*` exclude each other, since they could select two.
pub(super) fn store(flags: &Flags, engines: &EngineChoices) -> Result<Option<StoreConfig>, ConfigError> {
    let (StorageFlags { backend, path, durability }, persistence) = (&flags.storage, &flags.persistence);
    if !persistence.file.is_empty() {
        if backend.is_some() || !path.is_empty() || durability.is_some() {
            return Err(ConfigError::TwoStores {
                engine: engines.default_name(),
                path: store_folder(Path::new(&persistence.file)),
            });
        }
        return official_store(persistence, engines).map(Some);
    }
    let name = match (backend.as_deref(), path.is_empty()) {
        (None, true) if durability.is_some() => {
            return Err(ConfigError::PathMissing("--storage.durability"));
        }
        (Some(MEMORY), _) if durability.is_some() => {
            return Err(ConfigError::MemoryWith("--storage.durability"));
        }
        (None | Some(MEMORY), true) => return Ok(None),
        (Some(MEMORY), false) => {
            return Err(ConfigError::MemoryWith("--storage.path"));
        }
        (Some(_), true) => return Err(ConfigError::PathMissing("--storage.backend")),
        (None, false) => engines.default_name(),
        (Some(name), false) => name,
    };
    Ok(Some(StoreConfig {
        engine: engines.find(name)?,
        path: PathBuf::from(path),
        durability: durability.unwrap_or_default(),
        archive_interval: archive_interval(persistence),
        import: None,
    }))
}

/// The value of `--storage.backend` that is in effect.
pub(super) fn backend_in_effect(store: Option<&StoreConfig>) -> &'static str {
    store.map_or(MEMORY, |store| store.engine.name)
}

/// The store beside the persistence file of the official program.
fn official_store(
    persistence: &PersistenceFlags,
    engines: &EngineChoices,
) -> Result<StoreConfig, ConfigError> {
    let file = PathBuf::from(&persistence.file);
    Ok(StoreConfig {
        engine: engines.find(engines.default_name())?,
        path: store_folder(&file),
        durability: Durability::default(),
        archive_interval: archive_interval(persistence),
        import: Some(file),
    })
}

fn store_folder(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(STORE_SUFFIX);
    name.into()
}

/// The official program accepts a negative interval and takes it as zero.
fn archive_interval(persistence: &PersistenceFlags) -> Duration {
    persistence.interval.non_negative().unwrap_or_default().max(ARCHIVE_INTERVAL_MIN)
}
