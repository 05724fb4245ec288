//! Steps of large commands that once were one step, and kept a core for many milliseconds.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::key::GroupingKey;
use super::limits::StateLimits;
use super::outcome::Outcome;
use super::push::{Mode, Push};
use super::{Decision, Lookups, PushAttempt, Shard};
use crate::exposition::consistency::Inconsistency;
use crate::exposition::model::MetricType;
use crate::reference::{Gateway, in_slices, push_of};

const FAMILIES: usize = 500;

fn key(job: &str, zone: Option<&str>) -> GroupingKey {
    let zone = zone.map(|zone| ("zone".to_owned(), zone.to_owned()));
    GroupingKey::new([("job".to_owned(), job.to_owned())].into_iter().chain(zone))
}

fn put(key: &GroupingKey, body: &str) -> Push {
    push_of(Mode::Replace, key, body).expect("is readable")
}

fn many_families(count: usize) -> String {
    (0..count).map(|number| format!("m{number:03} 1\n")).collect()
}

#[test]
fn the_old_lines_of_a_group_are_freed_in_slices() {
    const SLICE_BYTES: usize = 100_000;
    let (mut gateway, key) = (Gateway::new(), key("a", None));
    let long: String = (0..20_000)
        .map(|number| format!("m{{number=\"{number}\",text=\"a value that makes lines longer\"}} 1\n"))
        .collect();
    assert_eq!(gateway.push(put(&key, &long)), Outcome::Applied);
    let shard = gateway.shard(&key);
    let bytes = shard.counts().bytes;
    let (mut edit, mut slices) = (Shard::delete(shard, &key), 1);
    while let ControlFlow::Continue(rest) = edit.advance(SLICE_BYTES) {
        (edit, slices) = (rest, slices + 1);
    }
    assert!(slices > bytes / SLICE_BYTES / 2, "{slices} slices for {bytes} bytes");
}

/// Another group has all families with other label names, so all of them are announced, looked up, and withdrawn.
#[test]
fn families_with_several_sets_are_announced_and_looked_up_in_slices() {
    let mut gateway = Gateway::new();
    let (key, body) = (key("a", Some("x")), many_families(FAMILIES));
    assert_eq!(gateway.push(put(&self::key("a", None), &body)), Outcome::Applied);
    let push = Arc::new(put(&key, &body));

    let names: Vec<Arc<str>> = (0..FAMILIES).map(|number| format!("m{number:03}").into()).collect();
    let registry = gateway.registry.clone();
    let looked_up = push.clone();
    let (lookups, slices) = in_slices(1, async |pace| Lookups::new(registry, looked_up, &names, pace).await);
    assert!(slices > FAMILIES, "{slices} slices to begin");
    let ((), slices) = in_slices(1, async |pace| lookups.free(pace).await);
    assert!(slices > FAMILIES, "{slices} slices to free");

    let mut attempt = PushAttempt::default();
    let shard = gateway.shard(&key);
    let (decision, slices) =
        in_slices(1, async |pace| Shard::decide_in_slices(shard, &push, &mut attempt, 1.0, pace).await);
    assert!(matches!(decision, Decision::WaitFor(_)));
    drop(decision);
    assert_eq!(attempt.announced.len(), FAMILIES);
    // Adding up, planning, comparing, marking, checking, announcing, unmarking; then freeing both lists of the plan, and remembering the
    // announced sets.
    assert!(slices > 9 * FAMILIES, "{slices} slices to announce");

    let reason = Inconsistency::type_conflict("m", MetricType::Gauge, MetricType::Counter);
    let shard = gateway.shard(&key);
    let (failed, slices) =
        in_slices(1, async |pace| Shard::record_failure(shard, &push, &mut attempt, reason, 1.0, pace).await);
    assert!(matches!(failed, Decision::Apply(_)) && attempt.announced.is_empty());
    assert!(slices > FAMILIES, "{slices} slices to withdraw");
}

/// A wipe deletes some groups between two yields.
#[test]
fn few_groups_with_many_families_are_deleted_at_a_time() {
    let mut gateway = Gateway::new();
    for number in 0..40 {
        assert_eq!(gateway.push(put(&key(&number.to_string(), None), &many_families(60))), Outcome::Applied);
    }
    let shard = gateway.shard(&key("0", None));
    let (mut seen, mut next) = (0, Some(0));
    while let Some(from) = next {
        let keys;
        (keys, next) = shard.some_keys(from, 130);
        assert!((1..=2).contains(&keys.len()), "{} groups", keys.len());
        seen += keys.len();
    }
    assert_eq!(seen, shard.counts().groups);
    assert!(seen > 2);
    // One group is more than enough.
    assert_eq!(shard.some_keys(0, 1).0.len(), 1);
}

/// Once, all groups of a round were sorted in one step, and its memory was freed in one.
#[test]
fn a_round_begins_ends_and_goes_on_in_slices() {
    const GROUPS: usize = 3_000;
    const SHAPES: usize = 40;
    let mut gateway = Gateway::with_limits(StateLimits::default());
    let body = |shape: usize| -> String {
        (0..20).map(|number| format!("m{{shape=\"{shape}\",number=\"{number}\"}} 1\n")).collect()
    };
    for _ in 0..3 {
        for group in 0..GROUPS {
            let (key, body) = (key(&group.to_string(), None), body(group % SHAPES));
            assert_eq!(gateway.push_body(put(&key, &body), &body), Outcome::Applied);
        }
        gateway.commit();
    }
    for shard in &mut gateway.shards {
        let (groups, segments) = (shard.counts().groups, shard.counts().segments);
        assert_eq!(shard.pending_groups(), groups);
        let round = shard.next_merged().expect("numbers are pending");
        let mut steps = 1;
        while !shard.merge(1) {
            steps += 1;
        }
        assert!(shard.is_merged(round));
        // Listing the families of each shape, rewriting each segment but the failure times, and freeing each shape and its numbers.
        let failure_segments = segments / 10;
        assert!(steps >= 3 * SHAPES + segments - failure_segments, "{steps} steps for {segments} segments");
    }
}
