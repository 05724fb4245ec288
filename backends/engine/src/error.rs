//! What can go wrong in an engine, said so that an operator can act on it.

use std::io;
use std::path::PathBuf;

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store is not as it was written, and more is missing than a crash may cost.
    #[error("{}: {what}. {way_out}", file.display())]
    Damaged {
        /// The file in which it was noticed.
        file: PathBuf,
        /// What is wrong, and where.
        what: String,
        /// What an operator can do.
        way_out: String,
    },
    /// A later version wrote this.
    #[error("{}: written in format {found}, this version reads up to {known}; start the version that wrote it, or a later one", file.display())]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format known here.
        known: u32,
    },
    /// The store is used by another process, or by another engine of this one.
    #[error("{}: in use by another process; a store has one gateway", file.display())]
    InUse {
        /// The file whose lock is held.
        file: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The verb: `write`, `sync`, …
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier batch failed, so nothing more is taken in.
    #[error("the store takes nothing more until a restart: {why}")]
    Failed {
        /// What happened first.
        why: String,
    },
    /// A batch came before the store was read.
    #[error("a batch came before the store was restored")]
    NotRestored,
    /// A batch or record is larger than the format can hold.
    #[error("{bytes} bytes in one piece, {bytes_max} are the most that can be kept")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },
}

impl EngineError {
    /// Whether an engine whose commit failed with this takes no further batch.
    pub const fn fails_engine(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::NotRestored)
    }
}
