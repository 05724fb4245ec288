//! Shards against the reference implementation: pushes, deletes, scrapes core by core, snapshots that outlive their scrape,
//! commits that end late, groups that move between the shards of a core, and restarts. The reference implementation finds the differences.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use sluicegate::reference::{Comparison, Mode, PushedFamily, Step};

/// More steps need more time, and hardly reach more states.
const STEPS_MAX: usize = 150;
/// Comparing everything takes most of the time, and a difference rarely disappears.
const COMPARED_STEPS: usize = 16;

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let names = input.int_in_range(0..=1).unwrap_or(0);
    let mut comparison = match input.arbitrary() {
        Ok(true) => Comparison::without_limits(names),
        _ => Comparison::new(names),
    }
    .comparing_every(COMPARED_STEPS);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(step) = step(&mut input) else { break };
        comparison.play(&step);
    }
    comparison.end();
});

fn step(input: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match input.int_in_range(0..=29)? {
        0..=7 => {
            let mode = if input.arbitrary()? { Mode::Replace } else { Mode::Merge };
            let group = input.int_in_range(0..=8)?;
            let families = (0..input.int_in_range(0..=4)?).map(|_| family(input)).collect::<Result<_>>()?;
            Step::Push(mode, group, families)
        }
        18..=21 => {
            let mode = if input.ratio(1, 4)? { Mode::Merge } else { Mode::Replace };
            Step::Again(mode, input.int_in_range(0..=8)?)
        }
        22 | 23 => Step::Merge,
        24..=26 => {
            let mode = if input.ratio(1, 4)? { Mode::Merge } else { Mode::Replace };
            Step::Known(mode, input.int_in_range(0..=8)?, input.int_in_range(0..=5)?)
        }
        27..=29 => {
            let mode = if input.ratio(1, 4)? { Mode::Merge } else { Mode::Replace };
            Step::Vary(mode, input.int_in_range(0..=8)?, input.int_in_range(0..=3)?, input.int_in_range(0..=5)?)
        }
        8 | 9 => Step::Delete(input.int_in_range(0..=8)?),
        10..=12 => Step::Collect,
        13 => Step::DropSnapshots,
        14 => Step::Commit(input.int_in_range(1..=20)?),
        15 => Step::Restart,
        _ => Step::Move(input.int_in_range(0..=8)?),
    })
}

fn family(input: &mut Unstructured<'_>) -> Result<PushedFamily> {
    let (name, kind) = (input.int_in_range(0..=3)?, input.int_in_range(0..=3)?);
    let labels: u8 = input.int_in_range(0..=63)?;
    let labels = (0..6).filter(|label| labels & (1 << label) != 0).collect();
    // A segment has about 16 KB, which are 300 such series.
    let bulk = if input.ratio(1, 8)? { input.int_in_range(0..=700)? } else { 0 };
    Ok(PushedFamily { name, kind, help: input.int_in_range(0..=3)?, labels, bulk })
}
