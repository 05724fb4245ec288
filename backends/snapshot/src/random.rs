//! Random numbers that identify a store or a run.

use sluicegate_engine::EngineError;

/// Returns a random number that is not 0: an id of 0 means that nothing was written.
pub(crate) fn random_id() -> Result<u64, EngineError> {
    match getrandom::u64() {
        Ok(id) => Ok(id.max(1)),
        Err(error) => {
            Err(EngineError::Io { file: "getrandom".into(), doing: "get random bytes", source: error.into() })
        }
    }
}
