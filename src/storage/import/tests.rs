//! Files that real Pushgateways wrote, and files with other content.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Duration;

use sluicegate_engine::EngineDescriptor;
use sluicegate_engine::record::Kind;

use super::*;
use crate::config::Durability;

const FILES: [(&str, &[u8]); 2] = [
    ("1.5.1", include_bytes!("../../../backends/gob/testdata/pushgateway-1.5.1.gob")),
    ("1.11.3", include_bytes!("../../../backends/gob/testdata/pushgateway-1.11.3.gob")),
];

fn imported(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    records(Path::new("file"), bytes).expect("the file is valid").into_iter().collect()
}

fn lines(record: &Record<'_>) -> String {
    record.families.iter().map(|family| String::from_utf8_lossy(family.text)).collect()
}

#[test]
fn imports_lines_help_and_times() {
    for (version, bytes) in FILES {
        let records = imported(bytes);
        let keys: Vec<&str> = records.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "instance=\"db1\",job=\"backup\"",
                "job=\"a/b\",path=\"\"",
                "job=\"empty\"",
                "job=\"odd job ünï\"",
                "job=\"refused\"",
                "job=\"shapes\",zone=\"eu\"",
            ],
            "{version}"
        );
        let decode = |key: &str| Record::decode(&records[key]).expect("the record is valid");
        let backup = decode("instance=\"db1\",job=\"backup\"");
        let [seconds, done] = backup.families.as_slice() else { panic!("{version}: {backup:?}") };
        assert_eq!((seconds.name, seconds.kind), ("backup_seconds", Kind::Gauge));
        assert_eq!(seconds.help, Some("How long it took."));
        assert_eq!(
            lines(&backup),
            "backup_seconds{instance=\"db1\",job=\"backup\"} 12.5\n\
             backup_seconds{disk=\"sda\",instance=\"db1\",job=\"backup\"} 3\n\
             done_total{instance=\"db1\",job=\"backup\"} 7\n",
            "{version}"
        );
        // Two pushes set this group; the first one created it.
        assert_eq!(done.push_seconds, backup.push_seconds);
        assert_eq!(seconds.push_seconds, backup.created_seconds);
        assert!(backup.created_seconds < backup.push_seconds && backup.failure_seconds == 0.0, "{version}");

        let refused = decode("job=\"refused\"");
        assert!(refused.families.is_empty() && refused.push_seconds == 0.0, "{version}");
        assert!(refused.failure_seconds > 0.0 && refused.created_seconds > 0.0, "{version}");
        let empty = decode("job=\"empty\"");
        assert!(empty.families.is_empty() && empty.push_seconds > 0.0, "{version}");

        let shapes = decode("job=\"shapes\",zone=\"eu\"");
        let kinds: Vec<_> = shapes.families.iter().map(|family| (family.name, family.kind)).collect();
        assert_eq!(kinds, [("lat", Kind::Histogram), ("s", Kind::Summary)], "{version}");
        assert!(lines(&shapes).contains("lat_bucket{instance=\"\",job=\"shapes\",zone=\"eu\",le=\"+Inf\"}"));
    }
}

/// The labels of a group, and its families with name and message.
type TestGroup<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a [u8])]);

/// Encodes groups as the official program does, in a minimal subset of gob: lengths, types by number, fields by distance.
fn file(groups: &[TestGroup<'_>]) -> Vec<u8> {
    fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        length(out, bytes.len());
        out.extend_from_slice(bytes);
    }
    fn length(out: &mut Vec<u8>, value: usize) {
        match u8::try_from(value) {
            Ok(small) if small < 0x80 => out.push(small),
            _ => {
                out.push(0xfc);
                out.extend((value as u32).to_be_bytes());
            }
        }
    }
    // The type definitions come from a real file: all of its messages except the last, which is the value.
    let (_, real) = FILES[1];
    let (mut at, mut value_at) = (0, 0);
    while at < real.len() {
        value_at = at;
        let (message, width) = match real[at] {
            small if small < 0x80 => (usize::from(small), 1),
            count => {
                let width = usize::from(!count + 1);
                let length =
                    real[at + 1..=at + width].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                (length, 1 + width)
            }
        };
        at += width + message;
    }
    // The type number of the value follows the length of the message, and a zero follows it.
    let width = if real[value_at] < 0x80 { 1 } else { 1 + usize::from(!real[value_at] + 1) };
    let number =
        real[value_at + width..].iter().position(|byte| *byte == 0).expect("a zero follows the type");
    let mut value = real[value_at + width..=value_at + width + number].to_vec();
    length(&mut value, groups.len());
    for (index, (labels, families)) in groups.iter().enumerate() {
        bytes(&mut value, index.to_string().as_bytes());
        value.push(1);
        length(&mut value, labels.len());
        for (name, label) in *labels {
            bytes(&mut value, name.as_bytes());
            bytes(&mut value, label.as_bytes());
        }
        value.push(1);
        length(&mut value, families.len());
        for (name, message) in *families {
            bytes(&mut value, name.as_bytes());
            // Only the second field: no time.
            value.push(2);
            bytes(&mut value, message);
            value.push(0);
        }
        value.push(0);
    }
    let mut file = real[..value_at].to_vec();
    length(&mut file, value.len());
    file.extend(value);
    file
}

/// The message of an untyped family with one metric.
fn untyped(name: &str, metric: &[u8]) -> Vec<u8> {
    let mut message = vec![0x0a, name.len() as u8];
    message.extend_from_slice(name.as_bytes());
    message.extend([0x18, 3, 0x22, metric.len() as u8]);
    message.extend_from_slice(metric);
    message
}

const ONE: &[u8] = &[0x2a, 9, 9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];

fn rejected(bytes: &[u8]) -> RejectedGroups {
    match records(Path::new("file"), bytes) {
        Err(ImportError::Groups { rejected, .. }) => rejected,
        other => panic!("{other:?}"),
    }
}

#[test]
fn imports_a_group_without_times() {
    let (x, labels) = (untyped("x", ONE), [("job", "a"), ("zone", "\"\\\n")]);
    let records = imported(&file(&[(&labels, &[("x", &x)])]));
    let (key, record) = records.iter().next().expect("the file contains a group");
    assert_eq!(key, r#"job="a",zone="\"\\\n""#);
    let record = Record::decode(record).expect("the record is valid");
    assert_eq!((record.push_seconds, record.failure_seconds, record.created_seconds), (0.0, 0.0, 0.0));
    assert_eq!(lines(&record), "x{instance=\"\",job=\"a\",zone=\"\\\"\\\\\\n\"} 1\n");
}

#[test]
fn rejects_a_file_with_invalid_groups_and_lists_them() {
    let with_time = [ONE, &[0x30, 5]].concat();
    let (x, timed, sum) = (untyped("x", ONE), untyped("x", &with_time), untyped("s_sum", ONE));
    let summary: &[u8] = &[0x0a, 1, b's', 0x18, 2, 0x22, 4, 0x22, 2, 8, 1];
    let good: TestGroup<'_> = (&[("job", "good")], &[("x", &x)]);
    let mut long_help = vec![0x12];
    encode_varint((1 << 20) + 1, &mut long_help);
    long_help.resize(long_help.len() + (1 << 20) + 1, b'h');
    long_help.extend_from_slice(&x);
    let no_time = untyped(PUSH_TIME, &[0x2a, 9, 9, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]);
    for (labels, families, reason) in [
        (&[("job", "a")][..], &[("x", &timed[..])][..], "timestamps"),
        (&[("job", "a")], &[("s", summary), ("s_sum", &sum)], "collides"),
        (&[("job", "a")], &[("x", b"\x0a\x09")], "message 1"),
        (&[("job", "a")], &[("y", &x)], "differs from its key"),
        (&[("job", "a")], &[("x", &long_help)], "HELP longer than"),
        (&[("job", "a"), ("quantile", "1")], &[("s", summary)], "quantile"),
        (&[("job", "a")], &[("push_time_seconds", &no_time)], "not a time"),
        (&[("job", "")], &[("x", &x)], "no job"),
        (&[("zone", "a")], &[("x", &x)], "no job"),
        (&[("job", "a"), ("__x", "a")], &[("x", &x)], "__x"),
    ] {
        let rejected = rejected(&file(&[good, (labels, families)]));
        assert_eq!(rejected.count, 1, "{reason}");
        assert!(rejected.groups[0].1.contains(reason), "{reason}: {rejected}");
    }
    let same_times =
        rejected(&file(&[good, (&[("job", "a")], &[]), (&[("job", "a"), ("instance", "")], &[])]));
    assert_eq!(same_times.count, 2);
    let families = [("x", &timed[..])];
    let many = [(&[("job", "a")][..], &families[..]); 30];
    let text = ImportError::Groups { file: "f".into(), rejected: rejected(&file(&many)) }.to_string();
    assert!(
        text.contains("30 groups") && text.contains("{job=\"a\"}") && text.contains("and 10 more"),
        "{text}"
    );
}

#[test]
fn a_damaged_file_is_reported_with_a_remedy() {
    let (_, real) = FILES[0];
    for bytes in [&b""[..], &real[..real.len() / 2], b"hello"] {
        let error = records(Path::new("/var/x.gob"), bytes).expect_err("the file is damaged").to_string();
        assert!(error.starts_with("/var/x.gob: ") && error.contains("move it away"), "{error}");
    }
}

/// An engine that has committed something if its folder contains a file `records`.
const ENGINE: EngineDescriptor = EngineDescriptor {
    name: "test",
    summary: "",
    is_present: |folder| folder.join("records").exists(),
    open: |_, _| panic!("finding the file does not open the store"),
};

/// The paths of the file and of the store. Neither exists yet.
struct Places {
    _folder: tempfile::TempDir,
    store: StoreConfig,
}

impl Places {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let file = folder.path().join("gob");
        let store = StoreConfig {
            engine: &ENGINE,
            path: folder.path().join("gob.sluicegate"),
            durability: Durability::Process,
            archive_interval: Duration::from_secs(300),
            import: Some(file),
        };
        Self { _folder: folder, store }
    }

    fn file(&self) -> &Path {
        self.store.import.as_deref().expect("the configuration names a file")
    }

    fn write_file(&self) {
        fs::write(self.file(), FILES[0].1).expect("the file can be written");
    }

    /// Creates what an engine leaves after its first batch.
    fn write_store(&self) {
        fs::create_dir_all(&self.store.path).expect("the folder can be created");
        fs::write(self.store.path.join("lock"), "").expect("the file can be written");
        fs::write(self.store.path.join("records"), "").expect("the file can be written");
    }

    fn look(&self) -> Result<OfficialFile, ImportError> {
        OfficialFile::find(&self.store)
    }
}

fn set_written(file: &Path, at: SystemTime) {
    File::options()
        .write(true)
        .open(file)
        .and_then(|file| file.set_modified(at))
        .expect("the time of the file is accessible");
}

#[test]
fn imports_the_file_into_a_new_store_and_does_not_change_it() {
    let places = Places::new();
    assert_eq!(places.look().expect("there is no file").records(true).expect("there is no file").len(), 0);
    places.write_file();
    assert_eq!(places.look().expect("the file exists").records(true).expect("the file can be read").len(), 6);
    assert_eq!(fs::read(places.file()).expect("the file exists"), FILES[0].1);
    // A store without commits contains no file except the lock.
    fs::create_dir_all(&places.store.path).expect("the folder can be created");
    fs::write(places.store.path.join("lock"), "").expect("the file can be written");
    set_written(&places.store.path.join("lock"), SystemTime::UNIX_EPOCH);
    assert_eq!(places.look().expect("the file exists").records(true).expect("the file can be read").len(), 6);
    // Damage matters only if the file is imported.
    fs::write(places.file(), "damaged").expect("the file can be written");
    assert!(places.look().expect("the file exists").records(true).is_err());
    assert_eq!(
        places.look().expect("the file exists").records(false).expect("the file is not read").len(),
        0
    );
}

#[test]
fn rejects_a_file_that_is_newer_than_the_store() {
    let places = Places::new();
    places.write_file();
    places.write_store();
    let newest = places.store.path.join("records");
    let now = fs::metadata(&newest).and_then(|it| it.modified()).expect("the time of the file is accessible");
    let second = Duration::from_secs(1);
    for at in [now - second, now] {
        set_written(places.file(), at);
        assert_eq!(
            places
                .look()
                .expect("the file is not newer than the store")
                .records(false)
                .expect("the file is not read")
                .len(),
            0
        );
    }
    set_written(places.file(), now + second);
    let error = places.look().expect_err("the file is newer than the store").to_string();
    assert!(error.contains("gob.sluicegate") && error.contains("move"), "{error}");
    // Any file of the store counts.
    fs::write(places.store.path.join("log"), "").expect("the file can be written");
    set_written(&places.store.path.join("log"), now + second);
    assert!(places.look().is_ok());
}

/// Configuration management creates it, for the official program or to set its owner.
#[test]
fn an_empty_file_is_as_good_as_none() {
    let places = Places::new();
    fs::write(places.file(), "").expect("the file can be written");
    let records = places.look().expect("the file exists").records(true).expect("the file is not read");
    assert!(records.is_empty());
    places.write_store();
    set_written(places.file(), SystemTime::now() + Duration::from_secs(60));
    assert!(places.look().is_ok(), "the official program has not run since then");
}

#[test]
fn rejects_a_path_that_is_not_a_file() {
    let places = Places::new();
    fs::create_dir(places.file()).expect("the folder can be created");
    assert!(matches!(places.look(), Err(ImportError::NotAFile { .. })));
}
