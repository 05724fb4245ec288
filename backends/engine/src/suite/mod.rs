//! The tests that every engine passes. An engine says how it is opened and writes `conformance!(TheEngine)`.
//!
//! Batches come from a seed, and the number of a batch says what is in it. So whatever a store gives back can be held against
//! the one state it may have after as many batches as it claims to hold.

pub mod checks;
pub mod damage;
pub mod kill;
mod plan;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;

use crate::{Change, Commit, Durability, Engine, EngineError, Restored};

pub use plan::{Op, Plan};

/// All records of a store, by key.
pub type State = BTreeMap<String, Vec<u8>>;

/// An engine under test.
pub trait Subject: Sync {
    /// Opens the engine on a folder that exists; whatever it keeps is in there.
    ///
    /// # Errors
    /// Those of the engine.
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError>;

    /// Whether it keeps anything. Of one that does not, nothing may ever come back.
    fn keeps(&self) -> bool {
        true
    }
}

/// Opens and restores. Panics if a key comes twice or the counts are wrong: the sink's caller must not.
///
/// # Errors
/// Those of the engine.
pub fn open(subject: &dyn Subject, folder: &Path) -> Result<(Box<dyn Engine>, State, Restored), EngineError> {
    let mut backend = subject.open(folder)?;
    let (state, restored) = restore(backend.as_mut(), 2)?;
    Ok((backend, state, restored))
}

/// Reads everything that an engine keeps.
///
/// # Errors
/// Those of the engine.
pub fn restore(backend: &mut dyn Engine, threads: usize) -> Result<(State, Restored), EngineError> {
    let threads = NonZeroUsize::new(threads).expect("a test names a thread");
    let state = Mutex::new((State::new(), None));
    let restored = backend.restore(threads, &|key, record| {
        let mut state = state.lock().expect("the lines below do not panic");
        if state.0.insert(key.to_owned(), record.to_vec()).is_some() {
            state.1 = Some(key.to_owned());
        }
    })?;
    let (state, twice) = state.into_inner().expect("no sink panicked");
    assert_eq!(twice, None, "a key was given twice");
    assert_eq!(restored.records, state.len() as u64, "the count of records is wrong");
    let bytes: usize = state.iter().map(|(key, record)| key.len() + record.len()).sum();
    assert_eq!(restored.record_bytes, bytes as u64, "the count of bytes is wrong");
    assert_eq!(backend.stats().sequence, restored.sequence);
    Ok((state, restored))
}

/// Commits operations as one batch and returns its number.
///
/// # Errors
/// Those of the engine.
pub fn commit(backend: &mut dyn Engine, batch: &[Op], durability: Durability) -> Result<u64, EngineError> {
    let changes: Vec<Change<'_>> = batch.iter().map(Op::change).collect();
    match backend.commit(&changes, durability)? {
        Commit::Kept(receipt) => Ok(receipt.sequence),
        Commit::Conflict(_) => panic!("nobody else changed anything"),
    }
}

/// Makes a test of every check. Stands in a file of its own in the `tests` folder of an engine. With `; short` the million
/// records are left out, for further sizes of an engine that has been tested with them.
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        $crate::conformance!($subject; short);

        #[test]
        #[ignore = "slow: a million records"]
        fn a_million_records_come_back_once_each() {
            $crate::suite::checks::a_million_records_come_back_once_each(&$subject);
        }
    };
    ($subject:expr; short) => {
        $crate::conformance!(@tests $subject;
            a_new_store_is_empty,
            batches_come_back_in_their_order,
            the_last_change_of_a_group_counts,
            restoring_twice_gives_the_same,
            numbers_go_on_after_a_restart,
            odd_keys_and_records_are_kept,
            a_batch_before_the_restore_is_refused,
            a_store_has_one_user,
            thousands_of_records_come_back_once_each,
        );

        #[test]
        fn a_killed_process_loses_nothing_it_acknowledged() {
            $crate::suite::kill::a_killed_process_loses_nothing_it_acknowledged(&$subject, module_path!());
        }

        #[test]
        #[ignore = "started by the test above, which kills it"]
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
