//! The text and protobuf exposition formats: parsers, names, labels, numbers, escaping, rendering and selectors.
//!
//! Does no IO and keeps no state.

pub mod consistency;
pub mod escape;
pub mod labels;
pub mod lengths;
pub mod memory;
pub mod model;
pub mod names;
pub mod number;
pub mod protobuf;
pub(crate) mod quote;
pub mod render;
pub mod selector;
pub mod text;

/// An exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text 0.0.4.
    Text,
    /// Delimited protobuf.
    Protobuf,
}
