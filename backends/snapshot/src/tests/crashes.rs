//! A kill, a power failure and a failing disk at every file operation.

use std::sync::Arc;

use sluicegate_engine::suite::commit;
use sluicegate_engine::{Durability, EngineError};

use super::{Acknowledged, Opened, PLAN, TINY, check_state, durability_of, open_on, run_three_times};
use crate::files::FileSystem;
use crate::files::simulated_disk::{Fault, SimulatedDisk};

const BATCHES: u64 = 90;
/// How many batches [`check_continues`] commits.
const FURTHER_BATCHES: u64 = 12;

fn shared(disk: &SimulatedDisk) -> Arc<dyn FileSystem> {
    Arc::new(disk.clone())
}

/// The number of operations of a run without faults.
fn count_operations() -> u64 {
    let disk = SimulatedDisk::new(0);
    let mut acknowledged = Acknowledged::default();
    run_three_times(&shared(&disk), &mut acknowledged, BATCHES).expect("nothing fails");
    assert_eq!(acknowledged.process, BATCHES);
    check_state(shared(&disk), BATCHES..=BATCHES, "without a fault");
    let operations = disk.operations();
    assert!(operations > 300, "{operations} operations do not cover new segments and compactions");
    operations
}

/// Runs until the fault.
fn run_until(fault: Fault, seed: u64) -> (SimulatedDisk, Acknowledged) {
    let disk = SimulatedDisk::new(seed);
    disk.set_fault(fault);
    let mut acknowledged = Acknowledged::default();
    let _ = run_three_times(&shared(&disk), &mut acknowledged, BATCHES);
    (disk, acknowledged)
}

/// Checks that a store whose last batch is `last` can be used as if nothing had happened. Afterwards everything is on the disk.
fn check_continues(disk: &SimulatedDisk, last: u64, case: &str) {
    let Opened { mut engine, .. } = open_on(shared(disk), TINY).expect("it was opened before");
    let end = last + FURTHER_BATCHES;
    for sequence in last + 1..=end {
        let durability = if sequence < end { durability_of(sequence) } else { Durability::Disk };
        commit(engine.as_mut(), &PLAN.batch(sequence), durability)
            .unwrap_or_else(|error| panic!("{case}: batch {sequence}: {error}"));
    }
    drop(engine);
    check_state(shared(disk), end..=end, &format!("{case}, then further batches"));
}

#[test]
fn a_kill_at_any_operation_loses_no_acknowledged_batch() {
    for at in 1..=count_operations() {
        let case = format!("killed at operation {at}");
        let (disk, acknowledged) = run_until(Fault::Death(at), at);
        let next = disk.after_kill(at);
        let expected = acknowledged.process..=acknowledged.process + 1;
        let last = check_state(shared(&next), expected, &case);
        check_continues(&next, last, &case);
    }
}

#[test]
fn a_power_failure_at_any_operation_loses_no_batch_on_the_disk() {
    for at in 1..=count_operations() {
        let (disk, acknowledged) = run_until(Fault::Death(at), at);
        for seed in 0..4 {
            let case = format!("power failure at operation {at}, seed {seed}");
            let next = disk.after_power_failure(at * 1000 + seed);
            let expected = acknowledged.disk..=acknowledged.process + 1;
            let last = check_state(shared(&next), expected, &case);
            check_continues(&next, last, &case);
        }
    }
}

#[test]
fn a_failing_operation_fails_the_engine_or_does_no_harm() {
    let mut failed_engines = 0;
    for at in 1..=count_operations() {
        for seed in 0..3 {
            let case = format!("operation {at} fails, seed {seed}");
            let disk = SimulatedDisk::new(at + seed);
            disk.set_fault(Fault::Once(at));
            let (acknowledged, has_failed) = run_with_failing_operation(&disk, seed == 2, &case);
            failed_engines += u64::from(has_failed);

            let expected = acknowledged.process..=acknowledged.process + 1;
            let next = disk.after_kill(at);
            let last = check_state(shared(&next), expected, &case);
            check_continues(&next, last, &case);
            let end = last + FURTHER_BATCHES;
            let after_both = next.after_power_failure(at);
            check_state(shared(&after_both), end..=end, &format!("{case}, then a kill and a power failure"));

            let case = format!("{case}, then a power failure");
            let expected = acknowledged.disk..=acknowledged.process + 1;
            let next = disk.after_power_failure(at * 10 + seed);
            let last = check_state(shared(&next), expected, &case);
            check_continues(&next, last, &case);
        }
    }
    assert!(failed_engines > 100, "only {failed_engines} faults met a commit");
}

/// Commits batches while one operation fails. Returns what was acknowledged, and whether the engine failed.
fn run_with_failing_operation(disk: &SimulatedDisk, closes: bool, case: &str) -> (Acknowledged, bool) {
    let (mut acknowledged, mut has_failed) = (Acknowledged::default(), false);
    let Ok(Opened { mut engine, .. }) = open_on(shared(disk), TINY) else {
        return (acknowledged, has_failed);
    };
    for sequence in 1..=BATCHES {
        let durability = durability_of(sequence);
        match commit(engine.as_mut(), &PLAN.batch(sequence), durability) {
            Ok(_) => {
                assert!(!has_failed, "{case}: a failed engine accepts batch {sequence}");
                acknowledged.add(sequence, durability);
            }
            Err(error) => {
                let is_consequence = matches!(error, EngineError::Failed { .. });
                assert_eq!(is_consequence, has_failed, "{case}: {error}");
                has_failed = true;
            }
        }
    }
    if closes && engine.close().is_ok() {
        assert!(!has_failed, "{case}: a failed engine closes without an error");
        acknowledged.disk = acknowledged.process;
    }
    (acknowledged, has_failed)
}

#[test]
fn repeated_crashes_leave_a_state_that_was_committed() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut disk = SimulatedDisk::new(seed);
        let mut acknowledged = Acknowledged::default();
        for crash in 1..=8 {
            let case = format!("seed {seed}, crash {crash}");
            disk.set_fault(Fault::Death(random.u64(1..250)));
            let _ = run_three_times(&shared(&disk), &mut acknowledged, BATCHES);
            let (next, least) = if random.bool() {
                (disk.after_kill(random.u64(..)), acknowledged.process)
            } else {
                (disk.after_power_failure(random.u64(..)), acknowledged.disk)
            };
            let last = check_state(shared(&next), least..=acknowledged.process + 1, &case);
            // What a power failure lost is no longer promised.
            acknowledged = Acknowledged { process: last, disk: acknowledged.disk.min(last) };
            disk = next;
        }
    }
}
