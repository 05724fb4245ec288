//! Reads a store completely: every checksum of the engine and every record. Changes nothing except what opening changes.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use sluicegate_engine::record::{Record, RecordError};
use sluicegate_engine::{Engine, EngineError, Restored, UnreadStore};

use crate::{Phase, Progress, Total};

/// How many bad records are listed. All are counted.
const BAD_MAX: usize = 100;

/// The content of a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// The result of the engine's own checks.
    pub restored: Restored,
    /// The sum over all records.
    pub total: Total,
    /// The number of families in all groups.
    pub families: u64,
    /// The number of rendered lines in all groups.
    pub lines: u64,
    /// The size in bytes and the key of the largest group.
    pub largest: Option<(u64, String)>,
    /// The earliest and the latest push time of a group, in Unix seconds.
    pub pushes_seconds: Option<(f64, f64)>,
    /// How many records cannot be decoded.
    pub bad_records: u64,
    /// The first of them, up to 100.
    pub bad: Vec<Bad>,
}

/// A record that cannot be decoded, although the engine returned it as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Its grouping key.
    pub key: String,
    /// Why it cannot be decoded.
    pub error: RecordError,
}

impl Survey {
    /// Whether every record can be decoded and the engine has no warnings.
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

/// Reads a store completely. Returns the engine, so that the caller can ask for its statistics.
///
/// # Errors
/// Those of the engine, which refuses a damaged store.
pub fn survey(
    store: UnreadStore,
    threads: NonZeroUsize,
    progress: Progress<'_>,
) -> Result<(Box<dyn Engine>, Survey), EngineError> {
    let survey = Mutex::new(Survey::default());
    let (engine, restored) = store.read_all(threads, &|key, record| {
        progress(Phase::ReadSource, (key.len() + record.len()) as u64);
        survey.lock().unwrap_or_else(PoisonError::into_inner).add(key, record);
    })?;
    let survey = survey.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((engine, Survey { restored, ..survey }))
}
