//! Bytes ↔ metric families. Does no IO and keeps no state.

pub mod gzip;
pub mod model;
pub mod gzip;
pub mod labels;
pub mod number;
pub mod render;
pub mod suffix;
