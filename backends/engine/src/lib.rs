//! What a storage engine is: the [`Engine`] trait, the [`record`] it keeps, and with the feature `suite` the tests that
//! every engine passes.
//!
//! An engine keeps groups **as they are after a push**, never pushes. It knows keys and bytes: no metrics, no HTTP, no
//! clocks of the server, no metrics facade. It is synchronous and belongs to one thread, which its user makes.
//! `docs/storage.md` tells how to write one.

mod descriptor;
mod error;
mod lock;
pub mod record;
#[cfg(feature = "suite")]
pub mod suite;

use std::num::NonZeroUsize;

pub use descriptor::{EngineDescriptor, OpenOptions};
pub use error::EngineError;
pub use lock::Lock;

/// Keeps the records of groups beyond the life of the process.
///
/// First [`Engine::restore`], then any number of [`Engine::commit`]. After an error of `commit` that
/// [fails it](EngineError::fails_engine) the engine takes no further batch, because nobody knows what is on the disk.
pub trait Engine: Send {
    /// Gives every record that is kept to `sink`, each once, in no promised order. `sink` is called from up to `threads`
    /// threads at once, the caller's own among them or not; when this returns, no call is running.
    ///
    /// May be called again, also between commits: it then gives what is kept at that moment.
    ///
    /// # Errors
    /// The store cannot be read as it was written, and what is missing was promised to be there. Some records may have
    /// been given to `sink` before the damage was met: they are no state to go on with.
    fn restore(&mut self, threads: NonZeroUsize, sink: Sink<'_>) -> Result<Restored, EngineError>;

    /// Keeps a batch: its changes in their order, all or none of them. On return it is as durable as was asked for.
    /// Later commits of any durability never undo that.
    ///
    /// # Errors
    /// [`EngineError::TooLarge`] and [`EngineError::NotRestored`] leave everything as it was. After any other it is
    /// unknown whether the batch is kept; the engine has failed and answers [`EngineError::Failed`] from then on.
    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Commit, EngineError>;

    /// Does what is due beside commits. Its user calls it about once a second, also while nothing is committed.
    ///
    /// # Errors
    /// As of a commit that failed: the engine has failed.
    fn maintain(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// What the engine can say about itself now. Cheap: asks no disk.
    fn stats(&self) -> Stats;

    /// Makes everything durable, leaves the store so that the next start is quick, and gives it free for others.
    ///
    /// Dropping an engine instead is what a kill is: nothing that was committed is lost.
    ///
    /// # Errors
    /// Something could not be written. What was committed is kept as if the engine had been dropped.
    fn close(self: Box<Self>) -> Result<(), EngineError>;
}

/// Takes restored records: the text of the grouping key, and the record as it was committed.
pub type Sink<'a> = &'a (dyn Fn(&str, &[u8]) + Sync);

/// One change of one group, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// The group is now this.
    Put {
        /// The canonical text of the grouping key, `job="a",zone="eu"`. Never empty.
        key: &'a str,
        /// The encoded [`record::Record`]. To a local engine just bytes.
        record: &'a [u8],
    },
    /// The group is gone. Deleting what is not there changes nothing.
    Delete {
        /// As in [`Change::Put`].
        key: &'a str,
    },
    /// All groups are gone.
    Wipe,
}

/// What a committed batch survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The death of the process, however it dies. A loss of power may undo the last batches, never one in the middle.
    Process,
    /// A loss of power.
    Disk,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// The batch is kept.
    Kept(Receipt),
    /// Nothing of the batch is kept, because somebody else changed these groups meanwhile. Only engines that are shared by
    /// several replicas answer so.
    Conflict(Vec<Current>),
}

/// Says that a batch is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The number of the batch. Each is one above the one before, also across restarts.
    pub sequence: u64,
}

/// A group as a shared engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The text of the grouping key.
    pub key: Box<str>,
    /// Its record; `None` if the group does not exist.
    pub record: Option<Vec<u8>>,
}

/// What a restore met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// How many records were given.
    pub records: u64,
    /// The bytes of their keys and records.
    pub record_bytes: u64,
    /// The number of the last batch that is in them; 0 if there was none yet.
    pub sequence: u64,
    /// Whether the store was closed, not left by a kill or a crash.
    pub closed: bool,
    /// What is not as it should be, but was allowed to happen. To be logged; never empty if anything was left out.
    pub warnings: Vec<String>,
}

/// Plain numbers about an engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Bytes of the log, which a restart reads in addition to the archives. `None` if the engine has no log.
    pub log_bytes: Option<u64>,
    /// Bytes of the last archives. Without a log, bytes of all files.
    pub archive_bytes: u64,
    /// Seconds since the archives were last written; `None` if there are none.
    pub archive_age_seconds: Option<f64>,
    /// How long the last restore took, the first with the opening before it.
    pub restore_seconds: f64,
    /// The number of the last batch.
    pub sequence: u64,
    /// The number of the last batch that survives a loss of power.
    pub sequence_on_disk: u64,
    /// What failed beside commits and goes on failing: an archive could not be written, say. Commits are not touched by it.
    pub background_error: Option<String>,
}
