//! The engine over [sled](https://docs.rs/sled/0.34.7), an embedded database: a batch of ours is a batch of sled's, flushed.
//!
//! sled 0.34 is not maintained, and promises less than a gateway needs: a flush does not reach the disk, a damaged file can
//! open as an empty or an older database, and it panics where others return errors. So a header in the database counts the
//! batches and the records and sums them up, a small file beside it (the *mark*) remembers what was acknowledged, and every
//! call is made so that a panic becomes an error. What is left of the weakness stands in `docs/storage.md`. Who has no reason
//! to choose it takes the snapshot engine.
//!
//! What it does not do: restore on several threads, or keep a second copy of anything.

mod engine;
mod guard;
mod header;
mod mark;

pub use engine::Sled;

use sluicegate_engine::EngineDescriptor;

/// The engine as programs list it.
pub const ENGINE: EngineDescriptor = EngineDescriptor {
    name: "sled",
    summary: "the embedded database sled",
    is_present: |folder| ["db", "mark"].iter().any(|name| folder.join(name).exists()),
    open: |folder, _| Ok(Box::new(Sled::open(folder)?)),
};
