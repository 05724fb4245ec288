//! The protobuf exposition format: delimited messages of metric families.
//!
//! Read and written by hand where a body is many things of one kind, because then memory stays within a small factor of
//! the body, whatever lengths and counts it announces, and texts are borrowed. The derived structs of [`message`] serve
//! what text cannot show: native histograms, exemplars, times of creation, counts as floats. These are kept as protobuf,
//! beside what text shows of them.
//!
//! What can be read but must not be kept (values of another kind than the family's type, texts that are not UTF-8, native
//! histograms that contradict themselves) makes [`Families::refusal`]. That differs from an error: the group gets to know.
//!
//! * [`wire`] reads fields; it knows no messages.
//! * [`decode`] makes families of a body; [`native_histogram`] checks native histograms and counts out their buckets ([`native_bounds`]).
//! * [`encode`] writes families, in pieces that can be put together.
//! * [`from_text`] makes such pieces of the lines that a scrape shows; [`escape_labels`] spells the names in them anew.
//!
//! Not for the text forms of protobuf, which no client sends.

mod decode;
mod encode;
mod escape_labels;
mod from_text;
pub mod message;
mod native_bounds;
mod native_histogram;
mod wire;

#[cfg(test)]
mod tests;

pub use decode::{ProtobufError, decode_family, parse};
pub use encode::{Head, write_family_head};
pub(super) use encode::{write_head, write_metric};
pub use escape_labels::escape_metrics;
pub use from_text::{metrics_of_exact, metrics_of_lines};
pub use message::histogram_of;
pub use native_histogram::{Bounds, NativeBucket, is_float, native_buckets};
