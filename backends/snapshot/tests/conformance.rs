//! The engine passes the tests of every engine, with its default options and with small ones.

use std::path::Path;

use sluicegate_engine::suite::Subject;
use sluicegate_engine::{EngineError, UnreadStore};
use sluicegate_snapshot::{Options, Snapshot};

struct WithOptions(Options);

impl Subject for WithOptions {
    fn open(&self, folder: &Path) -> Result<UnreadStore, EngineError> {
        Snapshot::open(folder, self.0)
    }
}

const SMALL: Options = Options {
    partitions: 4,
    segment_bytes_min: 4096,
    segment_bytes_max: 1 << 16,
    log_bytes: 1 << 17,
    compaction_interval: None,
    background: true,
};

mod with_default_options {
    use sluicegate_engine::conformance;

    conformance!(super::WithOptions(super::Options::default()));
}

mod with_small_options {
    use sluicegate_engine::conformance;

    conformance!(super::WithOptions(super::SMALL); short);
}

mod with_small_options_without_threads {
    use sluicegate_engine::conformance;

    conformance!(super::WithOptions(super::Options { background: false, ..super::SMALL }); short);
}
