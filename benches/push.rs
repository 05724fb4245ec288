//! Costs of a push after its bytes have arrived: parsing and rendering it, and applying it to a shard with few or many groups.
//! The cost of applying must not depend on the number of groups, apart from cache misses.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

mod support;

use sluicegate::shard::push::Mode;
use sluicegate::shard::shapes::{ShapedPush, Shapes};
use support::{PEER, RULES, apply, body, key, prepare, push, received, shard};

fn bench_prepare(c: &mut Criterion) {
    let pushes: Vec<_> = (0..509).map(|number| received(number, body(number))).collect();
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    group.bench_function("parse and render", |b| {
        b.iter(|| {
            at = (at + 1) % pushes.len();
            prepare(black_box(&pushes[at]))
        });
    });
    group.finish();
}

fn bench_apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply a push");
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

/// A push of a known shape.
fn shaped(shapes: &Shapes, group: u32, body: &str) -> ShapedPush {
    let (key, mut numbers) = (key(group), Vec::new());
    let shape = shapes.find(body.as_bytes(), &key, usize::MAX, &mut numbers).expect("the shape is known");
    ShapedPush { key, mode: Mode::Replace, source: Some(PEER), shape, numbers }
}

/// The same pushes again with other numbers: finding the shape of the body, and applying the numbers.
fn bench_same_shape(c: &mut Criterion) {
    let mut group = c.benchmark_group("a push of a known shape");
    group.throughput(Throughput::Elements(1));
    let shapes = Shapes::default();
    let bodies: Vec<_> = (0..509).map(body).collect();
    let (mut numbers, mut at) = (Vec::new(), 0);
    // The second body makes the shape.
    for body in &bodies[..2] {
        shapes.learn(body.as_bytes(), &key(0), RULES.names, usize::MAX, &mut numbers);
    }
    let group_key = key(0);
    group.bench_function("find the shape", |b| {
        b.iter(|| {
            at = (at + 1) % bodies.len();
            shapes.find(black_box(bodies[at].as_bytes()), &group_key, usize::MAX, &mut numbers)
        });
    });
    for groups in [100, 10_000] {
        let mut shard = shard(0);
        for group in 0..groups {
            let push = shaped(&shapes, group, &bodies[0]).to_push();
            apply(&mut shard, &Arc::new(push));
        }
        let mut number = 0;
        let mut now = 1.7e9;
        group.bench_function(format!("apply the numbers, {groups} groups"), |b| {
            b.iter_batched(
                || {
                    (at, number) = ((at + 7919) % groups as usize, number + 1);
                    shaped(&shapes, at as u32, &bodies[number % bodies.len()])
                },
                |push| {
                    now += 0.001;
                    assert!(shard.push_numbers(&push, now).is_some(), "the group has the shape");
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench_prepare, bench_apply, bench_same_shape);
criterion_main!(benches);
