//! Costs of parsing push bodies, compared with a mere search for line ends and with the parser of another crate.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluicegate::exposition::names::NameRules;
use sluicegate::exposition::text::parse;

/// The push of a batch job at its end: about 1 KB with a few single values and one histogram.
const JOB: &str = "\
# TYPE nightly_export_last_success_timestamp_seconds gauge
nightly_export_last_success_timestamp_seconds 1700000001.0
# TYPE nightly_export_duration_seconds gauge
nightly_export_duration_seconds 12.51
# HELP nightly_export_rows_total Rows written.
# TYPE nightly_export_rows_total counter
nightly_export_rows_total 100007
# TYPE nightly_export_rejected_total counter
nightly_export_rejected_total 1
# TYPE nightly_export_read_bytes_total counter
nightly_export_read_bytes_total 2097152
# TYPE nightly_export_written_bytes_total counter
nightly_export_written_bytes_total 1048576
# TYPE nightly_export_exit_code gauge
nightly_export_exit_code 0
# HELP nightly_export_step_seconds Time of a step.
# TYPE nightly_export_step_seconds histogram
nightly_export_step_seconds_bucket{le=\"0.1\"} 1
nightly_export_step_seconds_bucket{le=\"1\"} 21
nightly_export_step_seconds_bucket{le=\"10\"} 41
nightly_export_step_seconds_bucket{le=\"60\"} 45
nightly_export_step_seconds_bucket{le=\"+Inf\"} 46
nightly_export_step_seconds_sum 113.25
nightly_export_step_seconds_count 46
";

/// A page like that of a machine's exporter: many families, most of them with a few labelled series.
fn machine_page() -> String {
    let mut page = String::new();
    for family in 0..60 {
        writeln!(page, "# HELP node_disk_statistic_{family}_total Statistic number {family} of a disk.")
            .expect("writing to a string cannot fail");
        writeln!(page, "# TYPE node_disk_statistic_{family}_total counter")
            .expect("writing to a string cannot fail");
        for disk in 0..8 {
            let value = f64::from(family * 7919 + disk * 104_729) * 1.375;
            writeln!(
                page,
                "node_disk_statistic_{family}_total{{device=\"nvme{disk}n1\",mode=\"read\"}} {value}"
            )
            .expect("writing to a string cannot fail");
        }
    }
    page
}

fn histograms() -> String {
    let mut page = "# TYPE http_request_duration_seconds histogram\n".to_owned();
    for handler in 0..50 {
        let labels = format!("handler=\"/api/v1/item{handler}\",code=\"200\"");
        for (count, le) in
            ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"].iter().enumerate()
        {
            writeln!(page, "http_request_duration_seconds_bucket{{{labels},le=\"{le}\"}} {count}")
                .expect("writing to a string cannot fail");
        }
        writeln!(page, "http_request_duration_seconds_sum{{{labels}}} 17.25")
            .expect("writing to a string cannot fail");
        writeln!(page, "http_request_duration_seconds_count{{{labels}}} 9")
            .expect("writing to a string cannot fail");
    }
    page
}

fn escapes() -> String {
    let mut page = String::new();
    for number in 0..200 {
        writeln!(page, r#"job_info{{path="C:\\data\\set {number}",note="said \"done\"\nand left"}} 1"#)
            .expect("writing to a string cannot fail");
    }
    page
}

fn bench(criterion: &mut Criterion) {
    let bodies = [
        ("job", JOB.to_owned()),
        ("machine", machine_page()),
        ("histograms", histograms()),
        ("escapes", escapes()),
    ];
    for (name, body) in &bodies {
        parse(body.as_bytes(), NameRules::Legacy).expect("a valid body");
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("parse", |bencher| {
            bencher.iter(|| parse(black_box(body.as_bytes()), NameRules::Legacy));
        });
        group.bench_function("memchr-lines", |bencher| {
            bencher.iter(|| memchr::memchr_iter(b'\n', black_box(body.as_bytes())).fold(0, |_, at| at));
        });
        group.bench_function("prometheus-parse", |bencher| {
            bencher.iter(|| {
                let lines = black_box(body).lines().map(|line| Ok(line.to_owned()));
                prometheus_parse::Scrape::parse(lines)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
