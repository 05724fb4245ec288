//! The tests that every engine passes. A test of an engine implements [`Subject`] and writes `conformance!(TheEngine)`.
//!
//! Batches are generated from a seed, and the number of a batch determines its content. So the state of a store after any
//! number of batches is known, and whatever the store returns can be compared with it.

pub mod checks;
pub mod damage;
pub mod kill;
mod plan;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::{Change, Durability, Engine, EngineError, Groups, Restored, UnreadStore};

pub use plan::{Op, Plan};

/// All records of a store, by key.
pub type State = BTreeMap<String, Vec<u8>>;

/// An engine under test.
pub trait Subject: Sync {
    /// Opens the store in an existing folder. The engine stores everything in this folder.
    ///
    /// # Errors
    /// Those of the engine.
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError>;

    /// Whether the engine stores anything. One that does not must never return a record.
    fn is_persistent(&self) -> bool {
        true
    }
}

/// Opens a store and reads it.
///
/// # Panics
/// If a key comes twice, or the counts are wrong.
///
/// # Errors
/// Those of the engine.
pub fn open(subject: &dyn Subject, folder: &Path) -> Result<(Box<dyn Engine>, State, Restored), EngineError> {
    restore(subject.open(folder)?, 2)
}

/// Reads an open store for the first time.
///
/// # Panics
/// As [`open`].
///
/// # Errors
/// Those of the engine.
pub fn restore(
    store: UnreadStore,
    threads: usize,
) -> Result<(Box<dyn Engine>, State, Restored), EngineError> {
    let state = Collected::default();
    let (engine, restored) = store.read_all(count(threads), &|key, record| state.add(key, record))?;
    let state = state.checked(&restored, engine.as_ref());
    Ok((engine, state, restored))
}

/// Reads a store again.
///
/// # Panics
/// As [`open`].
///
/// # Errors
/// Those of the engine.
pub fn read(engine: &mut dyn Engine, threads: usize) -> Result<State, EngineError> {
    let state = Collected::default();
    let restored = engine.read_all(count(threads), &|key, record| state.add(key, record))?;
    Ok(state.checked(&restored, engine))
}

fn count(threads: usize) -> NonZeroUsize {
    NonZeroUsize::new(threads).expect("a test uses at least one thread")
}

#[derive(Default)]
struct Collected {
    records: Mutex<State>,
    repeated: Mutex<Option<String>>,
}

impl Collected {
    fn add(&self, key: &str, record: &[u8]) {
        let before = self.records.lock().expect("no panic").insert(key.to_owned(), record.to_vec());
        if before.is_some() {
            *self.repeated.lock().expect("no panic") = Some(key.to_owned());
        }
    }

    fn checked(self, restored: &Restored, engine: &dyn Engine) -> State {
        let state = self.records.into_inner().expect("no panic");
        assert_eq!(self.repeated.into_inner().expect("no panic"), None, "a key came twice");
        assert_eq!(restored.records, state.len() as u64, "the count of records is wrong");
        let bytes: usize = state.iter().map(|(key, record)| key.len() + record.len()).sum();
        assert_eq!(restored.record_bytes, bytes as u64, "the count of bytes is wrong");
        assert_eq!(engine.stats().sequence, restored.sequence);
        state
    }
}

/// The groups in the memory of a program, which change while an engine starts anew.
#[derive(Debug, Default)]
pub struct ChangingGroups {
    now: State,
    /// The states that follow, one at each call of [`Groups::changed`].
    next: VecDeque<State>,
}

impl ChangingGroups {
    /// Groups that go through these states.
    pub fn new(states: impl IntoIterator<Item = State>) -> Self {
        Self { now: State::new(), next: states.into_iter().collect() }
    }
}

impl Groups for ChangingGroups {
    fn changed(&mut self) -> Vec<Arc<str>> {
        let Some(next) = self.next.pop_front() else { return Vec::new() };
        let before = std::mem::replace(&mut self.now, next);
        let keys = before.keys().chain(self.now.keys());
        keys.filter(|key| before.get(*key) != self.now.get(*key)).map(|key| key.as_str().into()).collect()
    }

    fn record(&mut self, key: &Arc<str>, record: &mut Vec<u8>) -> bool {
        self.now.get(&**key).map(|bytes| record.extend_from_slice(bytes)).is_some()
    }
}

/// Commits operations as one batch and returns its number.
///
/// # Errors
/// Those of the engine.
pub fn commit(engine: &mut dyn Engine, batch: &[Op], durability: Durability) -> Result<u64, EngineError> {
    let changes: Vec<Change<'_>> = batch.iter().map(Op::change).collect();
    engine.commit(&changes, durability).map(|receipt| receipt.sequence)
}

/// Generates a test for every check. It belongs in a file of its own in the `tests` folder of an engine. With `; short` it
/// leaves out the million records, for further configurations of an engine that was already tested with them.
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        $crate::conformance!($subject; short);

        #[test]
        #[ignore = "slow: a million records"]
        fn returns_a_million_records_once_each() {
            $crate::suite::checks::returns_a_million_records_once_each(&$subject);
        }
    };
    ($subject:expr; short) => {
        $crate::conformance!(@tests $subject;
            a_new_store_is_empty,
            returns_batches_in_commit_order,
            applies_the_changes_of_a_batch_in_order,
            applies_patches_in_commit_order,
            applies_numbers_in_commit_order,
            a_patch_of_a_large_group_writes_little,
            reading_again_returns_the_same_records,
            continues_the_numbers_after_a_restart,
            stores_unusual_keys_and_records,
            a_sink_can_stop_a_read,
            starts_anew_with_other_groups,
            a_store_has_one_user,
            returns_thousands_of_records_once_each,
        );

        #[test]
        fn a_killed_process_keeps_acknowledged_batches() {
            $crate::suite::kill::a_killed_process_keeps_acknowledged_batches(&$subject, module_path!());
        }

        #[test]
        #[ignore = "started and killed by the test above"]
        fn killed_child() {
            $crate::suite::kill::killed_child(&$subject);
        }
    };
    (@tests $subject:expr; $($check:ident),* $(,)?) => {
        $(
            #[test]
            fn $check() {
                $crate::suite::checks::$check(&$subject);
            }
        )*
    };
}
