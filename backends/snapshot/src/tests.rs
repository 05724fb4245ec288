//! What is left when something goes wrong: at every single operation on a file, and in whole lives of crashes.

mod crashes;
mod damage;
mod format_1;
mod panics;

use std::sync::Arc;

use sluicegate_engine::suite::{Plan, State, commit, restore};
use sluicegate_engine::{Durability, Engine, EngineError, Restored};

use crate::files::Files;
use crate::{Options, Snapshot};

const PLAN: Plan = Plan { seed: 3, keys: 12, record_bytes_max: 700 };

/// Everything happens after a few batches: new segments, merges, blanks.
fn tiny() -> Options {
    Options {
        partitions: 3,
        segment_bytes_min: 2048,
        segment_bytes_max: 8192,
        log_bytes: 12_000,
        archive_interval: None,
        background: false,
    }
}

fn open_on(files: Arc<dyn Files>) -> Result<(Box<dyn Engine>, State, Restored), EngineError> {
    let mut backend: Box<dyn Engine> = Box::new(Snapshot::on(files, tiny())?);
    let (state, restored) = restore(backend.as_mut(), 1)?;
    Ok((backend, state, restored))
}

/// What a user of the store knows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Known {
    /// The last batch that was acknowledged,
    acknowledged: u64,
    /// and the last of which it was said that it survives a loss of power.
    on_disk: u64,
}

fn durability(number: u64) -> Durability {
    // Runs of each.
    if (number / 8).is_multiple_of(2) { Durability::Process } else { Durability::Disk }
}

/// Commits batches until something fails, leaving the store in between by a close and by a kill.
fn live(files: &Arc<dyn Files>, known: &mut Known, batches: u64) -> Result<(), EngineError> {
    let mut left = batches;
    for life in 0..3 {
        let (mut backend, _, restored) = open_on(files.clone())?;
        for number in restored.sequence + 1..=restored.sequence + batches / 3 {
            let durability = durability(number);
            let sequence = commit(backend.as_mut(), &PLAN.batch(number), durability)?;
            assert_eq!(sequence, number);
            known.acknowledged = number;
            if durability == Durability::Disk {
                known.on_disk = number;
            }
            left -= 1;
        }
        if life != 1 {
            backend.close()?;
            known.on_disk = known.acknowledged;
        }
    }
    assert!(left < 3);
    Ok(())
}

/// Opens and holds what is there against what may be there; returns the number of the last batch.
fn check(files: Arc<dyn Files>, least: u64, most: u64, what: &str) -> u64 {
    let (backend, state, restored) = open_on(files).unwrap_or_else(|error| panic!("{what}: {error}"));
    let sequence = restored.sequence;
    assert!((least..=most).contains(&sequence), "{what}: {sequence} of {least} to {most}");
    assert!(state == PLAN.state(sequence), "{what}: not the state after {sequence} batches");
    drop(backend);
    sequence
}
