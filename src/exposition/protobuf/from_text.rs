//! Converts rendered lines to encoded metrics.
//!
//! A delimited family is a length, a header and its metrics, each in a field of its own. So the metrics can be encoded piece
//! by piece and concatenated after one header: [`super::write_family_header`] writes the header, [`metrics_of_lines`] converts
//! lines, and [`metrics_of_exact`] returns the metrics of a family that has exact protobuf.

use super::encode::write_metric;
use super::wire::Fields;
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::render::write_header;
use crate::exposition::text::{ParseError, parse};

/// Appends the metrics of rendered lines. The lines belong to one family, in one or several groups.
///
/// # Errors
/// Lines that [`render`](crate::exposition::render::render) does not write. `out` is then unchanged.
pub fn metrics_of_lines(
    out: &mut Vec<u8>,
    name: &str,
    kind: MetricType,
    lines: &[u8],
) -> Result<(), ParseError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = Vec::with_capacity(2 * name.len() + 32 + lines.len());
    write_header(&mut text, name, kind, None);
    text.extend_from_slice(lines);
    let families = parse(&text, NameRules::Utf8)?;
    let mut scratch = Vec::new();
    for family in &families.families {
        for metric in families.metrics_of(family) {
            let labels = families.labels_of(metric).iter().map(|label| (&*label.name, &*label.value));
            write_metric(out, &mut scratch, kind, labels, &families, metric);
        }
    }
    Ok(())
}

/// A family with some of the metrics of an [exact protobuf](crate::exposition::render::Rendered::exact): those that begin `skip` bytes
/// after its header, until there are `bytes_max` bytes, but at least one. Also returns the new `skip`; `None` at the end.
pub fn part_of_exact(exact: &[u8], skip: usize, bytes_max: usize) -> Option<(Vec<u8>, usize)> {
    let metrics = metrics_of_exact(exact);
    let rest = metrics.get(skip..).filter(|rest| !rest.is_empty())?;
    let mut fields = Fields::new(rest);
    while rest.len() - fields.rest().len() < bytes_max && matches!(fields.next(), Ok(Some(_))) {}
    // Bytes that are not a field cannot be split.
    let len = match rest.len() - fields.rest().len() {
        0 => rest.len(),
        len => len,
    };
    let header = &exact[..exact.len() - metrics.len()];
    Some(([header, &rest[..len]].concat(), skip + len))
}

/// The metrics of a family's [exact protobuf](crate::exposition::render::Rendered::exact), without the header.
pub fn metrics_of_exact(exact: &[u8]) -> &[u8] {
    let mut fields = Fields::new(exact);
    loop {
        let rest = fields.rest();
        match fields.next() {
            Ok(Some(field)) if field.number != 4 => {}
            // The metrics, or the end.
            _ => return rest,
        }
    }
}
