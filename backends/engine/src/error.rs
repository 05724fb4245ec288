//! The errors of an engine, worded so that an operator can act on them.

use std::io;
use std::path::PathBuf;

/// Why an engine failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The store is damaged: more is missing or different than a crash can explain.
    #[error("{}: {what}. {remedy}", file.display())]
    Damaged {
        /// The file in which the damage was found.
        file: PathBuf,
        /// What is wrong, and where.
        what: String,
        /// What the operator can do, as a sentence.
        remedy: String,
    },
    /// A later version wrote the store.
    #[error("{}: format {found} is newer than the latest supported format {known}; start the version that wrote it, or a later one", file.display())]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that this version reads.
        known: u32,
    },
    /// Another process uses the store, or another engine in this process.
    #[error("{}: in use by another process; only one gateway can use a store", file.display())]
    InUse {
        /// The locked file.
        file: PathBuf,
    },
    /// The store was removed, renamed or replaced while it was open. What is written from now on would be lost.
    #[error("{}: removed, renamed or replaced while the store is in use; put it back, or restart the gateway", file.display())]
    Moved {
        /// The file or folder that is no longer where it was.
        file: PathBuf,
    },
    /// An operation of the operating system failed.
    #[error("{}: cannot {doing}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What failed: `write`, `sync`, …
        doing: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// An earlier batch failed, so the engine accepts no more.
    #[error("storage failed: {why}; writes are rejected until it recovers")]
    Failed {
        /// The first error.
        why: String,
    },
    /// A batch is larger than the format allows.
    #[error("batch of {bytes} bytes is larger than the maximum of {bytes_max}")]
    TooLarge {
        /// The size of the batch.
        bytes: u64,
        /// The maximum size.
        bytes_max: u64,
    },
}
