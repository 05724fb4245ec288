//! Reads the persistence file of the official Pushgateway (`--persistence.file`), so that a gateway can import its groups.
//!
//! The file is one value in [gob](https://pkg.go.dev/encoding/gob), the encoding of Go: a map of groups. Each group has labels
//! and families, and each family has its push time and the protobuf of a `MetricFamily`. This crate reads only as much of gob as
//! such a file needs. It follows the type definitions in the file, so it skips fields that a later version adds.
//!
//! It does not decode the protobuf, does not write, and does not read other gob files.

mod reader;
mod types;
mod value;

use std::collections::BTreeMap;

/// A group. Its push times are two of its families, `push_time_seconds` and `push_failure_time_seconds`.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'a> {
    /// The labels of the grouping key.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// The families by name.
    pub families: BTreeMap<&'a str, Family<'a>>,
}

/// A family of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family<'a> {
    /// Time of the push that set it, in Unix seconds; 0 if the file does not contain it.
    pub push_seconds: f64,
    /// The encoded `io.prometheus.client.MetricFamily`. `None` if it is missing, which the official program tolerates with a warning.
    pub protobuf: Option<&'a [u8]>,
}

/// Why a file is not a valid persistence file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct GobError {
    /// The offset in the file.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

/// Parses a persistence file. The groups borrow from it, and come in the order of the file, which is arbitrary.
///
/// Never panics. Memory is bounded by a small multiple of the size of the file.
///
/// # Errors
/// The bytes are not a persistence file, or are damaged.
pub fn read(bytes: &[u8]) -> Result<Vec<Group<'_>>, GobError> {
    value::groups(bytes)
}
