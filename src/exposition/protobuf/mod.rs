//! The protobuf exposition format: delimited messages of metric families.
//!
//! Repeated items are parsed and written by hand. Memory then stays within a small factor of the body, whatever lengths and
//! counts the body announces, and texts are borrowed. The derived structs of [`message`] serve what text cannot represent:
//! native histograms, exemplars, creation times and float counts. These are kept as protobuf, beside the part that text can
//! represent.
//!
//! Some bodies can be parsed but must be rejected: invalid names, values of another type than the family's, texts that are not
//! UTF-8, inconsistent native histograms. They set [`rejection`](super::model::Families::rejection) instead of being an error,
//! because a rejected push gives its group a failure time.
//!
//! * [`wire`] parses fields. It does not know the messages; [`schema`] does.
//! * [`decode`] parses a body into families; [`native_histogram`] checks native histograms and lists their buckets
//!   ([`native_bounds`]).
//! * [`encode`] writes families, in pieces that can be concatenated.
//! * [`from_text`] converts lines of a scrape to such pieces; [`escape_labels`] escapes the label names in them.
//!
//! The text representations of protobuf are not supported; no client sends them.

mod decode;
mod encode;
mod escape_labels;
mod from_text;
pub mod message;
mod native_bounds;
mod native_histogram;
mod schema;
mod wire;

#[cfg(test)]
mod tests;

pub use decode::{MessageError, ProtobufError, decode_family, parse, parse_within};
pub use encode::{FamilyHeader, write_family_header};
pub(super) use encode::{write_header_fields, write_metric};
pub use escape_labels::escape_metrics;
pub use from_text::{metrics_of_exact, metrics_of_lines, part_of_exact};
pub use message::histogram_of;
pub use native_histogram::{BoundaryRule, NativeBucket, NativeHistogramError, is_float, native_buckets};
pub use wire::WireError;
