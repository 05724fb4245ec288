//! The conformance suite on the sled engine.

use std::path::Path;

use sluicegate_engine::suite::Subject;
use sluicegate_engine::{EngineError, UnreadStore, conformance};
use sluicegate_sled::Sled;

struct SledEngine;

impl Subject for SledEngine {
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError> {
        Sled::open(folder)
    }
}

conformance!(SledEngine);
