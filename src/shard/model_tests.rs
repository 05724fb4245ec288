//! Shards compared with the reference implementation, and cases that once went wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::key::GroupingKey;
use super::limits::StateLimits;
use super::outcome::{Outcome, Rejection};
use super::push::{Mode, Push};
use super::{Applied, Decision, DuplicateCheck, Lookups, Pace, PushAttempt, Shard};
use crate::reference::{CORES, Comparison, Gateway, OF_ONE_SET, PushedFamily, Step, in_slices, push_of};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Most families can be in a shape: plain ones, whose series have the same label names. And most groups agree about their types.
    let zones = || prop_oneof![Just(1_usize), Just(4), Just(5)];
    let labels = prop_oneof![
        1 => prop::collection::btree_set(0..5_usize, 1..3),
        4 => prop::collection::btree_set(zones(), 1..3),
    ];
    let kind = prop_oneof![4 => Just(None), 1 => (0..4_usize).prop_map(Some)];
    let help = prop_oneof![4 => Just(0), 1 => 0..3_usize];
    let family = (0..4_usize, kind, help, labels).prop_map(|(name, kind, help, labels)| PushedFamily {
        name,
        kind: kind.unwrap_or(name % 2),
        help,
        labels,
        bulk: 0,
    });
    let mode = || prop_oneof![4 => Just(Mode::Replace), 1 => Just(Mode::Merge)];
    let families = prop_oneof![1 => Just(0..1), 8 => Just(1..4)];
    let push = (
        mode(),
        0..9_usize,
        families.prop_flat_map(move |count| prop::collection::vec(family.clone(), count)),
    )
        .prop_map(|(mode, key, families)| Step::Push(mode, key, families));
    let step = prop_oneof![
        8 => push,
        8 => (mode(), 0..9_usize)
            .prop_map(|(mode, key)| Step::Again(mode, key)),
        8 => (mode(), 0..9_usize, 0..6_usize)
            .prop_map(|(mode, key, body)| Step::Known(mode, key, body)),
        8 => (mode(), 0..9_usize, 0..2_usize, zones())
            .prop_map(|(mode, key, family, label)| Step::Vary(mode, key, family, label)),
        3 => (0..9_usize).prop_map(Step::Delete),
        6 => Just(Step::Collect),
        2 => Just(Step::Merge),
        1 => Just(Step::DropSnapshots),
        2 => prop_oneof![Just(1), Just(usize::MAX)].prop_map(Step::Commit),
        1 => Just(Step::Restart),
        1 => (0..9_usize).prop_map(Step::Move),
    ];
    prop::collection::vec(step, 1..80)
}

/// The same step for a group with the label names of the first one.
fn of_one_set(step: &Step) -> Step {
    let mut step = step.clone();
    match &mut step {
        Step::Push(_, key, _)
        | Step::Again(_, key)
        | Step::Known(_, key, _)
        | Step::Vary(_, key, ..)
        | Step::Delete(key)
        | Step::Move(key) => *key = OF_ONE_SET[*key % OF_ONE_SET.len()],
        Step::Collect | Step::Merge | Step::DropSnapshots | Step::Commit(_) | Step::Restart => {}
    }
    step
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn shards_behave_like_the_reference_implementation(
        steps in steps(),
        names in 0..2_usize,
        has_limits in prop::bool::weighted(0.25),
        // Groups change between shapes only while all groups of their families have the same label names.
        of_one_set in 0..120_usize,
    ) {
        let mut comparison =
            if has_limits { Comparison::new(names) } else { Comparison::without_limits(names) };
        for (at, step) in steps.iter().enumerate() {
            comparison.play(&if at < of_one_set { self::of_one_set(step) } else { step.clone() });
        }
        // Both a gateway that was restored and one that was not must be able to delete everything.
        if steps.len().is_multiple_of(2) {
            comparison.play(&Step::Restart);
        }
        comparison.end();
    }
}

/// Pushes of few bodies, all of which have a shape.
fn steps_with_shapes() -> impl Strategy<Value = Vec<Step>> {
    let labels = prop::collection::btree_set(prop_oneof![Just(1_usize), Just(4), Just(5)], 1..3);
    let help = prop_oneof![9 => Just(0), 1 => Just(1_usize)];
    // Most bodies have the same families.
    let is_left_out = prop::bool::weighted(0.1);
    let families = prop::collection::vec((help, labels, is_left_out), 4);
    let bodies = (1..=4_usize, prop::collection::vec(families, 2..5)).prop_map(|(names, bodies)| {
        let family = |(name, (help, labels, is_left_out)): (usize, (usize, BTreeSet<usize>, bool))| {
            let family = PushedFamily { name, kind: name % 2, help, labels, bulk: 0 };
            (!is_left_out).then_some(family)
        };
        let body = |families: Vec<_>| (0..names).zip(families).filter_map(family).collect::<Vec<_>>();
        bodies.into_iter().map(body).collect::<Vec<_>>()
    });
    bodies.prop_flat_map(|bodies| {
        let mode = prop_oneof![6 => Just(Mode::Replace), 1 => Just(Mode::Merge)];
        // Others join now and then, and do not stay.
        let key = prop_oneof![8 => prop::sample::select(&OF_ONE_SET[..]), 1 => 2..7_usize];
        let push = (mode, key, prop::sample::select(bodies))
            .prop_map(|(mode, key, families)| Step::Push(mode, key, families));
        let step = prop_oneof![
            20 => push,
            1 => prop::sample::select(&OF_ONE_SET[..]).prop_map(Step::Delete),
            5 => (2..7_usize).prop_map(Step::Delete),
            8 => Just(Step::Collect),
            4 => Just(Step::Merge),
            2 => prop_oneof![Just(1), Just(usize::MAX)].prop_map(Step::Commit),
            1 => Just(Step::DropSnapshots),
        ];
        prop::collection::vec(step, 1..80)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn groups_that_change_their_shapes_behave_like_the_reference_implementation(steps in steps_with_shapes()) {
        let mut comparison = Comparison::without_limits(0);
        steps.iter().for_each(|step| comparison.play(step));
        comparison.end();
    }
}

/// The random steps have only short families.
#[test]
fn long_families_behave_like_the_reference_implementation() {
    let family = |name, bulk| PushedFamily { name, kind: 3, help: 0, labels: [0, 1].into(), bulk };
    for has_limits in [false, true] {
        let mut comparison = if has_limits { Comparison::new(0) } else { Comparison::without_limits(0) };
        comparison.play(&Step::Push(Mode::Replace, 1, vec![family(1, 637), family(3, 0)]));
        comparison.play(&Step::Again(Mode::Replace, 1));
        comparison.play(&Step::Push(Mode::Replace, 1, vec![family(1, 2)]));
        comparison.play(&Step::Again(Mode::Replace, 1));
        comparison.play(&Step::Restart);
        comparison.end();
    }
}

fn pairs(job: &str, zone: Option<&str>) -> GroupingKey {
    let zone = zone.map(|zone| ("zone".to_owned(), zone.to_owned()));
    GroupingKey::new([("job".to_owned(), job.to_owned())].into_iter().chain(zone))
}

fn put(key: &GroupingKey, body: &str) -> Push {
    push_of(Mode::Replace, key, body).expect("is readable")
}

/// Clients choose label names, so a set must not outlive the groups, the announcements and the retired slots that use it.
#[test]
fn sets_of_label_names_are_freed_with_their_last_group() {
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&pairs("stays", None), "m 1\n")), Outcome::Applied);
    for number in 0..500 {
        let labels = [("job".to_owned(), "a".to_owned()), (format!("name{number}"), "x".to_owned())];
        let key = GroupingKey::new(labels);
        if number % 3 == 0 {
            gateway.collect();
        }
        assert_eq!(gateway.push(put(&key, "m 1\n")), Outcome::Applied);
        gateway.delete(&key);
        if number % 2 == 0 {
            gateway.commit();
        }
        // The set that stays, one that each core has not released yet, and those that a commit or collection retires.
        assert!(gateway.registry.sets_len() <= 1 + CORES + 3, "{} sets", gateway.registry.sets_len());
    }
}

/// Long lines are retired without a copy, and freed when the commit has ended.
#[test]
fn long_retired_lines_are_freed_after_the_commit() {
    let mut gateway = Gateway::new();
    let (first, second) = (pairs("a", None), pairs("a", Some("x")));
    let lines: String = (0..5_000).map(|number| format!("m{{a=\"{number}\"}} 1\n")).collect();
    assert_eq!(gateway.push(put(&first, &lines)), Outcome::Applied);
    assert_eq!(gateway.push(put(&second, "m 1\n")), Outcome::Applied);
    gateway.delete(&first);
    let shard = gateway.shard(&first);
    assert!(shard.oldest_retired_series().is_some());
    assert!(!shard.free_retired_series(usize::MAX), "the commit reserves them");
    gateway.commit();
    let shard = gateway.shard(&first);
    let slices =
        std::iter::repeat_with(|| shard.free_retired_series(64 << 10)).take_while(|more| *more).count();
    assert!(slices >= 2, "{slices} slices");
    assert_eq!(shard.oldest_retired_series(), None);
}

/// A series released on a core that was already collected must not appear as another group's series on a core that was not.
#[test]
fn a_retired_series_keeps_its_duplicate_out_of_the_same_scrape() {
    let job = (0..)
        .map(|number| format!("job{number}"))
        .find(|job| (pairs(job, None).home(CORES), pairs(job, Some("x")).home(CORES)) == (0, 1));
    let job = job.expect("some job has its groups on both cores");
    let mut gateway = Gateway::new();
    // Keeps both sets of label names in the family.
    for key in [pairs("other", None), pairs("other", Some("y"))] {
        assert_eq!(gateway.push(put(&key, "m{a=\"1\"} 1\n")), Outcome::Applied);
    }
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"x\"} 1\n")), Outcome::Applied);
    let duplicate = || put(&pairs(&job, Some("x")), "m 1\n");
    assert!(matches!(gateway.push(duplicate()), Outcome::Inconsistent(_)), "the series exists");
    gateway.collect();
    gateway.collect();
    gateway.delete(&pairs(&job, None));
    assert!(gateway.collection.is_some());
    assert_eq!(gateway.push(duplicate()), Outcome::Applied);
    assert!(gateway.collection.is_none(), "the push waited for the scrape that shows the retired series");
}

/// The same, if the whole set of label names left the family with the series. The other set was then alone, and its groups once
/// added new series without a look-up.
#[test]
fn a_retired_series_outlives_its_set_of_label_names() {
    let job = (0..)
        .map(|number| format!("job{number}"))
        .find(|job| (pairs(job, Some("x")).home(CORES), pairs(job, None).home(CORES)) == (0, 1));
    let job = job.expect("some job has its groups on both cores");
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&pairs(&job, Some("x")), "m 1\n")), Outcome::Applied);
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"y\"} 1\n")), Outcome::Applied);
    gateway.commit();
    gateway.collect();
    gateway.collect();
    gateway.delete(&pairs(&job, Some("x")));
    assert!(gateway.collection.is_some());
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"x\"} 1\n")), Outcome::Applied);
    assert!(gateway.collection.is_none(), "the push waited for the scrape that shows the retired series");
}

/// Otherwise a store could contain both the group that released a name and the one that claimed it.
#[test]
fn a_claim_waits_for_the_commit_of_the_release() {
    let job_on = |wanted: usize| {
        let jobs = (0..).map(|number| format!("job{number}"));
        jobs.into_iter()
            .find(|job| pairs(job, None).home(CORES) == wanted)
            .expect("some job has its group on that core")
    };
    let (first, second) = (pairs(&job_on(0), None), pairs(&job_on(1), None));
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&first, "# TYPE m gauge\nm 1\n")), Outcome::Applied);
    gateway.delete(&first);
    assert_eq!(gateway.commits.len(), 1, "the released name is reserved until the commit");
    let claim = Arc::new(put(&second, "# TYPE m counter\nm 1\n"));
    let mut attempt = PushAttempt::default();
    let Decision::WaitFor(epoch) = Shard::decide(gateway.shard(&second), &claim, &mut attempt, 9.0) else {
        panic!("the name was claimed before the delete was committed");
    };
    assert!(!gateway.registry.is_past(epoch));
    gateway.commit();
    assert!(gateway.registry.is_past(epoch));
    let decision = Shard::decide(gateway.shard(&second), &claim, &mut attempt, 9.0);
    assert!(matches!(decision, Decision::Apply(_)));
    // The core itself need not wait, because its changes reach the store in order.
    assert_eq!(gateway.push(put(&first, "# TYPE n gauge\nn 1\n")), Outcome::Applied);
    gateway.delete(&first);
    let again = Arc::new(put(&first, "# TYPE n counter\nn 1\n"));
    let decision = Shard::decide(gateway.shard(&first), &again, &mut attempt, 9.0);
    assert!(matches!(decision, Decision::Apply(_)));
}

/// The text of a group may lack series of its latest numbers. A group with other label names must not get them meanwhile, or before the
/// store knows that they are gone.
#[test]
fn series_of_pending_numbers_are_found_and_retired() {
    let job_on = |wanted: usize| {
        let keys = (0..).map(|number| pairs(&format!("job{number}"), None));
        keys.into_iter().find(|key| key.home(CORES) == wanted).expect("some job has its group on that core")
    };
    let first = job_on(0);
    let job = first.labels()[0].1.clone();
    let (second, other) = (pairs(&job, Some("x")), pairs("other", Some("y")));
    let mut gateway = Gateway::with_limits(StateLimits::default());
    let push = |gateway: &mut Gateway, key: &GroupingKey, body: &str| gateway.push_body(put(key, body), body);
    let [few, many] = ["m{zone=\"y\"} 1\n", "m{zone=\"x\"} 1\nm{zone=\"y\"} 1\n"];
    // The second push of each makes its shape, and then the group changes from one to the other.
    for body in [many, many, few, few, many] {
        assert_eq!(push(&mut gateway, &first, body), Outcome::Applied);
    }
    assert!(gateway.shard(&first).next_merged().is_some(), "the numbers are pending");
    assert_eq!(push(&mut gateway, &other, "m 1\n"), Outcome::Applied);
    let outcome = push(&mut gateway, &second, "m 1\n");
    assert!(matches!(outcome, Outcome::Inconsistent(_)), "{outcome:?}");
    assert!(gateway.shard(&first).next_merged().is_some(), "the numbers are still pending");
    gateway.delete(&first);
    assert!(!gateway.commits.is_empty(), "the series are reserved until the commit");
    assert_eq!(push(&mut gateway, &second, "m 1\n"), Outcome::Applied);
    assert!(gateway.commits.is_empty(), "the push waited for the commit");
}

/// A push time in the future hides that a group is stale, so it must not spread to groups that were pushed later.
#[test]
fn push_times_follow_a_corrected_clock() {
    let mut gateway = Gateway::new();
    // More than cores, so that pushes with the wrong and with the corrected clock meet on one.
    let keys: Vec<_> = (0..4 * CORES).map(|number| pairs(&format!("job{number}"), None)).collect();
    let (early, late) = keys.split_at(2 * CORES);
    let push = |gateway: &mut Gateway, key: &GroupingKey, body| {
        let outcome = gateway.push(put(key, body));
        let groups = gateway.shard(key).copy_groups(0, usize::MAX).groups;
        let group = groups.into_iter().find(|group| group.key == *key.text()).expect("the group exists");
        (outcome, group)
    };
    gateway.now = 1e9;
    for key in early {
        push(&mut gateway, key, "m 1\n");
    }
    gateway.now = 100.0;
    for key in late {
        assert_eq!(push(&mut gateway, key, "m 1\n").1.push_seconds, gateway.now);
    }
    gateway.commit();
    let mut gateway = gateway.restarted();
    gateway.now = 200.0;
    for key in late {
        assert_eq!(push(&mut gateway, key, "m 2\n").1.push_seconds, gateway.now);
    }

    // Within a group, no time is before an earlier one, and the last push is known to be successful.
    let (_, pushed) = push(&mut gateway, &early[0], "m 2\n");
    assert_eq!(pushed.push_seconds, 1e9 + 1.0);
    let (outcome, failed) = push(&mut gateway, &early[0], "# TYPE m counter\nm 3\n");
    assert!(matches!(outcome, Outcome::Inconsistent(_)), "{outcome:?}");
    assert_eq!(failed.failure_seconds, pushed.push_seconds);
    let (_, again) = push(&mut gateway, &early[0], "m 3\n");
    assert!(again.push_seconds > failed.failure_seconds && again.push_seconds < 1e9 + 2.0);

    gateway.delete(&early[0]);
    assert_eq!(push(&mut gateway, &early[0], "m 4\n").1.push_seconds, gateway.now);
}

/// A command with very many families once held its core for seconds.
#[test]
fn a_command_with_many_families_pauses_regularly() {
    const FAMILIES: usize = 5_000;
    /// More than the longest step.
    const SLICE: usize = 16 * 1024;
    /// The fewest slices, if each family is one step of the lowest cost.
    const SLICES_MIN: usize = FAMILIES * 1024 / SLICE;
    let body = |count: usize| -> String {
        // Not in the order of the names.
        (0..count).map(|number| format!("m{} 1\n", number * 7919 % FAMILIES)).collect()
    };
    let mut gateway = Gateway::new();
    let key = pairs("a", None);
    let slices_of_push = |gateway: &mut Gateway, count: usize| {
        let (push, mut attempt) = (Arc::new(put(&key, &body(count))), PushAttempt::default());
        assert!(gateway.shard(&key).is_large(&key, push.families_len()));
        let (decision, slices) = in_slices(SLICE, async |pace| {
            Shard::decide_in_slices(gateway.shard(&key), &push, &mut attempt, 1.0, pace).await
        });
        let Decision::Apply(edit) = decision else { panic!("nothing prevents the push") };
        let Applied { commit, .. } = edit.finish();
        drop(commit);
        slices
    };
    let slices = slices_of_push(&mut gateway, FAMILIES);
    assert!(slices >= 3 * SLICES_MIN, "planned, claimed and applied in {slices} slices");
    // Removes nearly all of them again.
    let slices = slices_of_push(&mut gateway, 1);
    assert!(slices >= 3 * SLICES_MIN, "planned, released and applied in {slices} slices");
    slices_of_push(&mut gateway, FAMILIES);
    let shard = gateway.shard(&key);
    let (snapshot, slices) = in_slices(SLICE, async |pace| shard.snapshot_in_slices(pace).await);
    assert_eq!(snapshot.len(), FAMILIES + 2);
    assert!(slices >= SLICES_MIN, "in {slices} slices");
    assert!(shard.is_large(&key, 0));
    let (edit, slices) = in_slices(SLICE, async |pace| Shard::delete_in_slices(shard, &key, pace).await);
    edit.finish();
    assert!(slices >= 3 * SLICES_MIN, "in {slices} slices");
    assert_eq!(gateway.shard(&key).counts().families, 2);
}

/// Lets a large push pause everywhere, and a push on another core be decided there. Both must end as if one had been first.
#[test]
fn a_push_beside_a_large_one_is_decided_as_if_one_were_first() {
    let job_on = |wanted: usize| {
        let mut keys = (0..).map(|number| pairs(&format!("job{number}"), None));
        keys.find(|key| key.home(CORES) == wanted).expect("some job has its group on that core")
    };
    let (large_key, small_key) = (job_on(0), job_on(1));
    let held = "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE c counter\nc 1\n";
    // Releases a, changes the type of b, keeps c, and claims the others.
    let claims = "# TYPE b counter\nb 1\n# TYPE c counter\nc 1\n# TYPE d gauge\nd 1\n# TYPE e histogram\ne_count 1\n\
                  # TYPE \"f.x\" gauge\n{\"f.x\"} 1\n# TYPE g gauge\ng 1\n";
    let conflicting = format!("{claims}# TYPE z counter\nz 1\n");
    let others = [
        "# TYPE a gauge\na 2\n",
        "# TYPE a counter\na 2\n",
        "# TYPE a histogram\na_count 2\n",
        "# TYPE b gauge\nb 2\n",
        "# TYPE b counter\nb 2\n",
        "# TYPE c gauge\nc 2\n",
        "# TYPE c counter\nc 2\n",
        "# TYPE d gauge\nd 2\n",
        "# TYPE d summary\nd_count 2\n",
        "# TYPE e_count gauge\ne_count 2\n",
        "# TYPE f_x gauge\nf_x 2\n",
        "# TYPE h gauge\nh 2\n",
    ];
    let start = || {
        let mut gateway = Gateway::new();
        assert_eq!(gateway.push(put(&large_key, held)), Outcome::Applied);
        assert_eq!(gateway.push(put(&small_key, "# TYPE z gauge\nz 1\n")), Outcome::Applied);
        gateway.commit();
        gateway
    };
    let is_applied = |outcome: Outcome| outcome == Outcome::Applied;
    for large in [claims, &conflicting] {
        for other in others {
            let small = || put(&small_key, &format!("# TYPE z gauge\nz 1\n{other}"));
            let mut in_order = start();
            let large_first =
                (is_applied(in_order.push(put(&large_key, large))), is_applied(in_order.push(small())));
            let mut in_order = start();
            let small_first = is_applied(in_order.push(small()));
            let small_first = (is_applied(in_order.push(put(&large_key, large))), small_first);
            for pauses in 0.. {
                let mut gateway = start();
                let (large, small) = (Arc::new(put(&large_key, large)), Arc::new(small()));
                let (mut large_attempt, mut small_attempt) = (PushAttempt::default(), PushAttempt::default());
                let [large_shard, small_shard] = gateway.shards.as_mut_slice() else {
                    panic!("there are two cores")
                };
                let pace = Pace::slices(1);
                let mut decision = Box::pin(Shard::decide_in_slices(
                    &mut *large_shard,
                    &large,
                    &mut large_attempt,
                    2.0,
                    &pace,
                ));
                let mut context = Context::from_waker(Waker::noop());
                let mut decided = None;
                for _ in 0..pauses {
                    if let Poll::Ready(ready) = decision.as_mut().poll(&mut context) {
                        decided = Some(ready);
                        break;
                    }
                }
                let is_past_the_end = decided.is_some();
                let mut small_outcome = None;
                if let Decision::Apply(edit) =
                    Shard::decide(&mut *small_shard, &small, &mut small_attempt, 2.0)
                {
                    small_outcome = Some(edit.finish());
                }
                let large_decision = match decided {
                    Some(decided) => decided,
                    None => loop {
                        if let Poll::Ready(ready) = decision.as_mut().poll(&mut context) {
                            break ready;
                        }
                    },
                };
                drop(decision);
                // The same pushes again, now that nothing else is in progress.
                let mut large_outcome = None;
                if let Decision::Apply(edit) = large_decision {
                    large_outcome = Some(edit.finish());
                }
                let applied =
                    |applied: Option<Applied<&mut Shard>>| applied.map(|applied| is_applied(applied.outcome));
                // Ends the commits, for which a push may wait.
                let (large_applied, small_applied) = (applied(large_outcome), applied(small_outcome));
                let finish = |gateway: &mut Gateway, push: Arc<Push>| {
                    is_applied(gateway.push(Arc::into_inner(push).expect("only one refers to the push")))
                };
                let large_applied = large_applied.unwrap_or_else(|| finish(&mut gateway, large));
                let small_applied = small_applied.unwrap_or_else(|| finish(&mut gateway, small));
                let both = (large_applied, small_applied);
                assert!(
                    both == large_first || both == small_first,
                    "{other:?} after {pauses} pauses: {both:?}, but {large_first:?} or {small_first:?} in order"
                );
                if is_past_the_end {
                    break;
                }
            }
        }
    }
}

/// The totals of all cores follow every change, and nothing is left in them when all groups are deleted.
#[test]
fn limits_count_exactly_what_the_groups_contain() {
    let limits = StateLimits { groups_max: Some(3), series_max: Some(12), bytes_max: Some(1 << 20) };
    let mut gateway = Gateway::with_limits(limits);
    let total =
        |gateway: &Gateway| -> Vec<u64> { gateway.registry.limited().map(|(_, total, _)| total).collect() };
    let keys = [pairs("a", None), pairs("b", None), pairs("c", Some("x"))];
    let body = "# HELP m text\n# TYPE m gauge\nm{a=\"1\"} 1\n# TYPE h histogram\nh_sum 1\nh_count 1\n";
    assert_eq!(gateway.push(put(&keys[0], body)), Outcome::Applied);
    assert_eq!(gateway.push(put(&keys[1], body)), Outcome::Applied);
    let outcome = gateway.push(put(&keys[2], body));
    assert!(matches!(outcome, Outcome::Rejected(Rejection::OverLimit(_))), "{outcome:?}");
    // Two groups with 6 lines each fill the gateway. There was no room for the times of a third one.
    assert_eq!(total(&gateway)[..2], [2, 12]);
    // Less, or as much, is always accepted.
    assert_eq!(gateway.push(put(&keys[0], "# TYPE m gauge\nm{a=\"2\"} 1\n")), Outcome::Applied);
    assert_eq!(total(&gateway)[..2], [2, 9]);
    let outcome = gateway.push(put(&keys[0], "# TYPE m gauge\nm{a=\"1\"} 1\nm{a=\"2\"} 1\nn 1\no 1\np 1\n"));
    assert!(matches!(outcome, Outcome::OverLimit(_)), "{outcome:?}");
    // The failure time makes room for itself by replacing another one.
    assert_eq!(total(&gateway)[..2], [2, 9]);
    let outcome = gateway.push(put(&keys[2], "# TYPE m gauge\nm 1\nn 1\n"));
    assert!(matches!(outcome, Outcome::OverLimit(_)), "{outcome:?}");
    assert_eq!(total(&gateway)[..2], [3, 11], "the failed group exists now");
    assert!(matches!(gateway.push(put(&pairs("d", None), "")), Outcome::Rejected(Rejection::OverLimit(_))));
    for key in &keys {
        gateway.delete(key);
    }
    assert_eq!(total(&gateway), [0, 0, 0]);
}

/// Many sets of label names and many series, one of them in another group's long run, are looked up in slices of limited cost, and in
/// batches of limited size.
#[test]
fn many_sets_and_series_are_looked_up_in_slices() {
    let mut gateway = Gateway::new();
    for number in 0..300 {
        let labels = [("job".to_owned(), "a".to_owned()), (format!("name{number}"), "x".to_owned())];
        assert_eq!(gateway.push(put(&GroupingKey::new(labels), "m 1\n")), Outcome::Applied);
    }
    let long = |zone: &str| -> String {
        (0..3_000).map(|number| format!("m{{number=\"{number}\",{zone}text=\"longer lines\"}} 1\n")).collect()
    };
    assert_eq!(gateway.push(put(&pairs("a", None), &long("zone=\"x\","))), Outcome::Applied);
    let duplicate = "m{number=\"2999\",text=\"longer lines\"} 2\n";
    let outcome = gateway.push(put(&pairs("a", Some("x")), duplicate));
    assert!(matches!(outcome, Outcome::Inconsistent(_)), "{outcome:?}");
    assert_eq!(gateway.push(put(&pairs("a", Some("y")), &long(""))), Outcome::Applied);

    // Its own group is the only one with both names, so each series is looked up in the group without a zone.
    let push = Arc::new(put(&pairs("a", Some("z")), &long("")));
    let registry = gateway.registry.clone();
    let (mut lookups, _) =
        in_slices(10_000, async |pace| Lookups::new(registry, push, &["m".into()], pace).await);
    let (mut series, mut steps) = (0, 0);
    loop {
        let (batch, slices) = in_slices(10_000, async |pace| lookups.next_batch(pace).await);
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() <= 256);
        series += batch.len();
        steps += slices;
        let shard = gateway.shard(&pairs("a", None));
        let (check, slices) = in_slices(10_000, async |pace| shard.find_duplicates(&batch, pace).await);
        assert!(matches!(check, DuplicateCheck::Free), "{check:?}");
        assert!(slices > 1);
    }
    assert_eq!(series, 3_000);
    // 3,000 series with four labels, and not 3,000 times 300 sets.
    assert!((50..300).contains(&steps), "{steps} slices");
}

/// A store must not collect more and more patches of a group.
#[test]
fn the_patches_of_a_group_are_bounded_by_its_record() {
    let mut gateway = Gateway::new();
    let key = pairs("a", None);
    let mut post = |body: &str| {
        let push = push_of(Mode::Merge, &key, body).expect("is readable");
        gateway.push(push);
        gateway.commit();
        let shard = gateway.shard(&key);
        let group = shard.group_number(key.text()).expect("the group exists");
        shard.group(group).stored()
    };
    let large: String = (0..500).map(|number| format!("large{{x=\"{number}\"}} 1\n")).collect();
    let first = post(&large);
    assert!(first.record > 10_000 && first.patches == 0, "{first:?}");
    let mut whole_records = 0;
    for number in 0..1000 {
        // Every third push is rejected: only a time changes.
        let body = if number % 3 == 0 { "# TYPE large counter\nlarge 1\nlarge{} 2\n" } else { "small 1\n" };
        let stored = post(body);
        assert!(stored.patches < stored.record + 1000, "{stored:?}");
        whole_records += u32::from(stored.patches == 0);
    }
    // A patch has about 200 bytes, so a record follows about 70 of them.
    assert!((5..50).contains(&whole_records), "{whole_records} whole records for 1000 small changes");
}
