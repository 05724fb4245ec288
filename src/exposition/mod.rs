//! Bytes ↔ metric families. Does no IO and keeps no state.

pub mod model;
