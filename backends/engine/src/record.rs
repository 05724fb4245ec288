//! The record of a group: everything that a gateway needs to expose the group again without parsing.
//!
//! The encoding is little-endian, and its first byte is the version; `docs/storage.md` describes it byte by byte. A released
//! version never changes: a later one gets its own number, and all earlier ones stay readable. Version 1 is a record, or a patch with
//! some of its families; version 2 is a patch with the numbers of all lines.

mod numbers;
mod patch;

pub use numbers::{Numbers, is_numbers};
pub use patch::apply_patches;

/// The version that [`Record::encode`] writes.
pub const VERSION: u8 = 1;
/// The latest version of records and patches.
const LATEST_VERSION: u8 = 2;

const HEAD_BYTES: usize = 6 + 4 * 8;
const FAMILY_HEAD_BYTES: usize = 2 + 8 + 4 * 4;

/// Bit of the header: an expiry time follows.
const HAS_EXPIRY: u8 = 1;
/// Bit of a family: it has a help text, which may be empty.
const HAS_HELP: u8 = 1;
/// Bit of a family: it has protobuf, which may be empty.
const HAS_EXACT: u8 = 2;

/// A group. The engine stores its grouping key next to it, see [`crate::Change::Put`].
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// Reserved by the format. This version writes 0 and ignores it.
    pub revision: u64,
    /// Time of the last successful push in Unix seconds; 0 if there was none.
    pub push_seconds: f64,
    /// Time of the last rejected push in Unix seconds; 0 if there was none.
    pub failure_seconds: f64,
    /// Time of the first push, successful or not, in Unix seconds.
    pub created_seconds: f64,
    /// Reserved by the format for an expiry time in Unix seconds. This version writes `None` and ignores it.
    pub expires_seconds: Option<f64>,
    /// The families of the group, except the two push times.
    pub families: Vec<Family<'a>>,
}

/// One family of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The type.
    pub kind: Kind,
    /// The unescaped help text that was pushed.
    pub help: Option<&'a str>,
    /// Time of the push that set it, in Unix seconds.
    pub push_seconds: f64,
    /// The rendered lines, exactly as a scrape sends them.
    pub text: &'a [u8],
    /// Protobuf of the family, if the lines cannot represent it exactly.
    pub exact: Option<&'a [u8]>,
}

/// The type of a family. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A cumulative value.
    Counter = 0,
    /// A value that can go up and down.
    Gauge = 1,
    /// Quantiles, a sum and a count.
    Summary = 2,
    /// No type was given.
    Untyped = 3,
    /// Cumulative buckets, a sum and a count.
    Histogram = 4,
    /// A histogram whose counts may decrease.
    GaugeHistogram = 5,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Counter, Self::Gauge, Self::Summary, Self::Untyped, Self::Histogram, Self::GaugeHistogram];
}

/// Why bytes are not a valid record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A later version wrote it.
    #[error("record format {found} is newer than the latest supported format {LATEST_VERSION}")]
    TooNew {
        /// The version of the record.
        found: u8,
    },
    /// It is truncated, too long, or contains an invalid value.
    #[error("invalid record at byte {at}: {what}")]
    Damaged {
        /// The offset in the record.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A text or the number of families is too large for the format.
    #[error("a text of {bytes} bytes is larger than the maximum of a record, {}", u32::MAX)]
    TooLarge {
        /// The size of the text, or the number of families.
        bytes: usize,
    },
}

impl<'a> Record<'a> {
    /// Appends the encoded record to `out`. After an error, `out` may contain a part of it.
    ///
    /// # Errors
    /// A text has 4 GiB or more.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let texts: usize = self.families.iter().map(Family::bytes).sum();
        out.reserve(HEAD_BYTES + 8 + texts);
        self.encode_head(out, self.families.len())?;
        self.families.iter().try_for_each(|family| family.encode(out))
    }

    /// Appends the part before the families, for callers that append families one by one. `families` is the number that will
    /// follow; the families in `self` are ignored.
    ///
    /// # Errors
    /// There are 2^32 families or more.
    pub fn encode_head(&self, out: &mut Vec<u8>, families: usize) -> Result<(), RecordError> {
        encode_head(out, VERSION, self, families)?;
        out.extend(self.expires_seconds.map(f64::to_le_bytes).into_iter().flatten());
        Ok(())
    }

    /// Decodes a record of this or an earlier version. Borrows all texts from `bytes`.
    ///
    /// Never panics. Memory is proportional to the length of `bytes`.
    ///
    /// # Errors
    /// The bytes are not a record of a known version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { bytes, at: 0 };
        let version = reader.byte()?;
        match version {
            VERSION => {}
            found if found > LATEST_VERSION => return Err(RecordError::TooNew { found }),
            _ => return Err(RecordError::Damaged { at: 0, what: "not a record" }),
        }
        let bits = reader.bits(HAS_EXPIRY)?;
        let families = reader.length()?;
        if families > bytes.len() / FAMILY_HEAD_BYTES {
            return Err(RecordError::Damaged { at: 2, what: "more families than the bytes can contain" });
        }
        let mut record = Self {
            revision: u64::from_le_bytes(reader.array()?),
            push_seconds: reader.seconds()?,
            failure_seconds: reader.seconds()?,
            created_seconds: reader.seconds()?,
            expires_seconds: if bits & HAS_EXPIRY != 0 { Some(reader.seconds()?) } else { None },
            families: Vec::with_capacity(families),
        };
        for _ in 0..families {
            record.families.push(Family::decode(&mut reader)?);
        }
        if reader.at != bytes.len() {
            return Err(reader.damaged("unexpected bytes at the end"));
        }
        Ok(record)
    }
}

impl<'a> Family<'a> {
    fn bytes(&self) -> usize {
        FAMILY_HEAD_BYTES
            + self.name.len()
            + self.help.map_or(0, str::len)
            + self.text.len()
            + self.exact.map_or(0, <[u8]>::len)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.encode_head(out, self.text.len())?;
        out.extend_from_slice(self.text);
        self.encode_tail(out);
        Ok(())
    }

    /// Appends the part before the lines, for callers that append the lines in pieces. `text_bytes` is the length of the lines
    /// that will follow; the lines in `self` are ignored.
    ///
    /// # Errors
    /// A text has 4 GiB or more.
    pub fn encode_head(&self, out: &mut Vec<u8>, text_bytes: usize) -> Result<(), RecordError> {
        let (help, exact) = (self.help.unwrap_or_default(), self.exact.unwrap_or_default());
        let bits =
            if self.help.is_some() { HAS_HELP } else { 0 } | if self.exact.is_some() { HAS_EXACT } else { 0 };
        out.extend([bits, self.kind as u8]);
        out.extend(self.push_seconds.to_le_bytes());
        for bytes in [self.name.len(), help.len(), text_bytes, exact.len()] {
            out.extend(length(bytes)?);
        }
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(help.as_bytes());
        Ok(())
    }

    /// Appends the part after the lines.
    pub fn encode_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.exact.unwrap_or_default());
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, RecordError> {
        let bits = reader.bits(HAS_HELP | HAS_EXACT)?;
        let kind = reader.byte()?;
        let Some(kind) = Kind::ALL.into_iter().find(|known| *known as u8 == kind) else {
            return Err(reader.damaged("unknown metric type"));
        };
        let push_seconds = reader.seconds()?;
        let [name, help, text, exact] =
            [reader.length()?, reader.length()?, reader.length()?, reader.length()?];
        let name = reader.text(name)?;
        let help = reader.text(help)?;
        let text = reader.take(text)?;
        let exact = reader.take(exact)?;
        if (bits & HAS_HELP == 0 && !help.is_empty()) || (bits & HAS_EXACT == 0 && !exact.is_empty()) {
            return Err(reader.damaged("a text whose bit is not set"));
        }
        Ok(Self {
            name,
            kind,
            help: (bits & HAS_HELP != 0).then_some(help),
            push_seconds,
            text,
            exact: (bits & HAS_EXACT != 0).then_some(exact),
        })
    }
}

/// Appends what records and patches begin with: the version, bits, a count, and the times of a group.
fn encode_head(out: &mut Vec<u8>, version: u8, group: &Record<'_>, count: usize) -> Result<(), RecordError> {
    let has_expiry = version == VERSION && group.expires_seconds.is_some();
    out.extend([version, if has_expiry { HAS_EXPIRY } else { 0 }]);
    out.extend(length(count)?);
    out.extend(group.revision.to_le_bytes());
    for seconds in [group.push_seconds, group.failure_seconds, group.created_seconds] {
        out.extend(seconds.to_le_bytes());
    }
    Ok(())
}

fn length(bytes: usize) -> Result<[u8; 4], RecordError> {
    u32::try_from(bytes).map(u32::to_le_bytes).map_err(|_| RecordError::TooLarge { bytes })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self, what: &'static str) -> RecordError {
        RecordError::Damaged { at: self.at, what }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let Some(taken) = self.bytes[self.at..].get(..length) else {
            return Err(self.damaged("unexpected end"));
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        Ok(self.take(1)?[0])
    }

    fn bits(&mut self, known: u8) -> Result<u8, RecordError> {
        let bits = self.byte()?;
        if bits & !known != 0 {
            return Err(RecordError::Damaged { at: self.at - 1, what: "unknown bits" });
        }
        Ok(bits)
    }

    fn length(&mut self) -> Result<usize, RecordError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn seconds(&mut self) -> Result<f64, RecordError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, RecordError> {
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::Damaged { at, what: "not UTF-8" })
    }
}

#[cfg(test)]
mod tests;
