//! The engine over sled passes what every engine passes.

use std::path::Path;

use sluicegate_backend::suite::Subject;
use sluicegate_backend::{Backend, BackendError, conformance};
use sluicegate_sled::Sled;

struct Engine;

impl Subject for Engine {
    fn open(&self, folder: &Path) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(Sled::open(folder)?))
    }
}

conformance!(Engine);
