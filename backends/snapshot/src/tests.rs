//! Stores after something went wrong: at every single file operation, over several crashes, and with damaged files.

mod background;
mod closing;
mod crashes;
mod damage;
mod disk_usage;
mod format_1;
mod format_2;
mod format_3;
mod healing;
mod panics;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use sluicegate_engine::suite::{Plan, State, Subject, commit, restore};
use sluicegate_engine::{Durability, Engine, EngineError, Restored, UnreadStore};

use crate::files::FileSystem;
use crate::{Options, Snapshot};

/// The batches that the tests commit.
const PLAN: Plan = Plan { seed: 3, keys: 12, record_bytes_max: 700 };

/// With these, new segments, compactions and recycled segments occur after a few batches.
const TINY: Options = Options {
    partitions: 3,
    segment_bytes_min: 2048,
    segment_bytes_max: 8192,
    log_bytes: 12_000,
    compaction_interval: None,
    background: false,
};

/// The engine with some options, on a disk.
struct WithOptions(Options);

impl Subject for WithOptions {
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError> {
        Snapshot::open(folder, self.0)
    }
}

/// An open store and what it contained.
struct Opened {
    engine: Box<dyn Engine>,
    state: State,
    restored: Restored,
}

/// Opens a store on files that may be simulated, and restores it.
fn open_on(files: Arc<dyn FileSystem>, options: Options) -> Result<Opened, EngineError> {
    let store = UnreadStore::new(Snapshot::open_on(files, options)?);
    let (engine, state, restored) = restore(store, 1)?;
    Ok(Opened { engine, state, restored })
}

/// What the user of a store was promised.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Acknowledged {
    /// The last batch whose commit returned.
    process: u64,
    /// The last batch that must also survive a power failure.
    disk: u64,
}

impl Acknowledged {
    fn add(&mut self, sequence: u64, durability: Durability) {
        self.process = sequence;
        if durability == Durability::Disk {
            self.disk = sequence;
        }
    }
}

/// The durability of a batch: runs of each.
fn durability_of(sequence: u64) -> Durability {
    if (sequence / 8).is_multiple_of(2) { Durability::Process } else { Durability::Disk }
}

/// Opens a store three times and commits a third of `batches` each time, until an operation fails. The first store is closed,
/// the second dropped, the third closed.
fn run_three_times(
    files: &Arc<dyn FileSystem>,
    acknowledged: &mut Acknowledged,
    batches: u64,
) -> Result<(), EngineError> {
    for closes in [true, false, true] {
        let Opened { mut engine, restored, .. } = open_on(files.clone(), TINY)?;
        for expected in restored.sequence + 1..=restored.sequence + batches / 3 {
            let durability = durability_of(expected);
            let sequence = commit(engine.as_mut(), &PLAN.batch(expected), durability)?;
            assert_eq!(sequence, expected);
            acknowledged.add(sequence, durability);
        }
        if closes {
            engine.close()?;
            acknowledged.disk = acknowledged.process;
        }
    }
    Ok(())
}

/// Opens a store and checks that its state is the one after its last batch, whose number must be in `expected`. Returns that
/// number.
fn check_state(files: Arc<dyn FileSystem>, expected: RangeInclusive<u64>, case: &str) -> u64 {
    let opened = open_on(files, TINY).unwrap_or_else(|error| panic!("{case}: {error}"));
    let sequence = opened.restored.sequence;
    assert!(expected.contains(&sequence), "{case}: last batch {sequence}, expected {expected:?}");
    assert!(opened.state == PLAN.state(sequence), "{case}: not the state after batch {sequence}");
    sequence
}
