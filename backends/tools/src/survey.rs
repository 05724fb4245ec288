//! Reads a whole store: every checksum of the engine, and every record. Changes nothing that the engine does not change by
//! opening.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use sluicegate_engine::record::{Record, RecordError};
use sluicegate_engine::{Engine, EngineError, Restored};

use crate::{Phase, Progress, Total};

/// So many bad records are named; all are counted.
const BAD_MAX: usize = 100;

/// What is in a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// What the engine says of itself.
    pub restored: Restored,
    /// All records.
    pub total: Total,
    /// Families of all groups.
    pub families: u64,
    /// Rendered lines of all groups.
    pub lines: u64,
    /// The largest group: its bytes and its key.
    pub largest: Option<(u64, String)>,
    /// Unix seconds of the first and the last successful push that a group still shows.
    pub pushes_seconds: Option<(f64, f64)>,
    /// How many records cannot be read.
    pub bad_records: u64,
    /// The first of them.
    pub bad: Vec<Bad>,
}

/// A record that cannot be read, although the engine gave it back as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Its grouping key.
    pub key: String,
    /// What is wrong with it.
    pub error: RecordError,
}

impl Survey {
    /// Whether everything can be read and nothing is to be said about it.
    pub fn is_flawless(&self) -> bool {
        self.bad_records == 0 && self.restored.warnings.is_empty()
    }

    fn add(&mut self, key: &str, bytes: &[u8]) {
        self.total.add(key, bytes);
        let size = (key.len() + bytes.len()) as u64;
        if self.largest.as_ref().is_none_or(|(largest, _)| size > *largest) {
            self.largest = Some((size, key.to_owned()));
        }
        match Record::decode(bytes) {
            Ok(record) => {
                self.families += record.families.len() as u64;
                let texts = record.families.iter().map(|family| family.text);
                self.lines += texts.flatten().filter(|byte| **byte == b'\n').count() as u64;
                if record.push_seconds > 0.0 {
                    let at = record.push_seconds;
                    let (first, last) = self.pushes_seconds.unwrap_or((at, at));
                    self.pushes_seconds = Some((first.min(at), last.max(at)));
                }
            }
            Err(error) => {
                self.bad_records += 1;
                if self.bad.len() < BAD_MAX {
                    self.bad.push(Bad { key: key.to_owned(), error });
                }
            }
        }
    }
}

/// Reads all of a store.
///
/// # Errors
/// Those of the engine: it refuses a store that is damaged.
pub fn survey(
    backend: &mut dyn Engine,
    threads: NonZeroUsize,
    progress: Progress<'_>,
) -> Result<Survey, EngineError> {
    let survey = Mutex::new(Survey::default());
    let restored = backend.restore(threads, &|key, record| {
        progress(Phase::ReadSource, (key.len() + record.len()) as u64);
        survey.lock().unwrap_or_else(PoisonError::into_inner).add(key, record);
    })?;
    let survey = survey.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Survey { restored, ..survey })
}
