//! Patches of numbers: what a push changes that is like the one before it in everything but its numbers.

use memchr::{memchr_iter, memrchr};

use super::{Family, LATEST_VERSION, Reader, Record, RecordError, encode_head};
use crate::number::write_float;

/// The version of a patch of numbers.
const VERSION: u8 = 2;
const NUMBER_BYTES: usize = 8;

/// A patch that gives each line of a group another number. All families then have the time of the last successful push.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers<'a> {
    /// As in [`Record::revision`].
    pub revision: u64,
    /// As in [`Record::push_seconds`].
    pub push_seconds: f64,
    /// As in [`Record::failure_seconds`].
    pub failure_seconds: f64,
    /// As in [`Record::created_seconds`].
    pub created_seconds: f64,
    /// The numbers of all lines, in the order of the families in the record.
    numbers: &'a [[u8; NUMBER_BYTES]],
}

/// Whether a patch is one of numbers. It replaces such a patch directly before it: an engine need not keep that one.
pub fn is_numbers(patch: &[u8]) -> bool {
    patch.first() == Some(&VERSION)
}

impl<'a> Numbers<'a> {
    /// Appends an encoded patch to `out`: the times of `group`, whose families are ignored, and the number of each line.
    ///
    /// # Errors
    /// There are 2^32 lines or more.
    pub fn encode(
        out: &mut Vec<u8>,
        group: &Record<'_>,
        numbers: impl ExactSizeIterator<Item = f64>,
    ) -> Result<(), RecordError> {
        encode_head(out, VERSION, group, numbers.len())?;
        numbers.for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        Ok(())
    }

    /// Decodes a patch.
    ///
    /// # Errors
    /// The bytes are not a patch of numbers.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { bytes, at: 0 };
        match reader.byte()? {
            VERSION => {}
            found if found > LATEST_VERSION => return Err(RecordError::TooNew { found }),
            _ => return Err(RecordError::Damaged { at: 0, what: "not a patch of numbers" }),
        }
        reader.bits(0)?;
        let count = reader.length()?;
        let (revision, push_seconds) = (u64::from_le_bytes(reader.array()?), reader.seconds()?);
        let (failure_seconds, created_seconds) = (reader.seconds()?, reader.seconds()?);
        let (numbers, rest) = bytes[reader.at..].as_chunks();
        if numbers.len() != count || !rest.is_empty() {
            return Err(reader.damaged("another length than that of the numbers"));
        }
        Ok(Self { revision, push_seconds, failure_seconds, created_seconds, numbers })
    }

    /// Appends the record that results from the patch to `out`.
    ///
    /// # Errors
    /// The record has another number of lines, or a line without a number, or a family that lines cannot represent.
    pub(super) fn apply(&self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let mut numbers = self.numbers.iter().map(|number| f64::from_le_bytes(*number));
        let patched = Record {
            revision: self.revision,
            push_seconds: self.push_seconds,
            failure_seconds: self.failure_seconds,
            created_seconds: self.created_seconds,
            expires_seconds: record.expires_seconds,
            families: Vec::new(),
        };
        patched.encode_head(out, record.families.len())?;
        let mut text = Vec::new();
        for family in &record.families {
            text.clear();
            write_lines(family, &mut numbers, &mut text).ok_or(OTHER_LINES)?;
            let family = Family { push_seconds: self.push_seconds, text: &text, ..family.clone() };
            family.encode(out)?;
        }
        if numbers.next().is_some() {
            return Err(OTHER_LINES);
        }
        Ok(())
    }
}

const OTHER_LINES: RecordError =
    RecordError::Damaged { at: 0, what: "a patch with the numbers of other lines" };

/// Writes the lines of a family with other numbers. `None` if it has no such lines.
fn write_lines(
    family: &Family<'_>,
    numbers: &mut impl Iterator<Item = f64>,
    out: &mut Vec<u8>,
) -> Option<()> {
    if family.exact.is_some() || family.text.last().is_some_and(|last| *last != b'\n') {
        return None;
    }
    let mut start = 0;
    for end in memchr_iter(b'\n', family.text) {
        let number_at = start + memrchr(b' ', &family.text[start..end])? + 1;
        out.extend_from_slice(&family.text[start..number_at]);
        write_float(out, numbers.next()?);
        out.push(b'\n');
        start = end + 1;
    }
    Some(())
}
