//! Which storage engines there are, by name, and what other programs kept.
//!
//! * [`engines`] — opening an engine.
//! * [`import`] — the persistence file of the official program → records.
//!
//! It keeps nothing itself and has no thread: `runtime` calls the engine.

pub mod engines;
pub mod import;
