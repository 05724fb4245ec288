//! The engine that keeps nothing passes what every engine passes.

use std::path::Path;

use sluicegate_engine::suite::Subject;
use sluicegate_engine::{Engine, EngineError, conformance};
use sluicegate_memory::Memory;

struct EngineUnderTest;

impl Subject for EngineUnderTest {
    fn open(&self, _: &Path) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Memory::new()))
    }

    fn keeps(&self) -> bool {
        false
    }
}

conformance!(EngineUnderTest);
