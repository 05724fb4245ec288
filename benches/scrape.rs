//! Costs of a scrape before its bytes are sent: merging the snapshots of two cores, and stitching pieces that are compressed
//! already. The scrape has 10,000 groups and about 12 MB of text.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, FlushCompress};
use sluicegate::encoding::gzip::{Deflated, Deflater, Member, Stitched};
use sluicegate::scrape::merge::{Unit, merge, plain};
use sluicegate::shard::Shard;
use sluicegate::shard::segments::Segment;

mod support;

use support::shard;

/// The text of a segment as bytes that keep it alive.
struct Text(Arc<Segment>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.text()
    }
}

fn bytes_of(unit: Unit) -> Option<Bytes> {
    plain(unit, |segment| Bytes::from_owner(Text(segment)))
}

fn bench_scrape(c: &mut Criterion) {
    let shards = [shard(5_000), shard(5_000)];
    let units = || merge(&shards.each_ref().map(Shard::snapshot), &[]);
    let texts: Vec<_> = units().into_iter().filter_map(bytes_of).collect();
    let bytes: usize = texts.iter().map(Bytes::len).sum();

    let mut group = c.benchmark_group("scrape");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("copy, for comparison", |b| b.iter(|| black_box(texts.concat())));
    group.bench_function("merge", |b| b.iter(|| black_box(units())));
    group.bench_function("merge and convert to bytes", |b| {
        b.iter(|| units().into_iter().map(bytes_of).for_each(|bytes| drop(black_box(bytes))));
    });
    let mut deflater = Deflater::new();
    let blocks = blocks(&texts);
    let deflated: Vec<Deflated> = blocks.iter().map(|text| deflater.deflate(text)).collect();
    let mut stitched = Stitched::default();
    deflated.iter().for_each(|piece| stitched.push(piece));
    let compressed: usize = stitched.buffers_mut().iter().map(Bytes::len).sum();
    group.bench_function("stitch gzip", |b| {
        b.iter(|| {
            let mut member = Member::with_capacity(deflated.len());
            deflated.iter().for_each(|piece| member.push(piece));
            black_box(member.finish())
        });
    });
    group.sample_size(10);
    group.bench_function(format!("compress {bytes} bytes in blocks to {compressed}"), |b| {
        b.iter(|| blocks.iter().for_each(|text| drop(black_box(deflater.deflate(text)))));
    });
    let whole = texts.concat();
    let mut compress = Compress::new(Compression::new(1), false);
    let mut deflate = || {
        compress.reset();
        let mut out = Vec::with_capacity(whole.len());
        compress.compress_vec(&whole, &mut out, FlushCompress::Sync).expect("there is room");
        out
    };
    let compressed = deflate().len();
    group.bench_function(format!("the same in one stream by zlib-rs at level 1, to {compressed}"), |b| {
        b.iter(&mut deflate);
    });
    group.finish();
}

/// Several segments are compressed as one block.
fn blocks(texts: &[Bytes]) -> Vec<Vec<u8>> {
    let mut blocks = vec![Vec::new()];
    for text in texts {
        match blocks.last_mut() {
            Some(block) if block.len() < 20 << 10 => block.extend_from_slice(text),
            _ => blocks.push(text.to_vec()),
        }
    }
    blocks
}

criterion_group!(benches, bench_scrape);
criterion_main!(benches);
