//! What a push costs once its bytes are there: reading and rendering it, and taking it into a shard, with few groups and with
//! many. The second must not depend on how many there are, but for what the processor's caches hold.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use sluicegate::api::push::{Format, PushRules, prepare};
use sluicegate::exposition::model::MetricType;
use sluicegate::shard::key::GroupingKey;
use sluicegate::shard::push::{Mode, Push};
use sluicegate::shard::registry::Registry;
use sluicegate::shard::{Attempt, FAILURE_TIME, PUSH_TIME, Shard, Tries};

const RULES: PushRules = PushRules { body_bytes_max: None, refusals_are_told: true };

/// A job's body of about 1 KB, 18 series; no two numbers give the same one.
fn body(number: u32) -> String {
    let mut body = String::new();
    let mut digits = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut value = || {
        digits = digits.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digits >> (30 + digits % 30)
    };
    for name in ["last_success_timestamp_seconds", "duration_seconds", "exit_code"] {
        writeln!(body, "# TYPE nightly_{name} gauge\nnightly_{name} {}", value()).expect("fits");
    }
    for name in ["rows", "rejected", "read_bytes", "written_bytes"] {
        writeln!(body, "# HELP nightly_{name}_total Number of {name}.").expect("fits");
        writeln!(body, "# TYPE nightly_{name}_total counter\nnightly_{name}_total {}", value())
            .expect("fits");
    }
    writeln!(body, "# TYPE nightly_stage_seconds gauge").expect("fits");
    for stage in ["read", "sort", "join", "write"] {
        writeln!(body, "nightly_stage_seconds{{stage=\"{stage}\"}} {}", value()).expect("fits");
    }
    writeln!(body, "# TYPE nightly_step_seconds histogram").expect("fits");
    for le in ["0.1", "1", "10", "+Inf"] {
        writeln!(body, "nightly_step_seconds_bucket{{le=\"{le}\"}} {}", value()).expect("fits");
    }
    writeln!(body, "nightly_step_seconds_sum {}\nnightly_step_seconds_count {}", value(), value())
        .expect("fits");
    body
}

fn key(group: u32) -> GroupingKey {
    GroupingKey::new([
        ("job".to_owned(), format!("job{}", group % 20)),
        ("instance".to_owned(), format!("host-{group}")),
    ])
}

fn push(group: u32, number: u32) -> Arc<Push> {
    let format = Format::of(&HeaderMap::new());
    Arc::new(
        prepare(key(group), Mode::Replace, format, body(number).as_bytes(), RULES).expect("a valid body"),
    )
}

fn apply(shard: &mut Shard, push: &Arc<Push>) {
    let Attempt::Begun(mut work) = shard.attempt(push, &mut Tries::default(), 1.7e9) else {
        unreachable!("nobody else pushes or scrapes")
    };
    while !shard.step(&mut work, 1 << 20) {}
    black_box(work.outcome);
}

fn shard(groups: u32) -> Shard {
    let own = [PUSH_TIME, FAILURE_TIME].map(|name| (name, MetricType::Gauge, "A time."));
    let mut shard = Shard::new(0, Arc::new(Registry::new(own)));
    for group in 0..groups {
        apply(&mut shard, &push(group, group));
    }
    shard
}

fn prepares(c: &mut Criterion) {
    let bodies: Vec<String> = (0..509).map(body).collect();
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    group.bench_function("read and render", |b| {
        b.iter(|| {
            at = (at + 1) % bodies.len();
            let format = Format::of(&HeaderMap::new());
            prepare(key(at as u32), Mode::Replace, format, black_box(bodies[at].as_bytes()), RULES)
        });
    });
    group.finish();
}

fn applies(c: &mut Criterion) {
    let mut group = c.benchmark_group("push into a shard");
    group.throughput(Throughput::Elements(1));
    for groups in [100, 10_000] {
        let mut shard = shard(groups);
        let (mut at, mut number) = (0, 0);
        group.bench_function(format!("{groups} groups"), |b| {
            b.iter_batched(
                || {
                    (at, number) = ((at + 7919) % groups, number + 1);
                    push(at, number)
                },
                |push| apply(&mut shard, &push),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, prepares, applies);
criterion_main!(benches);
