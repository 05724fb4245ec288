//! The tools on stores of both engines.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use sluicegate_engine::record::{Family, Kind, Record};
use sluicegate_engine::{
    Change, Durability, Engine, EngineError, Groups, OpenOptions, Receipt, Restored, Sink, Stats, UnreadStore,
};
use sluicegate_store_tools::{MigrateError, Survey, migrate, survey};

const THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
const GROUPS: usize = 3000;

fn snapshot(folder: &Path) -> UnreadStore {
    (sluicegate_snapshot::ENGINE.open)(folder, OpenOptions::default()).expect("the store opens")
}

fn sled(folder: &Path) -> UnreadStore {
    (sluicegate_sled::ENGINE.open)(folder, OpenOptions::default()).expect("the store opens")
}

fn read(store: UnreadStore) -> Box<dyn Engine> {
    store.read_all(THREADS, &|_, _| ()).expect("the store can be read").0
}

fn surveyed(store: UnreadStore) -> Survey {
    survey(store, THREADS, &|_, _| ()).expect("the store can be read").1
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

fn put(engine: &mut dyn Engine, key: &str, record: &[u8]) {
    engine.commit(&[Change::Put { key, record }], Durability::Process).expect("a batch is committed");
}

fn fill(store: UnreadStore) {
    let mut engine = read(store);
    for number in 0..GROUPS {
        put(engine.as_mut(), &format!("job=\"{number}\""), &record(number));
    }
}

/// Fails at a commit, as a full disk does.
struct Failing {
    inner: Box<dyn Engine>,
    commits_left: u32,
}

impl Engine for Failing {
    fn read(
        &mut self,
        threads: NonZeroUsize,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError> {
        self.inner.read(threads, sink)
    }

    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Receipt, EngineError> {
        self.commits_left = self
            .commits_left
            .checked_sub(1)
            .ok_or_else(|| EngineError::Failed { why: "made to fail".to_owned() })?;
        self.inner.commit(batch, durability)
    }

    fn start_anew(&mut self, groups: &mut dyn Groups) -> Result<Receipt, EngineError> {
        self.inner.start_anew(groups)
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        self.inner.close()
    }
}

#[test]
fn a_survey_counts_the_content_and_lists_bad_records() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    fill(snapshot(folder.path()));
    let flawless = surveyed(snapshot(folder.path()));
    assert!(flawless.is_flawless());
    assert_eq!((flawless.total.records, flawless.families), (GROUPS as u64, GROUPS as u64));
    assert_eq!(flawless.lines, (0..GROUPS).map(|number| 1 + number as u64 % 100).sum::<u64>());
    assert_eq!(flawless.pushes_seconds, Some((1000.0, 999.0 + GROUPS as f64)));
    put(read(snapshot(folder.path())).as_mut(), "job=\"odd\"", b"\x09");
    let odd = surveyed(snapshot(folder.path()));
    assert!(!odd.is_flawless());
    assert_eq!((odd.bad_records, odd.bad[0].key.as_str()), (1, "job=\"odd\""));
    assert_ne!(odd.total, flawless.total);
}

#[test]
fn a_migration_copies_all_groups_to_another_engine_and_back() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder for a test"));
    let [first, second, third] = folders.each_ref().map(tempfile::TempDir::path);
    fill(snapshot(first));
    let before = surveyed(snapshot(first)).total;
    let copy = |from, to| migrate(from, to, THREADS, &|_, _| ()).expect("the groups are copied");
    let migrated = copy(snapshot(first), sled(second));
    assert_eq!((migrated.written, migrated.found, migrated.total), (GROUPS as u64, 0, before));
    let again = copy(snapshot(first), sled(second));
    assert_eq!((again.written, again.found), (0, GROUPS as u64));
    copy(sled(second), snapshot(third));
    let copied = surveyed(snapshot(third));
    assert!(copied.restored.closed);
    assert_eq!(copied.total, before);
}

#[test]
fn an_interrupted_migration_can_be_repeated() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder for a test"));
    let [from, to] = folders.each_ref().map(tempfile::TempDir::path);
    fill(sled(from));
    let failing = UnreadStore::new(Failing { inner: read(snapshot(to)), commits_left: 1 });
    let error = migrate(sled(from), failing, THREADS, &|_, _| ()).expect_err("the second batch fails");
    assert!(matches!(error, MigrateError::Target(_)), "{error}");
    let migrated = migrate(sled(from), snapshot(to), THREADS, &|_, _| ()).expect("the rest is copied");
    assert!(migrated.found > 0 && migrated.written > 0, "{migrated:?}");
    assert_eq!(migrated.found + migrated.written, GROUPS as u64);
}

#[test]
fn refuses_a_target_with_other_groups() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder for a test"));
    let [from, to] = folders.each_ref().map(tempfile::TempDir::path);
    fill(snapshot(from));
    put(read(snapshot(to)).as_mut(), "job=\"other\"", b"");
    let error = migrate(snapshot(from), snapshot(to), THREADS, &|_, _| ()).expect_err("a group too many");
    assert!(matches!(&error, MigrateError::TargetHasOthers { groups: 1, .. }), "{error}");
}
