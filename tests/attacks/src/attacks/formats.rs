//! Bodies that are small as they arrive and large once they are understood.

use std::fmt::Write as _;

use anyhow::Result;

use crate::attack::{Attack, Play};
use crate::bodies::{
    comments, double, family, field, gzip, integer, put_encoded, put_protobuf, snappy, varint, zstd,
};
use crate::http::{get, put};
use crate::scene::Scene;

const MIB: usize = 1 << 20;
const GAUGE: u64 = 1;
const HISTOGRAM: u64 = 4;

pub const ATTACKS: &[Attack] = &[
    Attack::new("spans", "native histograms with spans of 2³² buckets, scraped and listed", spans)
        .stores_mib(32),
    Attack::new("packed-deltas", "native histograms with a million buckets", packed_deltas).stores_mib(128),
    Attack::new("protobuf-metrics", "16 MB of empty protobuf metrics", protobuf_metrics).stores_mib(64),
    Attack::new("protobuf-lengths", "protobuf lengths beyond the body", protobuf_lengths),
    Attack::new("protobuf-nesting", "protobuf with unknown groups nested 100,000 deep", protobuf_nesting),
    Attack::new("buckets", "a histogram with 500,000 buckets", buckets).stores_mib(128),
    Attack::new("quantiles", "a summary with 500,000 quantiles in reverse order", quantiles).stores_mib(128),
    Attack::new("gzip-in-gzip", "gzip within gzip", gzip_in_gzip),
    Attack::new("gzip-members", "a million empty gzip members", gzip_members),
    Attack::new("zstd-frames", "a million skippable zstd frames", zstd_frames),
    Attack::new("snappy-frames", "a million snappy frames of padding", snappy_frames),
    Attack::new("utf8-names", "100,000 names of the form U__… in URLs and bodies", utf8_names)
        .flags(&["--push.enable-utf8-names"])
        .stores_mib(64),
    Attack::new("base64-values", "grouping labels of 40 KB in base64", base64_values).stores_mib(64),
    Attack::new("escapes", "label values that consist of escapes", escapes).stores_mib(128),
    Attack::new("long-numbers", "samples with numbers of 100,000 digits", long_numbers).stores_mib(16),
];

fn flood_protobuf(body: &[u8], connections: usize) -> Result<Play> {
    let push = put_protobuf("/metrics/job/attack", body);
    Ok(Box::new(move |scene| scene.flood(connections, &[push])))
}

/// A native histogram with these spans and deltas.
fn native(spans: &[Vec<u8>], deltas: &[u8], number: usize) -> Vec<u8> {
    let label = field(1, &[field(1, b"n"), field(2, number.to_string().as_bytes())].concat());
    let mut histogram =
        [integer(1, 1), double(2, 1.0), integer(5, 0), double(6, 0.001), integer(7, 1)].concat();
    for span in spans {
        histogram.extend_from_slice(&field(12, span));
    }
    histogram.extend_from_slice(&field(13, deltas));
    [label, field(7, &histogram)].concat()
}

fn spans(_: &Scene) -> Result<Play> {
    let wide = [integer(1, 0), integer(2, u64::from(u32::MAX))].concat();
    let empty = [integer(1, 2), integer(2, 0)].concat();
    let metrics = [
        native(&vec![wide; 100], &[], 0),
        native(&vec![empty; 10_000], &[], 1),
        native(&[[integer(1, u64::from(u32::MAX)), integer(2, 1)].concat()], &varint(2), 2),
    ];
    // Each alone, so that one that is refused does not protect from the others.
    let mut requests: Vec<Vec<u8>> = metrics
        .iter()
        .enumerate()
        .map(|(number, metric)| {
            let body = family(&format!("attack_spans{number}"), HISTOGRAM, std::slice::from_ref(metric));
            put_protobuf(&format!("/metrics/job/attack{number}"), &body)
        })
        .collect();
    requests.extend([get("/metrics"), get("/api/v1/metrics"), get("/")]);
    Ok(Box::new(move |scene| scene.flood(4, &requests)))
}

fn packed_deltas(_: &Scene) -> Result<Play> {
    let span = [integer(1, 0), integer(2, 1_000_000)].concat();
    let body = family("attack_deltas", HISTOGRAM, &[native(&[span], &vec![0; 1_000_000], 0)]);
    let requests = vec![put_protobuf("/metrics/job/attack", &body), get("/api/v1/metrics"), get("/metrics")];
    Ok(Box::new(move |scene| scene.flood(3, &requests)))
}

fn protobuf_metrics(_: &Scene) -> Result<Play> {
    flood_protobuf(&family("attack_empty", GAUGE, &vec![Vec::new(); 8 * MIB]), 2)
}

fn protobuf_lengths(_: &Scene) -> Result<Play> {
    let mut requests = Vec::new();
    for length in [u64::MAX, u64::from(u32::MAX), 1 << 40, 63 << 20] {
        requests.push(put_protobuf("/metrics/job/attack", &[varint(length), vec![0x0a]].concat()));
        let name = [varint(8), vec![0x0a], varint(length)].concat();
        requests.push(put_protobuf("/metrics/job/attack", &name));
    }
    Ok(Box::new(move |scene| scene.flood(8, &requests)))
}

fn protobuf_nesting(_: &Scene) -> Result<Play> {
    // Field 100, wire types 3 and 4: groups.
    let message = [varint(100 << 3 | 3).repeat(100_000), varint(100 << 3 | 4).repeat(100_000)].concat();
    flood_protobuf(&[varint(message.len() as u64), message].concat(), 8)
}

fn buckets(_: &Scene) -> Result<Play> {
    let mut body = "# TYPE attack_buckets histogram\n".to_owned();
    for number in 0..500_000 {
        let _ = writeln!(body, "attack_buckets_bucket{{le=\"{number}\"}} {number}");
    }
    body.push_str(
        "attack_buckets_bucket{le=\"+Inf\"} 500000\nattack_buckets_sum 1\nattack_buckets_count 500000\n",
    );
    let requests =
        vec![put_encoded("/metrics/job/attack", "gzip", &gzip(body.as_bytes())), get("/api/v1/metrics")];
    Ok(Box::new(move |scene| scene.flood(2, &requests)))
}

fn quantiles(_: &Scene) -> Result<Play> {
    let mut body = "# TYPE attack_quantiles summary\n".to_owned();
    for number in (0..500_000).rev() {
        let _ = writeln!(body, "attack_quantiles{{quantile=\"0.{number:06}\"}} 1");
    }
    body.push_str("attack_quantiles_sum 1\nattack_quantiles_count 1\n");
    let push = put_encoded("/metrics/job/attack", "gzip", &gzip(body.as_bytes()));
    Ok(Box::new(move |scene| scene.flood(2, &[push])))
}

fn flood_encoded(coding: &str, body: &[u8], connections: usize) -> Result<Play> {
    let push = put_encoded("/metrics/job/attack", coding, body);
    Ok(Box::new(move |scene| scene.flood(connections, &[push])))
}

fn gzip_in_gzip(_: &Scene) -> Result<Play> {
    let inner = gzip(&comments(63 * MIB));
    let twice = gzip(&inner);
    let requests = vec![
        put_encoded("/metrics/job/attack", "gzip", &twice),
        put_encoded("/metrics/job/attack", "gzip, gzip", &twice),
        put_encoded("/metrics/job/attack", "gzip,gzip,gzip,gzip", &twice),
    ];
    Ok(Box::new(move |scene| scene.flood(4, &requests)))
}

fn gzip_members(_: &Scene) -> Result<Play> {
    let body = [gzip(b"").repeat(1_000_000), gzip(b"attack_members 1\n")].concat();
    flood_encoded("gzip", &body, 4)
}

fn zstd_frames(_: &Scene) -> Result<Play> {
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &[0; 4]].concat();
    let body = [skippable.repeat(1_000_000), zstd(b"attack_frames 1\n")].concat();
    flood_encoded("zstd", &body, 4)
}

fn snappy_frames(_: &Scene) -> Result<Play> {
    let mut body = snappy(b"attack_frames 1\n");
    body.extend_from_slice(&[0xfe, 0, 0, 0].repeat(1_000_000));
    flood_encoded("snappy", &body, 4)
}

fn utf8_names(_: &Scene) -> Result<Play> {
    let lines = (0..20_000).map(|number| format!("{{\"attack.ü{number}\",\"label.{number}\"=\"x\"}} 1\n"));
    let body = lines.collect::<String>();
    let make = move |number: usize, round: usize| {
        if round.is_multiple_of(10) {
            put("/metrics/job/attack", &body)
        } else {
            put(&format!("/metrics/job/attack/U__l_2e_{number}_2e_{}/x", round % 1_000), "attack 1\n")
        }
    };
    Ok(Box::new(move |scene| scene.flood_with(4, make)))
}

fn base64_values(_: &Scene) -> Result<Play> {
    let value = "eHh4".repeat(10_000);
    let make = move |number: usize, round: usize| {
        put(&format!("/metrics/job/attack{number}-{}/zone@base64/{value}", round % 100), "attack_base64 1\n")
    };
    Ok(Box::new(move |scene| scene.flood_with(4, make)))
}

fn escapes(scene: &Scene) -> Result<Play> {
    // Nearly the longest label value.
    let value = r#"\"\\\n"#.repeat(300_000);
    let series = (0..if scene.is_quick { 1 } else { 10 })
        .map(|number| format!("attack_escapes{{number=\"{number}\",text=\"{value}\"}} 1\n"));
    let body = gzip(series.collect::<String>().as_bytes());
    let requests = vec![put_encoded("/metrics/job/attack", "gzip", &body), get("/api/v1/metrics"), get("/")];
    Ok(Box::new(move |scene| scene.flood(3, &requests)))
}

fn long_numbers(_: &Scene) -> Result<Play> {
    let number = format!("0.{}1e{}", "0".repeat(100_000), "9".repeat(100));
    let lines = (0..50).map(|line| format!("attack_number{line} {number}\n"));
    let push = put("/metrics/job/attack", lines.collect::<String>());
    let times = put("/metrics/job/attack", format!("attack_time 1 {}\n", "9".repeat(100_000)));
    Ok(Box::new(move |scene| scene.flood(4, &[push, times])))
}
