//! Lines as the gateway shows them → metrics in protobuf.
//!
//! A delimited family is a length, a head and its metrics, each a field of its own. So metrics may be made piece by piece,
//! wherever their lines stand, and be put behind one head: [`metrics_of_lines`] for lines that say it all,
//! [`metrics_of_exact`] for a family that has an exact form beside them, [`super::write_family_head`] for what comes first.

use super::encode::write_metric;
use super::wire::Fields;
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::render::write_header;
use crate::exposition::text::{ParseError, parse};

/// Appends the metrics which these lines show: lines of one family, of one group or of several, as
/// [`crate::exposition::render::render`] wrote them.
///
/// # Errors
/// Lines which rendering does not write. `out` is left as it was.
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

/// The metrics of a family's exact form, see [`crate::exposition::render::Rendered::exact`]: its head is left out.
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
