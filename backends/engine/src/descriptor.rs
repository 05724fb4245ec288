//! How a program finds and opens an engine that it knows only by name.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::{EngineError, UnreadStore};

/// An engine as its crate presents it to programs, in a constant named `ENGINE`.
///
/// A program lists the descriptors of the engines it was built with. Flags, help and error texts come from that list, so a
/// new engine is one crate and one row. Two descriptors with the same name are equal.
#[derive(Clone, Copy)]
pub struct EngineDescriptor {
    /// The name in flags such as `--storage.backend`.
    pub name: &'static str,
    /// One line for help texts, without a full stop.
    pub summary: &'static str,
    /// Whether a folder contains files of this engine. True for a damaged store, so that opening it reports the damage.
    pub is_present: fn(folder: &Path) -> bool,
    /// Opens the store in a folder, or creates one.
    pub open: fn(folder: &Path, options: OpenOptions) -> Result<UnreadStore, EngineError>,
}

/// Settings that engines share. An engine ignores those that do not concern it.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// How often an engine with a log merges it into its archives; `None` leaves it to the size of the log.
    pub archive_interval: Option<Duration>,
}

impl PartialEq for EngineDescriptor {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for EngineDescriptor {}

impl fmt::Debug for EngineDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EngineDescriptor").field(&self.name).finish()
    }
}
