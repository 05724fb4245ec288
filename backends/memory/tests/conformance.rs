//! The engine that keeps nothing passes what every engine passes.

use std::path::Path;

use sluicegate_backend::suite::Subject;
use sluicegate_backend::{Backend, BackendError, conformance};
use sluicegate_memory::Memory;

struct Engine;

impl Subject for Engine {
    fn open(&self, _: &Path) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(Memory::new()))
    }

    fn keeps(&self) -> bool {
        false
    }
}

conformance!(Engine);
