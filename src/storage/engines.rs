//! The engines of this build. Each is a crate of its own behind a feature of its name.

use sluicegate_backend::Backend;

use crate::config::{Engine, Store};

/// Opens a store, or makes a new one.
///
/// # Errors
/// It cannot be read as it was written, another process has it, or this build lacks the engine; in words for the operator.
pub fn open(store: &Store) -> Result<Box<dyn Backend>, String> {
    match store.engine {
        Engine::Snapshot => open_snapshot(store),
        Engine::Sled => open_sled(store),
    }
}

#[cfg(feature = "snapshot")]
fn open_snapshot(store: &Store) -> Result<Box<dyn Backend>, String> {
    use sluicegate_snapshot::{Options, Snapshot};

    let options = Options { archive_interval: Some(store.archive_interval), ..Options::default() };
    Ok(Box::new(Snapshot::open(&store.path, options).map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "snapshot"))]
fn open_snapshot(_: &Store) -> Result<Box<dyn Backend>, String> {
    Err("this build has no snapshot engine; build it with --features snapshot".to_owned())
}

#[cfg(feature = "sled")]
fn open_sled(store: &Store) -> Result<Box<dyn Backend>, String> {
    Ok(Box::new(sluicegate_sled::Sled::open(&store.path).map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "sled"))]
fn open_sled(_: &Store) -> Result<Box<dyn Backend>, String> {
    Err("this build has no sled engine; build it with --features sled".to_owned())
}
