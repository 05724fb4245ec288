//! Where the memory of groups goes, counted from the structures themselves.
//!
//! `cargo test --lib where_the_memory_goes -- --nocapture` prints the table of `docs/benchmarks.md`.

use std::fmt::Write;
use std::sync::Arc;

use super::group_families::GroupFamilies;
use super::key::GroupingKey;
use super::push::Mode;
use super::registry::Registry;
use super::segments::Segment;
use super::{Decision, FAILURE_TIME, PUSH_TIME, Persistence, PushAttempt, Shard};
use crate::exposition::model::MetricType;
use crate::reference::push_of;

const GROUPS: usize = 5_000;
/// The counts before the data of a shared block of memory.
const SHARED_HEAD_BYTES: usize = 2 * size_of::<usize>();

/// The body of a batch job: ten families and 16 series, with numbers of up to nine digits.
fn body(mut seed: u64) -> String {
    let mut body = String::new();
    let mut number = || {
        seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_add(1);
        seed % 10_u64.pow(1 + (seed >> 60) as u32 % 9)
    };
    for name in ["success_seconds", "duration_seconds", "rows_total", "failed_total", "read_bytes_total"] {
        writeln!(body, "job_{name} {}", number()).expect("writing to a string cannot fail");
    }
    for name in ["written_bytes_total", "retries_total", "peak_bytes", "exit_code"] {
        writeln!(body, "# HELP job_{name} A number.\njob_{name} {}", number())
            .expect("writing to a string cannot fail");
    }
    body.push_str("# TYPE job_step_seconds histogram\n");
    for le in ["0.1", "1", "10", "60", "+Inf"] {
        writeln!(body, "job_step_seconds_bucket{{le=\"{le}\"}} {}", number())
            .expect("writing to a string cannot fail");
    }
    writeln!(body, "job_step_seconds_sum {}\njob_step_seconds_count {}", number(), number())
        .expect("writing to a string cannot fail");
    body
}

fn key(group: usize) -> GroupingKey {
    let labels = [("job", format!("job{}", group % 20)), ("instance", format!("host-{group}"))];
    GroupingKey::new(labels.map(|(name, value)| (name.to_owned(), value)))
}

fn shard_after_pushes(rounds: usize) -> Shard {
    let own = [PUSH_TIME, FAILURE_TIME].map(|name| (name, MetricType::Gauge, "A time."));
    let mut shard = Shard::new(0, Arc::new(Registry::new(own)), Persistence::InMemory);
    for push in 0..rounds * GROUPS {
        let pushed = push_of(Mode::Replace, &key(push % GROUPS), &body(push as u64)).expect("is readable");
        let decision =
            Shard::decide(&mut shard, &Arc::new(pushed), &mut PushAttempt::default(), 1.7e9 + push as f64);
        let Decision::Apply(edit) = decision else { unreachable!("there are no other pushes") };
        drop(edit.finish());
    }
    shard
}

#[test]
fn where_the_memory_goes() {
    let shard = shard_after_pushes(3);
    let mut text = Vec::new();
    for (_, family) in shard.families.from(0) {
        text.extend(family.text.segments().map(|segment| segment.allocated()));
    }
    let sum = |part: fn(&super::segments::Allocated) -> usize| text.iter().map(part).sum::<usize>();
    let groups = || shard.groups.from(0).map(|(_, group)| group);
    let own_lists = groups().map(|group| match &group.families {
        GroupFamilies::Own(_) => 1,
        GroupFamilies::Shared { .. } => 0,
    });
    assert_eq!(own_lists.sum::<usize>(), 0, "all groups have the same families");
    let rows = [
        ("text", shard.counts().bytes),
        ("room in segments for longer text", sum(|segment| segment.room_bytes)),
        ("ends of lines and numbers of groups", sum(|segment| segment.runs_bytes)),
        ("segments", text.len() * (SHARED_HEAD_BYTES + size_of::<Segment>())),
        ("grouping keys", groups().map(|group| SHARED_HEAD_BYTES + group.key.len()).sum()),
        ("groups: times, sizes, pointers", shard.groups.allocated().0),
        ("groups by key", shard.groups.allocated().1),
    ];
    let series = shard.counts().series;
    for (name, bytes) in rows {
        println!("| {name} | {:.1} |", bytes as f64 / series as f64);
    }
    let beside_text: usize = rows[1..].iter().map(|(_, bytes)| bytes).sum();
    println!("| all but the text | {:.1} |", beside_text as f64 / series as f64);
    assert!(beside_text < 25 * series, "{} bytes for each of {series} series", beside_text / series);
}
