//! Bytes ↔ metric families. Does no IO and keeps no state.

pub mod compression;
pub mod escape;
pub mod form;
pub mod gzip;
pub mod labels;
pub mod model;
pub mod names;
pub mod number;
pub mod protobuf;
pub mod render;
pub mod selector;
pub mod text;
