//! Files that real Pushgateways wrote, intact and damaged. Each received the same pushes: two to one group, one that was rejected,
//! one without metrics, and some with unusual labels.

use proptest::prelude::*;
use prost::Message;
use sluicegate_gob::{Group, read};

const FILES: [(&str, &[u8]); 2] = [
    ("1.5.1", include_bytes!("../testdata/pushgateway-1.5.1.gob")),
    ("1.11.3", include_bytes!("../testdata/pushgateway-1.11.3.gob")),
];

/// The part of the protobuf that the tests check.
#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

fn decoded(group: &Group<'_>, family: &str) -> MetricFamily {
    let bytes = group.families[family].protobuf.expect("a family has content");
    MetricFamily::decode(bytes).expect("a family is protobuf")
}

fn gauge(group: &Group<'_>, family: &str) -> f64 {
    decoded(group, family).metric[0].gauge.as_ref().expect("a gauge").value.expect("a value")
}

fn group<'a, 'b>(groups: &'b [Group<'a>], labels: &[(&str, &str)]) -> &'b Group<'a> {
    let same = |group: &&Group<'_>| {
        group.labels.iter().map(|(name, value)| (*name, *value)).eq(labels.iter().copied())
    };
    groups.iter().find(same).unwrap_or_else(|| panic!("no group {labels:?} in {groups:?}"))
}

#[test]
fn reads_all_groups_and_families() {
    for (version, bytes) in FILES {
        let groups = read(bytes).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!(groups.len(), 6, "{version}");
        let names =
            |labels: &[(&str, &str)]| group(&groups, labels).families.keys().copied().collect::<Vec<_>>();
        let times = ["push_failure_time_seconds", "push_time_seconds"];
        let with = |names: &[&'static str]| {
            let mut all = [names, &times].concat();
            all.sort_unstable();
            all
        };
        let backup = [("instance", "db1"), ("job", "backup")];
        assert_eq!(names(&backup), with(&["backup_seconds", "done_total"]));
        assert_eq!(names(&[("job", "odd job ünï")]), with(&["untyped_thing"]));
        assert_eq!(names(&[("job", "shapes"), ("zone", "eu")]), with(&["lat", "s"]));
        assert_eq!(names(&[("job", "refused")]), times);
        assert_eq!(names(&[("job", "empty")]), times);
        assert_eq!(names(&[("job", "a/b"), ("path", "")]), with(&["y"]));
        let family = decoded(group(&groups, &backup), "backup_seconds");
        assert_eq!(family.name.as_deref(), Some("backup_seconds"));
        assert_eq!(family.help.as_deref(), Some("How long it took."));
        assert_eq!(family.metric.len(), 2);
        assert_eq!(gauge(group(&groups, &backup), "backup_seconds"), 12.5);
    }
}

#[test]
fn reads_the_push_time_of_each_family() {
    for (version, bytes) in FILES {
        let groups = read(bytes).unwrap_or_else(|error| panic!("{version}: {error}"));
        let backup = group(&groups, &[("instance", "db1"), ("job", "backup")]);
        // Two pushes set this group. The second one is its push time.
        let seconds = |family: &str| backup.families[family].push_seconds;
        assert_eq!(seconds("done_total"), gauge(backup, "push_time_seconds"), "{version}");
        assert!(seconds("backup_seconds") < seconds("done_total"), "{version}");
        let refused = group(&groups, &[("job", "refused")]);
        assert_eq!(gauge(refused, "push_time_seconds"), 0.0);
        assert_eq!(
            refused.families["push_failure_time_seconds"].push_seconds,
            gauge(refused, "push_failure_time_seconds")
        );
    }
}

#[test]
fn reports_where_a_file_is_truncated_or_continues() {
    for (version, bytes) in FILES {
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).expect_err("a truncated file");
            assert!(error.at <= length && !error.what.is_empty(), "{version} cut at {length}: {error}");
        }
        let longer = [bytes, b"\0"].concat();
        assert_eq!(
            read(&longer).expect_err("a byte too many").to_string(),
            format!("byte {}: 1 bytes too many", bytes.len())
        );
    }
}

#[test]
fn never_panics_on_a_flipped_byte() {
    for (_, bytes) in FILES {
        for at in 0..bytes.len() {
            for mask in [1, 0x80, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= mask;
                let _ = read(&bytes);
            }
        }
    }
}

#[test]
fn refuses_other_files() {
    for bytes in [
        &b""[..],
        b"hello",
        b"\x03\x04\x00\x02",
        &[0xff; 100],
        &[0xf8, 255, 255, 255, 255, 255, 255, 255, 255],
    ] {
        let error = read(bytes).expect_err("not a persistence file");
        assert!(!error.what.is_empty());
    }
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }
}
