//! Reads the persistence file of the official Pushgateway (`--persistence.file`), so that a gateway can take over its groups.
//!
//! The file is one value in [gob](https://pkg.go.dev/encoding/gob), Go's own encoding: a map of groups, each with its labels
//! and its families, each of those with the time of its push and the protobuf of a `MetricFamily`. Read is what such a file
//! needs and no more: gob's own definitions of types are followed, so a field that a later version adds is passed over.
//!
//! What it does not do: look into the protobuf, write, or read any other gob.

mod reader;
mod types;
mod value;

use std::collections::BTreeMap;

/// A group of the file. Its push times are two of its families, `push_time_seconds` and `push_failure_time_seconds`.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'a> {
    /// The labels of the grouping key.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// Its families by name.
    pub families: BTreeMap<&'a str, Family<'a>>,
}

/// A family of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family<'a> {
    /// Unix seconds of the push that brought it; 0 if the file does not say.
    pub push_seconds: f64,
    /// The encoded `io.prometheus.client.MetricFamily`. `None` is damage that the official program only warns about.
    pub protobuf: Option<&'a [u8]>,
}

/// Why a file is none that a Pushgateway wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct GobError {
    /// Where in the file.
    pub at: usize,
    /// What is wrong there.
    pub what: String,
}

/// Reads a whole file. The groups borrow from it; they come in the order of the file, which is none.
///
/// # Errors
/// It is not such a file, or damaged. Never panics, and takes no more memory than a small multiple of the bytes.
pub fn read(bytes: &[u8]) -> Result<Vec<Group<'_>>, GobError> {
    value::groups(bytes)
}
