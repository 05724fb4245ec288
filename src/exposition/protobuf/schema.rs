//! Which fields the messages of a metric have, to check and copy messages that are not decoded otherwise.
//!
//! A field with another wire type than the schema's is unknown, as in Go. Generated Rust code rejects it.

use prost::encoding::encode_varint;

use super::wire::{FieldValue, Fields, WireError};

/// The fields of a message with their numbers.
pub(super) struct Schema(&'static [(u32, FieldType)]);

enum FieldType {
    Varint,
    Double,
    Bytes,
    Message(&'static Schema),
    /// Repeated, packed or not.
    Varints,
    /// Repeated, packed or not.
    Doubles,
}

use FieldType::{Bytes, Double, Doubles, Message, Varint, Varints};

const LABEL: Schema = Schema(&[(1, Bytes), (2, Bytes)]);
const TIMESTAMP: Schema = Schema(&[(1, Varint), (2, Varint)]);
const EXEMPLAR: Schema = Schema(&[(1, Message(&LABEL)), (2, Double), (3, Message(&TIMESTAMP))]);
const SINGLE: Schema = Schema(&[(1, Double)]);
const COUNTER: Schema = Schema(&[(1, Double), (2, Message(&EXEMPLAR)), (3, Message(&TIMESTAMP))]);
const QUANTILE: Schema = Schema(&[(1, Double), (2, Double)]);
const SUMMARY: Schema =
    Schema(&[(1, Varint), (2, Double), (3, Message(&QUANTILE)), (4, Message(&TIMESTAMP))]);
const BUCKET: Schema = Schema(&[(1, Varint), (2, Double), (3, Message(&EXEMPLAR)), (4, Double)]);
const BUCKET_SPAN: Schema = Schema(&[(1, Varint), (2, Varint)]);
const HISTOGRAM: Schema = Schema(&[
    (1, Varint),
    (2, Double),
    (3, Message(&BUCKET)),
    (4, Double),
    (5, Varint),
    (6, Double),
    (7, Varint),
    (8, Double),
    (9, Message(&BUCKET_SPAN)),
    (10, Varints),
    (11, Doubles),
    (12, Message(&BUCKET_SPAN)),
    (13, Varints),
    (14, Doubles),
    (15, Message(&TIMESTAMP)),
    (16, Message(&EXEMPLAR)),
]);
const METRIC: Schema = Schema(&[
    (1, Message(&LABEL)),
    (2, Message(&SINGLE)),
    (3, Message(&COUNTER)),
    (4, Message(&SUMMARY)),
    (5, Message(&SINGLE)),
    (6, Varint),
    (7, Message(&HISTOGRAM)),
]);

/// Checks the message of a field of a metric, with all messages in it.
pub(super) fn check_field(number: u32, message: &[u8]) -> Result<(), WireError> {
    match METRIC.field(number) {
        Some(Message(schema)) => schema.walk(message, None),
        _ => Ok(()),
    }
}

/// Checks a metric with all messages in it.
pub(super) fn check_metric(metric: &[u8]) -> Result<(), WireError> {
    METRIC.walk(metric, None)
}

/// Copies the known fields of a metric.
pub(super) fn known_fields(metric: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(metric.len());
    METRIC.walk(metric, Some(&mut out))?;
    Ok(out)
}

impl Schema {
    fn field(&self, number: u32) -> Option<&FieldType> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, kind)| kind)
    }

    /// Checks a message, and appends its known fields to `out`. The depth of the schema limits the recursion.
    fn walk(&self, message: &[u8], mut out: Option<&mut Vec<u8>>) -> Result<(), WireError> {
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            let Some(kind) = self.field(field.number) else { continue };
            let key = u64::from(field.number) << 3;
            match (kind, field.value) {
                (Message(schema), FieldValue::Bytes(bytes)) => match out.as_deref_mut() {
                    None => schema.walk(bytes, None)?,
                    Some(out) => {
                        let mut inner = Vec::with_capacity(bytes.len());
                        schema.walk(bytes, Some(&mut inner))?;
                        write_bytes(out, key, &inner);
                    }
                },
                (Bytes, FieldValue::Bytes(bytes)) => {
                    if let Some(out) = out.as_deref_mut() {
                        write_bytes(out, key, bytes);
                    }
                }
                (Varints | Doubles, FieldValue::Bytes(bytes)) => {
                    let mut items = Fields::new(bytes);
                    while !items.is_empty() {
                        if matches!(kind, Varints) {
                            items.varint()?;
                        } else {
                            items.array::<8>()?;
                        }
                    }
                    if let Some(out) = out.as_deref_mut() {
                        write_bytes(out, key, bytes);
                    }
                }
                (Varint | Varints, FieldValue::Varint(number)) => {
                    if let Some(out) = out.as_deref_mut() {
                        encode_varint(key, out);
                        encode_varint(number, out);
                    }
                }
                (Double | Doubles, FieldValue::Fixed64(bits)) => {
                    if let Some(out) = out.as_deref_mut() {
                        encode_varint(key | 1, out);
                        out.extend_from_slice(&bits.to_le_bytes());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn write_bytes(out: &mut Vec<u8>, key: u64, bytes: &[u8]) {
    encode_varint(key | 2, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
