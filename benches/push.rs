//! What a push costs once its bytes are there: reading and rendering it, and taking it into a shard, with few groups and with
//! many. The second must not depend on how many there are, but for what the processor's caches hold.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use sluicegate::handlers::push::{Format, prepare};
use sluicegate::shard::push::Mode;

mod support;

use support::{PEER, RULES, apply, body, key, push, shard};

fn prepares(c: &mut Criterion) {
    let bodies: Vec<String> = (0..509).map(body).collect();
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    group.bench_function("read and render", |b| {
        b.iter(|| {
            at = (at + 1) % bodies.len();
            let format = Format::of(&HeaderMap::new());
            prepare(key(at as u32), Mode::Replace, format, black_box(bodies[at].as_bytes()), RULES, PEER)
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
