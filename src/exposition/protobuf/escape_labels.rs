//! Escapes label names in encoded metrics, for scrapers without UTF-8 support.

use prost::encoding::encode_varint;

use super::encode::{METRIC, write_label};
use super::wire::{Fields, WireError};
use crate::exposition::escape::{Escaping, NameKind, escape};

/// Appends metrics that [`super::metrics_of_lines`] wrote, with their label names escaped.
///
/// # Errors
/// The bytes are not encoded metrics.
pub fn escape_metrics(out: &mut Vec<u8>, metrics: &[u8], escaping: Escaping) -> Result<(), WireError> {
    let mut fields = Fields::new(metrics);
    let mut escaped = Vec::new();
    while let Some(field) = fields.next()? {
        escaped.clear();
        escape_metric(&mut escaped, field.value.bytes()?, escaping)?;
        out.push(METRIC);
        encode_varint(escaped.len() as u64, out);
        out.extend_from_slice(&escaped);
    }
    Ok(())
}

fn escape_metric(out: &mut Vec<u8>, metric: &[u8], escaping: Escaping) -> Result<(), WireError> {
    let mut fields = Fields::new(metric);
    loop {
        let before = fields.rest();
        let Some(field) = fields.next()? else { return Ok(()) };
        if field.number != 1 {
            out.extend_from_slice(&before[..before.len() - fields.rest().len()]);
            continue;
        }
        let (mut name, mut value) = ("", "");
        let mut label = Fields::new(field.value.bytes()?);
        while let Some(field) = label.next()? {
            let text = std::str::from_utf8(field.value.bytes()?).map_err(|_| WireError::NotUtf8)?;
            if field.number == 1 { name = text } else { value = text }
        }
        let name = escape(name, escaping, NameKind::Label);
        write_label(out, (&name, value));
    }
}
