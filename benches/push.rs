//! Costs of a push after its bytes have arrived: parsing and rendering it, and applying it to a shard with few or many groups.
//! The cost of applying must not depend on the number of groups, apart from cache misses.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

mod support;

use support::{apply, body, prepare, push, received, shard};

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

criterion_group!(benches, bench_prepare, bench_apply);
criterion_main!(benches);
