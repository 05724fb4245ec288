//! The conformance suite on the memory engine.

use std::path::Path;

use sluicegate_engine::suite::Subject;
use sluicegate_engine::{EngineError, UnreadStore, conformance};
use sluicegate_memory::Memory;

struct MemoryEngine;

impl Subject for MemoryEngine {
    fn open(&self, _folder: &Path) -> Result<UnreadStore, EngineError> {
        Ok(Memory::open())
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

conformance!(MemoryEngine);
