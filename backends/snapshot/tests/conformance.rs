//! The snapshot engine passes what every engine passes, with its own sizes and with small ones.

use std::path::Path;

use sluicegate_backend::suite::Subject;
use sluicegate_backend::{Backend, BackendError};
use sluicegate_snapshot::{Options, Snapshot};

struct Engine(Options);

impl Subject for Engine {
    fn open(&self, folder: &Path) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(Snapshot::open(folder, self.0)?))
    }
}

fn small(background: bool) -> Options {
    Options {
        partitions: 4,
        segment_bytes_min: 4096,
        segment_bytes_max: 1 << 16,
        log_bytes: 1 << 17,
        background,
    }
}

mod usual {
    use sluicegate_backend::conformance;

    conformance!(super::Engine(super::Options::default()));
}

mod small_with_threads {
    use sluicegate_backend::conformance;

    conformance!(super::Engine(super::small(true)); short);
}

mod small_without_threads {
    use sluicegate_backend::conformance;

    conformance!(super::Engine(super::small(false)); short);
}
