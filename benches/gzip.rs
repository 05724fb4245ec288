//! Costs of a gzip scrape: compressing a piece (once per change) and stitching pieces (once per scrape).

use std::fmt::Write;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::encoding::decode::GZIP;
use sluicegate::encoding::encode::{Coding, PieceEncoder};
use sluicegate::encoding::gzip::{Deflater, Member};
use sluicegate::exposition::memory::Unlimited;

const PIECE_BYTES: usize = 16 << 10;
const PIECES: usize = 1_000;

/// Lines of about 100 bytes, as a fleet of jobs pushes them.
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
        .expect("writing to a string cannot fail");
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
    let mut encoder = PieceEncoder::default();
    let plain = Bytes::from(text.clone());
    group.bench_function("zstd frame of 16 KB", |b| {
        b.iter(|| encoder.encode(Coding::Zstd, black_box(plain.clone())));
    });
    let mut member = Member::default();
    member.push(&deflater.deflate([text.as_slice()]));
    let body = member.finish().concat();
    group.bench_function("gunzip a body of 16 KB", |b| {
        b.iter(|| GZIP.decode(black_box(&body), usize::MAX, &mut Unlimited));
    });

    let pieces: Vec<_> = (0..PIECES).map(|seed| deflater.deflate([exposition(seed).as_slice()])).collect();
    group.throughput(Throughput::Elements(PIECES as u64));
    group.bench_function("stitch 1,000 pieces", |b| {
        b.iter(|| {
            let mut member = Member::with_capacity(pieces.len());
            black_box(&pieces).iter().for_each(|piece| member.push(piece));
            member.finish()
        });
    });
    group.bench_function("combine 1,000 checksums again (crc32fast, for comparison)", |b| {
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
