//! The interface of storage engines: the [`Engine`] trait, the [`Record`](record::Record) that the gateway stores, and, with
//! the feature `suite`, the tests that every engine passes.
//!
//! An engine stores groups **as they are after a push**, never pushes. It handles keys and bytes: it knows no metrics, no
//! HTTP and no clock of the server, and it records no metrics of its own. It is synchronous, and one thread owns it.
//! `docs/storage.md` explains how to write one.

mod descriptor;
mod engine;
mod error;
mod lock;
pub mod number;
mod panic;
pub mod record;
#[cfg(feature = "suite")]
pub mod suite;
mod unread;

pub use descriptor::{EngineDescriptor, OpenOptions};
pub use engine::{CHANGED_ROUNDS_MAX, Change, Durability, Engine, Groups, Receipt, Restored, Sink, Stats};
pub use error::EngineError;
pub use lock::Lock;
pub use panic::panic_message;
pub use unread::{FirstRead, UnreadStore};
