//! The tools on real stores of both engines.

use std::num::NonZeroUsize;
use std::path::Path;

use sluicegate_engine::record::{Family, Kind, Record};
use sluicegate_engine::{Change, Commit, Durability, Engine, EngineError, Restored, Sink, Stats};
use sluicegate_sled::Sled;
use sluicegate_snapshot::{Options, Snapshot};
use sluicegate_store_tools::{MigrateError, migrate, survey};

const THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
const GROUPS: usize = 3000;

fn snapshot(folder: &Path) -> Box<dyn Engine> {
    Box::new(Snapshot::open(folder, Options::default()).expect("it opens"))
}

fn sled(folder: &Path) -> Box<dyn Engine> {
    Box::new(Sled::open(folder).expect("it opens"))
}

fn record(number: usize) -> Vec<u8> {
    let text = format!("x{{job=\"{number}\"}} 1\n").repeat(1 + number % 100);
    let family = Family {
        name: "x",
        kind: Kind::Gauge,
        help: None,
        push_seconds: 1.0,
        text: text.as_bytes(),
        exact: None,
    };
    let record = Record {
        revision: 0,
        push_seconds: 1000.0 + number as f64,
        failure_seconds: 0.0,
        created_seconds: 1.0,
        expires_seconds: None,
        families: vec![family],
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).expect("a small record");
    bytes
}

fn put(backend: &mut dyn Engine, key: &str, record: &[u8]) {
    backend.commit(&[Change::Put { key, record }], Durability::Process).expect("a batch is kept");
}

fn filled(mut backend: Box<dyn Engine>) -> Box<dyn Engine> {
    backend.restore(THREADS, &|_, _| ()).expect("it can be read");
    for number in 0..GROUPS {
        put(backend.as_mut(), &format!("job=\"{number}\""), &record(number));
    }
    backend
}

/// Fails at a commit, as a full disk does.
struct Failing {
    inner: Box<dyn Engine>,
    commits_left: u32,
}

impl Engine for Failing {
    fn restore(&mut self, threads: NonZeroUsize, sink: Sink<'_>) -> Result<Restored, EngineError> {
        self.inner.restore(threads, sink)
    }

    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Commit, EngineError> {
        self.commits_left = self
            .commits_left
            .checked_sub(1)
            .ok_or_else(|| EngineError::Failed { why: "made to fail".to_owned() })?;
        self.inner.commit(batch, durability)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        self.inner.close()
    }
}

#[test]
fn a_survey_counts_what_is_there_and_names_what_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mut backend = filled(snapshot(folder.path()));
    let flawless = survey(backend.as_mut(), THREADS, &|_, _| ()).expect("it can be read");
    assert!(flawless.is_flawless());
    assert_eq!((flawless.total.records, flawless.families), (GROUPS as u64, GROUPS as u64));
    assert_eq!(flawless.lines, (0..GROUPS).map(|number| 1 + number as u64 % 100).sum::<u64>());
    assert_eq!(flawless.pushes_seconds, Some((1000.0, 999.0 + GROUPS as f64)));
    put(backend.as_mut(), "job=\"odd\"", b"\x09");
    let odd = survey(backend.as_mut(), THREADS, &|_, _| ()).expect("it can be read");
    assert!(!odd.is_flawless());
    assert_eq!((odd.bad_records, odd.bad[0].key.as_str()), (1, "job=\"odd\""));
    assert_ne!(odd.total, flawless.total);
}

#[test]
fn groups_are_carried_from_engine_to_engine_and_back() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder for a test"));
    let [first, second, third] = folders.each_ref().map(tempfile::TempDir::path);
    let mut from = filled(snapshot(first));
    let before = survey(from.as_mut(), THREADS, &|_, _| ()).expect("it can be read").total;
    let mut to = sled(second);
    let migrated = migrate(from.as_mut(), to.as_mut(), THREADS, &|_, _| ()).expect("it is carried over");
    assert_eq!((migrated.written, migrated.found, migrated.total), (GROUPS as u64, 0, before));
    let again = migrate(from.as_mut(), to.as_mut(), THREADS, &|_, _| ()).expect("nothing is left to do");
    assert_eq!((again.written, again.found), (0, GROUPS as u64));
    to.close().expect("it closes");
    let mut to = sled(second);
    let mut back = snapshot(third);
    migrate(to.as_mut(), back.as_mut(), THREADS, &|_, _| ()).expect("it is carried back");
    back.close().expect("it closes");
    assert_eq!(survey(snapshot(third).as_mut(), THREADS, &|_, _| ()).expect("it can be read").total, before);
}

#[test]
fn a_migration_that_was_interrupted_goes_on() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder for a test"));
    let mut from = filled(sled(folders[0].path()));
    let mut to = Failing { inner: snapshot(folders[1].path()), commits_left: 1 };
    let error = migrate(from.as_mut(), &mut to, THREADS, &|_, _| ()).expect_err("the second batch fails");
    assert!(matches!(error, MigrateError::Target(_)), "{error}");
    drop(to);
    let mut to = snapshot(folders[1].path());
    let migrated = migrate(from.as_mut(), to.as_mut(), THREADS, &|_, _| ()).expect("now it comes to its end");
    assert!(migrated.found > 0 && migrated.written > 0, "{migrated:?}");
    assert_eq!(migrated.found + migrated.written, GROUPS as u64);
}

#[test]
fn a_target_that_holds_something_else_is_refused() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder for a test"));
    let mut from = filled(snapshot(folders[0].path()));
    let mut to = snapshot(folders[1].path());
    to.restore(THREADS, &|_, _| ()).expect("it can be read");
    put(to.as_mut(), "job=\"other\"", b"");
    let error = migrate(from.as_mut(), to.as_mut(), THREADS, &|_, _| ()).expect_err("a group too many");
    assert!(matches!(&error, MigrateError::TargetHasOthers { groups: 1, .. }), "{error}");
}
