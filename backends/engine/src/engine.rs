//! The trait that every engine implements, and the values that go in and out of it.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::EngineError;

/// Stores the records of groups beyond the life of the process.
///
/// A program gets an engine from an [`UnreadStore`](crate::UnreadStore), so [`Engine::commit`] and the methods below it are
/// only called after [`Engine::read`] has read the store completely. An engine whose commit failed accepts no further batch,
/// because the content of the disk is unknown, until [`Engine::start_anew`] has succeeded.
pub trait Engine: Send {
    /// Passes every stored record to `sink`, each once, in any order. `sink` is called on up to `threads` threads at once,
    /// which may include the caller's. No call is running when this returns.
    ///
    /// Stops soon after `sink` has returned [`ControlFlow::Break`], and returns `Break` too. Other threads may still pass
    /// records in the meantime.
    ///
    /// May be called again, also between commits, and then passes the records of that moment.
    ///
    /// # Errors
    /// The store is damaged or unreadable beyond what a crash may cause. `sink` may have received some records before the
    /// engine found the damage; they are not a valid state.
    fn read(
        &mut self,
        threads: NonZeroUsize,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError>;

    /// Stores a batch: all of its changes in their order, or none of them. When this returns, the batch has the requested
    /// durability. Later commits of any durability never undo that.
    ///
    /// # Errors
    /// [`EngineError::TooLarge`] changes nothing, and the engine accepts further batches. After any other error it is unknown
    /// whether the batch is stored; the engine has failed and returns [`EngineError::Failed`] from then on.
    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Receipt, EngineError>;

    /// Replaces everything in the store by the groups of the caller, in new files, which are on the disk when this returns. What the
    /// store contained does not matter, and none of it is read. The replacement counts as one batch. Then the engine accepts batches
    /// again, if it had failed.
    ///
    /// If the process ends in the meantime, the store is as it was before, or as it is afterwards.
    ///
    /// # Errors
    /// The new files could not be written, or the store was removed or replaced. The store is as it was, the engine has failed, and
    /// the caller may try again.
    fn start_anew(&mut self, groups: &mut dyn Groups) -> Result<Receipt, EngineError>;

    /// Does periodic work, and reports what would make the next commit fail: an error of a background thread, or files that were
    /// removed or replaced. The caller calls it about once a second, also while nothing is committed.
    ///
    /// # Errors
    /// As for a commit that failed: the engine has failed.
    fn maintain(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// The engine's own statistics. Cheap: accesses no disk.
    fn stats(&self) -> Stats;

    /// Makes everything durable, prepares the store for a quick start, and releases it for other processes.
    ///
    /// Dropping an engine is equivalent to a kill: it loses nothing that was committed.
    ///
    /// # Errors
    /// A file could not be written. What was committed is stored, as if the engine had been dropped.
    fn close(self: Box<Self>) -> Result<(), EngineError>;
}

/// The groups that [`Engine::start_anew`] writes. They may change in the meantime.
pub trait Groups {
    /// The keys of the groups that were added, changed or deleted since the last call; at first, of all groups. A key may come twice.
    fn changed(&mut self) -> Vec<Arc<str>>;

    /// Writes the record of a group as it is now to `record`. Returns false if the group does not exist.
    fn record(&mut self, key: &Arc<str>, record: &mut Vec<u8>) -> bool;
}

/// How often [`Engine::start_anew`] calls [`Groups::changed`] at most. The caller accepts no changes meanwhile, so only those that
/// were under way arrive.
pub const CHANGED_ROUNDS_MAX: usize = 16;

impl<'a> Change<'a> {
    /// Sets the record of a group, or deletes the group if there is none.
    pub fn of(key: &'a str, record: Option<&'a [u8]>) -> Self {
        match record {
            Some(record) => Self::Put { key, record },
            None => Self::Delete { key },
        }
    }

    /// The bytes of the key and of the record or patch.
    pub fn bytes(&self) -> u64 {
        let (key, content) = match self {
            Self::Put { key, record } => (key, record.len()),
            Self::Patch { key, patch } => (key, patch.len()),
            Self::Delete { key } => (key, 0),
        };
        (key.len() + content) as u64
    }
}

impl dyn Engine + '_ {
    /// [`Engine::read`] with a sink that can stop with a reason.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read_until<B: Send>(
        &mut self,
        threads: NonZeroUsize,
        sink: &(dyn Fn(&str, &[u8]) -> ControlFlow<B> + Sync),
    ) -> Result<ControlFlow<B, Restored>, EngineError> {
        let first = Mutex::new(None);
        let read = self.read(threads, &|key, record| {
            sink(key, record).map_break(|reason| {
                first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            })
        })?;
        match (read, first.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (_, Some(reason)) => Ok(ControlFlow::Break(reason)),
            (ControlFlow::Continue(restored), None) => Ok(ControlFlow::Continue(restored)),
            (ControlFlow::Break(()), None) => unreachable!("an engine stops only for its sink"),
        }
    }

    /// [`Engine::read`] with a sink that never stops.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read_all(
        &mut self,
        threads: NonZeroUsize,
        sink: &(dyn Fn(&str, &[u8]) + Sync),
    ) -> Result<Restored, EngineError> {
        let read = self.read(threads, &|key, record| {
            sink(key, record);
            ControlFlow::Continue(())
        })?;
        match read {
            ControlFlow::Continue(restored) => Ok(restored),
            ControlFlow::Break(()) => unreachable!("an engine stops only for its sink"),
        }
    }
}

/// Receives stored records: the text of the grouping key, and the record as it was committed, with its patches
/// applied.
pub type Sink<'a> = &'a (dyn Fn(&str, &[u8]) -> ControlFlow<()> + Sync);

/// A change of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets the record of the group.
    Put {
        /// The canonical text of the grouping key, `job="a",zone="eu"`. Never empty.
        key: &'a str,
        /// The encoded [`Record`](crate::record::Record). Opaque bytes to an engine, as long as the group is not patched.
        record: &'a [u8],
    },
    /// Changes a part of the record of the group: the record becomes what [`apply_patches`](crate::record::apply_patches) makes
    /// of it. Patching a group that does not exist changes nothing.
    ///
    /// The engine stores the patch, not the whole record, so a small change of a large group is a small write. [`Engine::read`] passes
    /// whole records only. The caller bounds the patches of a group: once they are about as large as the record, it puts the record.
    ///
    /// It does not bound those of numbers ([`is_numbers`](crate::record::is_numbers)): such a patch replaces one of its kind directly
    /// before it, so the engine keeps only the last one of several.
    Patch {
        /// As in [`Change::Put`].
        key: &'a str,
        /// An encoded [`Record`](crate::record::Record) with the times of the group and the families that changed, or
        /// [`Numbers`](crate::record::Numbers) with the times and the number of each line.
        patch: &'a [u8],
    },
    /// Deletes the group. Deleting a group that does not exist changes nothing.
    Delete {
        /// As in [`Change::Put`].
        key: &'a str,
    },
}

/// What a committed batch survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// A crash or kill of the process. A power failure may undo the last batches, but never one before others that survive.
    Process,
    /// Also a power failure.
    Disk,
}

/// Confirms that a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The number of the batch. Batches are numbered without gaps, across restarts too.
    pub sequence: u64,
}

/// The result of reading a store completely.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// How many records the store contains.
    pub records: u64,
    /// Bytes of their keys and records.
    pub record_bytes: u64,
    /// The number of the last batch; 0 before the first.
    pub sequence: u64,
    /// Whether the last user closed the store, instead of being killed or crashing.
    pub closed: bool,
    /// Deviations that a crash or power failure explains, for the log. Never empty if batches are missing.
    pub warnings: Vec<String>,
}

/// Statistics of an engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Bytes of the log, which a restart reads in addition to the archives. `None` if the engine has no log.
    pub log_bytes: Option<u64>,
    /// Bytes of the last archives. Without a log, bytes of all files.
    pub archive_bytes: u64,
    /// Seconds since the archives were last written; `None` if there are none.
    pub archive_age_seconds: Option<f64>,
    /// How long the last complete read took. The first includes opening the store.
    pub restore_seconds: f64,
    /// The number of the last batch.
    pub sequence: u64,
    /// The number of the last batch that survives a power failure.
    pub sequence_on_disk: u64,
    /// A failure of background work that persists, for example of writing an archive. It does not affect commits.
    pub background_error: Option<String>,
    /// Whether the background error is a panic: a fault of the program, which does not end by itself.
    pub background_panic: bool,
}
