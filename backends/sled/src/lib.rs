//! The engine on [sled](https://docs.rs/sled/0.34.7), an embedded database. A batch is one batch of sled, followed by a flush.
//!
//! sled 0.34 is not maintained and guarantees less than a gateway needs: its flush does not reach the disk, a damaged file can
//! open as an empty or older database, and it panics instead of returning some errors. Therefore a header record counts the
//! batches and records and contains their checksum, a small file next to the database (the *mark*) records what was
//! acknowledged, and every call to sled turns a panic into an error. `docs/storage.md` lists the weaknesses that remain. The
//! snapshot engine is the better choice unless there is a reason for sled.
//!
//! This engine does not read on several threads, and keeps no second copy of anything.

mod engine;
mod generation;
mod guard;
mod header;
mod mark;
mod patches;

pub use engine::Sled;

use sluicegate_engine::EngineDescriptor;

/// The engine as programs list it.
pub const ENGINE: EngineDescriptor = EngineDescriptor {
    name: "sled",
    summary: "the embedded database sled",
    is_present: |folder| ["db", "mark"].iter().any(|name| folder.join(name).exists()),
    open: |folder, _| Sled::open(folder),
};
