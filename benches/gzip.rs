//! Costs of a gzip scrape: compressing a piece (once per change) and stitching pieces (once per scrape).

use std::fmt::Write;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, FlushCompress};
use sluicegate::encoding::decode::GZIP;
use sluicegate::encoding::encode::{Coding, PieceEncoder};
use sluicegate::encoding::gzip::{Deflated, Deflater, Member};
use sluicegate::exposition::memory::Unlimited;

/// The length of a typical block.
const PIECE_BYTES: usize = 32 << 10;
const PIECES: usize = 1_000;

/// The histogram of each job of a fleet, with values that differ.
fn histograms() -> Vec<u8> {
    let mut text = String::with_capacity(PIECE_BYTES + 1000);
    for group in (0..).map(|group: usize| group * 7 / 4) {
        if text.len() >= PIECE_BYTES {
            break;
        }
        let labels = format!("instance=\"host-{group}\",job=\"job{}\"", group % 20);
        let mut line = |suffix: &str, le: &str, value: usize| {
            writeln!(text, "job_step_duration_seconds_{suffix}{{{labels}{le}}} {value}")
                .expect("writing to a string cannot fail");
        };
        let mut count = group * 7919 % 100;
        for le in ["0.1", "1", "10", "60", "+Inf"] {
            line("bucket", &format!(",le=\"{le}\""), count);
            count += group * 31 % 17;
        }
        line("sum", "", group * 104_729 % 10_007);
        line("count", "", count);
    }
    text.into_bytes()
}

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
    for (name, text) in [("gauges", &text), ("histograms", &histograms())] {
        let size = |piece: &Deflated| {
            let mut member = Member::default();
            member.push(piece);
            member.finish().iter().map(Bytes::len).sum::<usize>()
        };
        let compressed = size(&deflater.deflate(text));
        group.bench_function(format!("deflate a piece of {name} to {compressed} bytes"), |b| {
            b.iter(|| deflater.deflate(black_box(text)));
        });
        for level in [1, 2] {
            let mut compress = Compress::new(Compression::new(level), false);
            let mut deflate = |text: &[u8]| {
                compress.reset();
                let mut out = Vec::with_capacity(text.len());
                compress.compress_vec(text, &mut out, FlushCompress::Sync).expect("there is room");
                out
            };
            let compressed = deflate(text).len();
            group.bench_function(format!("{name} by zlib-rs at level {level}, to {compressed} bytes"), |b| {
                b.iter(|| deflate(black_box(text)));
            });
        }
    }
    let mut encoder = PieceEncoder::default();
    let plain = Bytes::from(text.clone());
    group.bench_function("zstd frame of 32 KB", |b| {
        b.iter(|| encoder.encode(Coding::Zstd, black_box(plain.clone())));
    });
    let mut member = Member::default();
    member.push(&deflater.deflate(&text));
    let body = member.finish().concat();
    group.bench_function("gunzip a body of 32 KB", |b| {
        b.iter(|| GZIP.decode(black_box(&body), usize::MAX, &mut Unlimited));
    });

    let pieces: Vec<_> = (0..PIECES).map(|seed| deflater.deflate(&exposition(seed))).collect();
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
