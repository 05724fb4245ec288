//! What a gzip scrape costs: compressing a piece (once a change), stitching pieces (each scrape).

use std::fmt::Write;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::encoding::decode::{Encoding, decode};
use sluicegate::encoding::encode::{Coding, Packer};
use sluicegate::encoding::gzip::{Deflated, Deflater, stitch};

const PIECE_BYTES: usize = 16 << 10;
const PIECES: usize = 1_000;

/// Lines as a fleet of jobs pushes them, about 100 bytes each.
fn exposition(seed: usize) -> Vec<u8> {
    let mut text = String::with_capacity(PIECE_BYTES + 200);
    for line in 0.. {
        if text.len() >= PIECE_BYTES {
            break;
        }
        let job = seed * 1000 + line;
        writeln!(
            text,
            "batch_records_processed_total{{instance=\"worker-{}.example\",job=\"nightly-{job}\",zone=\"eu-{}\"}} {}",
            job * 7919 % 4096,
            job % 3,
            job * 104_729 % 1_000_003,
        )
        .expect("a string takes everything");
    }
    text.into_bytes()
}

fn gzip(c: &mut Criterion) {
    let mut deflater = Deflater::new();
    let text = exposition(1);
    let mut group = c.benchmark_group("gzip");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("deflate a piece of 16 KB", |b| {
        b.iter(|| deflater.deflate([black_box(text.as_slice())]));
    });
    let mut packer = Packer::default();
    let plain = Bytes::from(text.clone());
    group.bench_function("zstd frame of 16 KB", |b| {
        b.iter(|| packer.pack(Coding::Zstd, black_box(plain.clone())));
    });
    let body = stitch([&deflater.deflate([text.as_slice()])]).buffers.concat();
    group.bench_function("gunzip a body of 16 KB", |b| {
        b.iter(|| decode(Encoding::Gzip, black_box(&body), usize::MAX));
    });

    let pieces: Vec<_> = (0..PIECES).map(|seed| deflater.deflate([exposition(seed).as_slice()])).collect();
    group.throughput(Throughput::Elements(PIECES as u64));
    group.bench_function("stitch 1,000 pieces", |b| b.iter(|| stitch(black_box(&pieces))));
    group.bench_function("join 1,000 pieces", |b| b.iter(|| Deflated::join(black_box(&pieces))));
    group.bench_function("combine 1,000 checksums anew (crc32fast, for comparison)", |b| {
        b.iter(|| {
            let mut whole = crc32fast::Hasher::new();
            for seed in 0..PIECES as u32 {
                whole.combine(&crc32fast::Hasher::new_with_initial_len(
                    black_box(seed),
                    PIECE_BYTES as u64 + 37,
                ));
            }
            whole.finalize()
        });
    });
    group.finish();
}

criterion_group!(benches, gzip);
criterion_main!(benches);
