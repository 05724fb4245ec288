//! A death, a loss of power and a failing disk at each operation.

use std::sync::Arc;

use sluicegate_engine::suite::commit;
use sluicegate_engine::{Durability, EngineError};

use super::{Known, PLAN, check, durability, live, open_on};
use crate::files::Files;
use crate::files::simulated_disk::{Fault, Faulty};

const BATCHES: u64 = 90;

fn shared(files: &Faulty) -> Arc<dyn Files> {
    Arc::new(files.clone())
}

/// How many operations a life without faults takes.
fn operations() -> u64 {
    let files = Faulty::new(0);
    let mut known = Known::default();
    live(&shared(&files), &mut known, BATCHES).expect("nothing fails");
    assert_eq!(known.acknowledged, BATCHES);
    check(shared(&files), BATCHES, BATCHES, "without a fault");
    files.operations()
}

/// Lives until the fault, and says what the user knew.
fn live_until(fault: Fault, seed: u64) -> (Faulty, Known) {
    let files = Faulty::new(seed);
    files.set_fault(fault);
    let mut known = Known::default();
    let _ = live(&shared(&files), &mut known, BATCHES);
    (files, known)
}

/// The store can be used as if nothing had happened.
fn goes_on(files: &Faulty, from: u64, what: &str) {
    let (mut backend, _, _) = open_on(shared(files)).expect("it opened a moment ago");
    for number in from + 1..=from + 12 {
        // The last is for the disk, and carries all before it.
        let durability = if number < from + 12 { durability(number) } else { Durability::Disk };
        commit(backend.as_mut(), &PLAN.batch(number), durability)
            .unwrap_or_else(|error| panic!("{what}: batch {number}: {error}"));
    }
    drop(backend);
    check(shared(files), from + 12, from + 12, &format!("{what}, afterwards"));
}

#[test]
fn a_death_at_any_operation_loses_nothing_acknowledged() {
    let operations = operations();
    assert!(operations > 300, "{operations} operations are too few to mean anything");
    for at in 1..=operations {
        let what = format!("death at operation {at}");
        let (files, known) = live_until(Fault::Death(at), at);
        let next = files.after_kill(at);
        let found = check(shared(&next), known.acknowledged, known.acknowledged + 1, &what);
        goes_on(&next, found, &what);
    }
}

#[test]
fn a_loss_of_power_at_any_operation_loses_nothing_that_was_on_the_disk() {
    for at in 1..=operations() {
        let (files, known) = live_until(Fault::Death(at), at);
        for seed in 0..4 {
            let what = format!("loss of power at operation {at}, seed {seed}");
            let next = files.after_power_loss(at * 1000 + seed);
            let found = check(shared(&next), known.on_disk, known.acknowledged + 1, &what);
            goes_on(&next, found, &what);
        }
    }
}

#[test]
fn a_failing_operation_fails_the_engine_or_does_no_harm() {
    let mut failed = 0;
    for at in 1..=operations() {
        for seed in 0..3 {
            let what = format!("operation {at} fails, seed {seed}");
            let files = Faulty::new(at + seed);
            files.set_fault(Fault::Once(at));
            let (mut known, mut refused) = (Known::default(), false);
            if let Ok((mut backend, _, _)) = open_on(shared(&files)) {
                for number in 1..=BATCHES {
                    match commit(backend.as_mut(), &PLAN.batch(number), durability(number)) {
                        Ok(_) => {
                            assert!(!refused, "{what}: a failed store takes batch {number}");
                            known.acknowledged = number;
                            if durability(number) == Durability::Disk {
                                known.on_disk = number;
                            }
                        }
                        Err(error) => {
                            let is_failed = matches!(error, EngineError::Failed { .. });
                            assert_eq!(is_failed, refused, "{what}: {error}");
                            refused = true;
                        }
                    }
                }
                if seed == 2 && backend.close().is_ok() {
                    assert!(!refused, "{what}: a failed store closes as if nothing was");
                    known.on_disk = known.acknowledged;
                }
            }
            failed += u64::from(refused);
            let most = known.acknowledged + 1;
            let next = files.after_kill(at);
            let found = check(shared(&next), known.acknowledged, most, &what);
            // The next batches go to the disk, so all before them do.
            goes_on(&next, found, &what);
            let what = format!("{what}, then it goes on, then no power");
            check(shared(&next.after_power_loss(at)), found + 12, found + 12, &what);
            let next = files.after_power_loss(at * 10 + seed);
            let found = check(shared(&next), known.on_disk, most, &format!("{what}, then no power"));
            goes_on(&next, found, &what);
        }
    }
    assert!(failed > 100, "only {failed} faults met a commit");
}

#[test]
fn one_crash_after_the_other_leaves_a_state_that_was() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut files = Faulty::new(seed);
        let mut known = Known::default();
        for life in 0..8 {
            let what = format!("seed {seed}, life {life}");
            files.set_fault(Fault::Death(random.u64(1..250)));
            let _ = live(&shared(&files), &mut known, BATCHES);
            let (next, least) = match random.bool() {
                true => (files.after_kill(random.u64(..)), known.acknowledged),
                false => (files.after_power_loss(random.u64(..)), known.on_disk),
            };
            let sequence = check(shared(&next), least, known.acknowledged + 1, &what);
            // What was lost was lost: nobody counts on it any more.
            known = Known { acknowledged: sequence, on_disk: known.on_disk.min(sequence) };
            files = next;
        }
    }
}
