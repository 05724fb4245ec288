//! A failing operation at every point, the new start after it, and a crash at every operation of the two.
//!
//! The test is a program that keeps its groups in memory, as a gateway does: a batch changes memory first, and a batch that was not
//! committed is there nevertheless. After an error, it starts anew from memory until that succeeds.

use std::sync::Arc;

use sluicegate_engine::Durability;
use sluicegate_engine::suite::{ChangingGroups, State, commit};

use super::{Opened, PLAN, TINY, durability_of, open_on};
use crate::files::FileSystem;
use crate::files::simulated_disk::{FailedPages, Fault, Operation, SimulatedDisk};

/// Enough for new segments and compactions.
const BATCHES: u64 = 32;
/// After how many operations after the first that fails the program may crash; a new start takes fewer.
const CRASHES: u64 = 45;
/// How many attempts fail before the disk works again.
const FAILED_ATTEMPTS: u64 = 2;

fn shared(disk: &SimulatedDisk) -> Arc<dyn FileSystem> {
    Arc::new(disk.clone())
}

/// What the program was promised, and when.
#[derive(Debug, Clone, Copy)]
struct Promise {
    /// The number of operations until then.
    operations: u64,
    /// How many batches survive a kill and a power failure. Memory may have more.
    process: u64,
    disk: u64,
    /// Whether a new start was necessary.
    is_new_start: bool,
}

/// A program and its store.
struct Program {
    disk: SimulatedDisk,
    engine: Box<dyn sluicegate_engine::Engine>,
    /// The number of batches in memory.
    batches: u64,
    promises: Vec<Promise>,
    new_starts: u64,
}

impl Program {
    fn start(disk: SimulatedDisk) -> Self {
        let Opened { engine, .. } = open_on(shared(&disk), TINY).expect("opening writes nothing");
        let promises = vec![Promise { operations: 0, process: 0, disk: 0, is_new_start: false }];
        Self { disk, engine, batches: 0, promises, new_starts: 0 }
    }

    fn promise(&mut self, durability: Durability, is_new_start: bool) {
        let last = self.promises.last().expect("there is a first");
        let disk = if durability == Durability::Disk { self.batches } else { last.disk };
        let operations = self.disk.operations();
        self.promises.push(Promise { operations, process: self.batches, disk, is_new_start });
    }

    /// Commits all batches. After an error, starts anew until it succeeds; the disk works again after some attempts.
    fn run(&mut self, case: &str) {
        for number in 1..=BATCHES {
            self.batches = number;
            let durability = durability_of(number);
            if commit(self.engine.as_mut(), &PLAN.batch(number), durability).is_ok() {
                self.promise(durability, false);
                continue;
            }
            for attempt in 0.. {
                if attempt == FAILED_ATTEMPTS {
                    self.disk.clear_fault();
                }
                assert!(attempt <= FAILED_ATTEMPTS, "{case}: no new start on a disk that works");
                // Some of what memory has arrives late.
                let early = Some(PLAN.state(number - attempt.min(number))).filter(|state| !state.is_empty());
                let states = early.into_iter().chain([PLAN.state(number)]);
                if self.engine.start_anew(&mut ChangingGroups::new(states)).is_ok() {
                    break;
                }
            }
            self.promise(Durability::Disk, true);
            self.new_starts += 1;
        }
    }

    /// What was promised before an operation.
    fn promised_before(&self, operation: u64) -> Promise {
        let mut promises = self.promises.iter().rev();
        *promises.find(|promise| promise.operations < operation).expect("there is a first")
    }

    /// Whether the next promise after an operation needed a new start.
    fn is_healing(&self, operation: u64) -> bool {
        let next = self.promises.iter().find(|promise| promise.operations >= operation);
        next.is_some_and(|promise| promise.is_new_start)
    }
}

/// All states that memory had, by the number of batches.
fn states() -> Vec<State> {
    (0..=BATCHES).map(|batches| PLAN.state(batches)).collect()
}

/// Checks that a store contains what memory had after at least `least` batches, and that it can be used.
fn check(disk: &SimulatedDisk, least: u64, states: &[State], case: &str) {
    let Opened { mut engine, state, restored } =
        open_on(shared(disk), TINY).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(states[least as usize..].contains(&state), "{case}: less than after batch {least}");
    let next = commit(engine.as_mut(), &PLAN.batch(1), Durability::Disk);
    assert_eq!(next.unwrap_or_else(|error| panic!("{case}: {error}")), restored.sequence + 1);
    drop(engine);
    let mut expected = state;
    PLAN.batch(1).iter().for_each(|op| op.apply(&mut expected));
    let again = open_on(shared(&disk.after_power_failure(least)), TINY)
        .unwrap_or_else(|error| panic!("{case}, then a power failure: {error}"));
    assert!(again.state == expected, "{case}, then a power failure");
}

/// Runs a program in which an operation fails, and checks every crash from then on. Returns whether it had to start anew.
fn check_fault(failed: u64, fault: Fault, pages: FailedPages, states: &[State]) -> bool {
    let disk = SimulatedDisk::new(failed);
    disk.set_failed_pages(pages);
    disk.set_fault(fault);
    disk.copy_after(failed..failed + CRASHES);
    let mut program = Program::start(disk.clone());
    let case = format!("{fault:?}, failed pages {pages:?}");
    program.run(&case);
    for (operation, image) in disk.copies() {
        let promise = program.promised_before(operation);
        // Until the new files are there, what was in the page cache only may be gone with its pages.
        let is_lost = pages == FailedPages::Dropped && program.is_healing(operation);
        let least = if is_lost { promise.disk } else { promise.process };
        let case = format!("{case}, a crash after operation {operation}");
        // Faults that last are many, so of their crashes every second one is a power failure.
        let is_single = matches!(fault, Fault::Once(_));
        if is_single || operation % 2 == 0 {
            check(&image.after_kill(operation), least, states, &format!("{case}: a kill"));
        }
        if is_single || operation % 2 == 1 {
            let disk = image.after_power_failure(operation);
            check(&disk, promise.disk, states, &format!("{case}: a power failure"));
        }
    }
    let end = disk.after_kill(failed);
    check(&end, BATCHES, states, &format!("{case}, at the end"));
    program.new_starts > 0
}

/// The number of operations of a run without faults.
fn count_operations() -> u64 {
    let disk = SimulatedDisk::new(0);
    let mut program = Program::start(disk.clone());
    program.run("without a fault");
    assert_eq!(program.new_starts, 0);
    let operations = disk.operations();
    assert!(operations > 150, "{operations} operations do not cover new segments and compactions");
    operations
}

/// Checks a fault at every operation.
fn check_faults(fault: impl Fn(u64) -> Fault) {
    let states = states();
    let mut new_starts = 0;
    for failed in 1..=count_operations() {
        let pages = [FailedPages::Remain, FailedPages::Dropped][failed as usize % 2];
        new_starts += u64::from(check_fault(failed, fault(failed), pages, &states));
    }
    assert!(new_starts > 50, "only {new_starts} new starts");
}

#[test]
fn after_one_failing_operation_a_new_start_keeps_everything() {
    check_faults(Fault::Once);
}

#[test]
fn after_one_failing_sync_a_new_start_keeps_what_the_kernel_has_dropped() {
    let states = states();
    for failed in 1..=count_operations() {
        check_fault(failed, Fault::Once(failed), FailedPages::Dropped, &states);
    }
}

#[test]
fn while_syncs_fail_every_new_start_keeps_everything() {
    check_faults(|at| Fault::From(at, &[Operation::Sync]));
}

#[test]
fn while_syncs_of_the_folder_fail_every_new_start_keeps_everything() {
    check_faults(|at| Fault::From(at, &[Operation::SyncFolder]));
}

#[test]
fn while_the_disk_is_full_every_new_start_keeps_everything() {
    check_faults(|at| Fault::From(at, &[Operation::Create, Operation::Write]));
}

#[test]
fn while_names_cannot_be_changed_every_new_start_keeps_everything() {
    check_faults(|at| Fault::From(at, &[Operation::Rename, Operation::Remove]));
}

#[test]
fn a_store_whose_manifest_was_exchanged_does_not_start_anew() {
    let disk = SimulatedDisk::new(1);
    let mut program = Program::start(disk.clone());
    for number in 1..=BATCHES {
        commit(program.engine.as_mut(), &PLAN.batch(number), Durability::Disk).expect("nothing fails");
    }
    let other = SimulatedDisk::new(2);
    Program::start(other.clone()).run("another store");
    let manifest = |disk: &SimulatedDisk| {
        let file = disk.open(crate::manifest::NAME).expect("the manifest");
        let mut bytes = vec![0; file.length().expect("its length") as usize];
        file.read_at(&mut bytes, 0).expect("its content");
        bytes
    };
    let (ours, others) = (manifest(&disk), manifest(&other));
    let replace = |bytes: &[u8]| {
        disk.create(crate::manifest::NAME).and_then(|file| file.write_at(bytes, 0)).expect("no fault");
    };
    let mut start = || program.engine.start_anew(&mut ChangingGroups::new([PLAN.state(BATCHES)]));
    replace(&others);
    assert!(matches!(start(), Err(sluicegate_engine::EngineError::Moved { .. })));
    disk.remove(crate::manifest::NAME).expect("no fault");
    assert!(start().is_err());
    replace(&ours);
    start().expect("it is the same store again");
    check(&disk.after_power_failure(1), BATCHES, &states(), "after it was put back");
}
