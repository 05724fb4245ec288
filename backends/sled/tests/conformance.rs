//! The engine over sled passes what every engine passes.

use std::path::Path;

use sluicegate_engine::suite::Subject;
use sluicegate_engine::{Engine, EngineError, conformance};
use sluicegate_sled::Sled;

struct EngineUnderTest;

impl Subject for EngineUnderTest {
    fn open(&self, folder: &Path) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Sled::open(folder)?))
    }
}

conformance!(EngineUnderTest);
