//! `sluicegate storage inspect|verify|migrate` on stores written by the engines.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sluicegate::storage::engines::ENGINES;
use sluicegate_engine::record::{Family, Kind, Record};
use sluicegate_engine::{Change, Durability, Engine, OpenOptions};
use tempfile::TempDir;

const GROUPS: usize = 500;

/// Runs `sluicegate storage` with arguments.
fn storage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .arg("storage")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// Runs the command and returns its stdout. Panics unless it exits with status 0 and an empty stderr.
fn succeeds(arguments: &[&str]) -> String {
    let output = storage(arguments);
    let [out, error] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{out}\n{error}");
    assert_eq!(error, "", "progress is shown only on a terminal");
    out
}

/// Runs the command and returns its stdout and stderr. Panics unless it exits with status 1.
fn fails(arguments: &[&str]) -> (String, String) {
    let output = storage(arguments);
    let [out, error] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}\n{out}\n{error}");
    (out, error)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for a test")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("folders of tests are UTF-8")
}

fn record(number: usize) -> Vec<u8> {
    let text = format!("x{{instance=\"\",job=\"{number}\"}} 1\n");
    let family = Family {
        name: "x",
        kind: Kind::Gauge,
        help: None,
        push_seconds: 1e9,
        text: text.as_bytes(),
        exact: None,
    };
    let record = Record {
        revision: 0,
        push_seconds: 1e9 + number as f64,
        failure_seconds: 0.0,
        created_seconds: 1e9,
        expires_seconds: None,
        families: vec![family],
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).expect("a small record");
    bytes
}

fn open(engine: &str, path: &Path) -> Box<dyn Engine> {
    let engine = ENGINES.iter().find(|one| one.name == engine).expect("an engine of this build");
    let store = (engine.open)(path, OpenOptions::default()).expect("the store opens");
    store.read_all(NonZeroUsize::MIN, &|_, _| ()).expect("the store can be read").0
}

/// Writes groups to a store and closes it.
fn fill(engine: &str, path: &Path, groups: std::ops::Range<usize>) {
    let mut engine = open(engine, path);
    for number in groups {
        let (key, record) = (format!("job=\"{number}\""), record(number));
        let put = Change::Put { key: &key, record: &record };
        engine.commit(&[put], Durability::Process).expect("the engine commits");
    }
    engine.close().expect("the engine closes");
}

/// Names and contents of all files in a folder.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .expect("a folder")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("a readable file")))
        .collect();
    files.sort();
    files
}

#[test]
fn inspect_and_verify_describe_a_store_without_changing_it() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let folder = folder();
        fill(engine, folder.path(), 0..GROUPS);
        let before = files(folder.path());
        let flags = ["--backend", engine, "--path", text(folder.path())];
        let shown = succeeds(&[&["inspect"], &flags[..]].concat());
        for word in [
            engine,
            "closed",
            "groups          500,",
            "families        500",
            "2001-09-09T01:46:40Z",
            "checksum",
        ] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
        let verified = succeeds(&[&["verify"], &flags[..]].concat());
        assert!(verified.contains("\nok: "), "{verified}");
        assert!(files(folder.path()) == before, "a command has changed a store of {engine}");
    }
}

#[test]
fn verify_fails_on_invalid_records_and_damaged_files() {
    let folder = folder();
    fill("snapshot", folder.path(), 0..GROUPS);
    let path = text(folder.path()).to_owned();
    let mut engine = open("snapshot", folder.path());
    let put = Change::Put { key: "job=\"odd\"", record: b"\x09" };
    engine.commit(&[put], Durability::Disk).expect("the engine commits");
    engine.close().expect("the engine closes");
    let (out, error) = fails(&["verify", "--path", &path]);
    assert!(out.contains("bad record      {job=\"odd\"}: record format 9 is newer"), "{out}");
    assert!(error.contains("invalid records: 1") && error.contains(&path), "{error}");

    let (archive, mut bytes) = files(folder.path())
        .into_iter()
        .find(|(file, _)| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("archive-")))
        .expect("a closed store has archives");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&archive, bytes).expect("a writable file");
    for command in ["verify", "inspect"] {
        let (_, error) = fails(&[command, "--path", &path]);
        assert!(error.contains(text(&archive)) && error.contains("from a backup"), "{error}");
    }
}

#[test]
fn verify_succeeds_with_warnings() {
    let folder = folder();
    let mut engine = open("snapshot", folder.path());
    for number in 0..3 {
        let (key, record) = (format!("job=\"{number}\""), record(number));
        let put = Change::Put { key: &key, record: &record };
        engine.commit(&[put], Durability::Process).expect("the engine commits");
    }
    drop(engine);
    // The state that a power failure may leave: the last frame is torn, and it had not been synced.
    let log = folder.path().join("log-0000000001");
    let mut bytes = fs::read(&log).expect("the log");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("there are batches");
    bytes[end] = 0;
    fs::write(&log, bytes).expect("a writable file");
    let out = succeeds(&["verify", "--path", text(folder.path())]);
    assert!(out.contains("warning         ") && out.contains("the log was cut there"), "{out}");
    assert!(out.contains("warnings: 1") && !out.contains("\nok"), "{out}");
}

#[test]
fn a_missing_store_is_an_error_and_is_not_created() {
    let folder = folder();
    let missing = folder.path().join("missing");
    for command in [
        &["verify", "--path", text(&missing)][..],
        &["inspect", "--backend=sled", "--path", text(&missing)],
        &["migrate", "--from", &format!("snapshot:{}", text(&missing)), "--to", "sled:elsewhere"],
    ] {
        let (_, error) = fails(command);
        assert!(error.contains("contains no store of the "), "{error}");
    }
    assert!(!missing.exists());
}

#[test]
fn a_store_of_another_engine_or_in_use_is_rejected() {
    let folder = folder();
    fill("snapshot", folder.path(), 0..3);
    let (_, error) = fails(&["verify", "--backend=sled", "--path", text(folder.path())]);
    assert!(error.contains("store of the snapshot engine"), "{error}");
    let user = open("snapshot", folder.path());
    let (_, error) = fails(&["verify", "--path", text(folder.path())]);
    assert!(error.contains("in use by another process"), "{error}");
    drop(user);
    let store = format!("snapshot:{}", text(folder.path()));
    let (_, error) = fails(&["migrate", "--from", &store, "--to", &format!("{store}/.")]);
    assert!(error.contains("the source and the target are the same store"), "{error}");
}

#[test]
fn migrate_copies_groups_and_can_be_repeated() {
    let (first, second) = (folder(), folder());
    fill("snapshot", first.path(), 0..GROUPS);
    // The state that an interrupted migration leaves.
    fill("sled", second.path(), 0..GROUPS / 5);
    let (from, to) = (format!("snapshot:{}", text(first.path())), format!("sled:{}", text(second.path())));
    let before = files(first.path());
    let out = succeeds(&["migrate", "--from", &from, "--to", &to]);
    assert!(
        out.contains("copied          400 groups") && out.contains("already there   100 groups"),
        "{out}"
    );
    assert!(files(first.path()) == before, "the source has changed");
    let again = succeeds(&["migrate", "--from", &from, "--to", &to]);
    assert!(again.contains("copied          0 groups"), "{again}");
    let checksum = |engine: &str, path: &Path| {
        let out = succeeds(&["inspect", "--backend", engine, "--path", text(path)]);
        out.lines().find(|line| line.starts_with("checksum")).expect("a checksum").to_owned()
    };
    assert_eq!(checksum("snapshot", first.path()), checksum("sled", second.path()));
}

#[test]
fn migrate_rejects_a_target_with_other_groups_before_it_writes() {
    let (first, second) = (folder(), folder());
    fill("snapshot", first.path(), 0..GROUPS);
    fill("snapshot", second.path(), GROUPS - 1..GROUPS + 1);
    let [from, to] = [&first, &second].map(|folder| format!("snapshot:{}", text(folder.path())));
    let (_, error) = fails(&["migrate", "--from", &from, "--to", &to]);
    assert!(error.contains("1 groups") && error.contains("{job=\"500\"}"), "{error}");
    let out = succeeds(&["inspect", "--path", text(second.path())]);
    assert!(out.contains("groups          2,"), "{out}");
}

#[test]
fn each_command_has_a_help_text_and_unknown_commands_fail() {
    for (arguments, word) in [
        (&["--help"][..], "migrate"),
        (&["inspect", "--help"], "--backend"),
        (&["verify", "--help"], "--path"),
        (&["migrate", "--help"], "--from"),
    ] {
        let out = succeeds(arguments);
        assert!(out.contains(word) && out.contains("Usage: sluicegate storage"), "{out}");
    }
    let (_, error) = fails(&["wipe"]);
    assert!(error.contains("wipe"), "{error}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_sluicegate")).arg("verify").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
}
