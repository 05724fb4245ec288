//! A group as it is stored: what a server needs to show it again without parsing anything.
//!
//! The encoding is little-endian and versioned by its first byte; `docs/storage.md` draws it byte by byte. A version is
//! never changed once it was released: a later one gets its own number, and all earlier ones stay readable.

/// The version that [`Record::encode`] writes.
pub const VERSION: u8 = 1;

const HEAD_BYTES: usize = 6 + 4 * 8;
const FAMILY_HEAD_BYTES: usize = 2 + 8 + 4 * 4;

/// In the head: an expiry time follows.
const HAS_EXPIRY: u8 = 1;
/// In a family: it has a help text, even if empty.
const HAS_HELP: u8 = 1;
/// In a family: it has protobuf, even if empty.
const HAS_EXACT: u8 = 2;

/// One group. Its grouping key stands beside it, see [`crate::Change::Put`].
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// Grows with each change of the group. Engines shared by replicas compare it; others only keep it.
    pub revision: u64,
    /// Unix seconds of the last successful push; 0 when there was none.
    pub push_seconds: f64,
    /// Unix seconds of the last refused push; 0 when there was none.
    pub failure_seconds: f64,
    /// Unix seconds of its first push, successful or not.
    pub created_seconds: f64,
    /// Unix seconds at which the group ends, if it does.
    pub expires_seconds: Option<f64>,
    /// The families it holds, without both push times.
    pub families: Vec<Family<'a>>,
}

/// One family of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The type.
    pub kind: Kind,
    /// The unescaped help text this group pushed.
    pub help: Option<&'a str>,
    /// Unix seconds of the push that brought it.
    pub push_seconds: f64,
    /// The rendered lines, as a scrape sends them.
    pub text: &'a [u8],
    /// Protobuf of what the lines cannot give back.
    pub exact: Option<&'a [u8]>,
}

/// The type of a family. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A cumulative value.
    Counter = 0,
    /// A value that goes up and down.
    Gauge = 1,
    /// Quantiles, sum and count.
    Summary = 2,
    /// No type given.
    Untyped = 3,
    /// Cumulative buckets, sum and count.
    Histogram = 4,
    /// As a histogram, but its counts may fall.
    GaugeHistogram = 5,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Counter, Self::Gauge, Self::Summary, Self::Untyped, Self::Histogram, Self::GaugeHistogram];
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A later version wrote it.
    #[error("record in format {found}, this version reads up to {VERSION}")]
    TooNew {
        /// Its version.
        found: u8,
    },
    /// It ends early, has bytes left over, or says what cannot be.
    #[error("record damaged at byte {at}: {what}")]
    Damaged {
        /// Where in the record.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A text or a number of families is too large for the format.
    #[error("{bytes} bytes in one text of a record, {} are the most", u32::MAX)]
    TooLarge {
        /// How large.
        bytes: usize,
    },
}

impl<'a> Record<'a> {
    /// Appends the record to `out`. On an error, `out` may hold a part of it.
    ///
    /// # Errors
    /// A text of 4 GiB or more.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let texts: usize = self.families.iter().map(Family::bytes).sum();
        out.reserve(HEAD_BYTES + 8 + texts);
        self.encode_head(out, self.families.len())?;
        self.families.iter().try_for_each(|family| {
            family.encode_head(out, family.text.len())?;
            out.extend_from_slice(family.text);
            family.encode_tail(out);
            Ok(())
        })
    }

    /// Appends what stands before the families, for those who write these one by one. `families` says how many will follow;
    /// those of the record do not count.
    ///
    /// # Errors
    /// 2^32 families or more.
    pub fn encode_head(&self, out: &mut Vec<u8>, families: usize) -> Result<(), RecordError> {
        out.push(VERSION);
        out.push(if self.expires_seconds.is_some() { HAS_EXPIRY } else { 0 });
        out.extend(length(families)?);
        out.extend(self.revision.to_le_bytes());
        for seconds in [self.push_seconds, self.failure_seconds, self.created_seconds] {
            out.extend(seconds.to_le_bytes());
        }
        out.extend(self.expires_seconds.map(f64::to_le_bytes).into_iter().flatten());
        Ok(())
    }

    /// Reads what [`Record::encode`] of this or an earlier version wrote. Nothing is copied but the list of families.
    ///
    /// # Errors
    /// The bytes are no record of a known version. Never panics, and never takes more memory than the bytes deserve.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { bytes, at: 0 };
        let version = reader.byte()?;
        match version {
            VERSION => {}
            0 => return Err(RecordError::Damaged { at: 0, what: "no version" }),
            found => return Err(RecordError::TooNew { found }),
        }
        let bits = reader.bits(HAS_EXPIRY)?;
        let families = reader.length()?;
        if families > bytes.len() / FAMILY_HEAD_BYTES {
            return Err(RecordError::Damaged { at: 2, what: "more families than bytes" });
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
            return Err(reader.damaged("bytes left over"));
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

    /// Appends what stands before the lines, for those who have these in pieces. `text_bytes` says how many bytes of lines
    /// will follow; those of the family do not count.
    ///
    /// # Errors
    /// A text of 4 GiB or more.
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

    /// Appends what stands behind the lines.
    pub fn encode_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.exact.unwrap_or_default());
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, RecordError> {
        let bits = reader.bits(HAS_HELP | HAS_EXACT)?;
        let kind = reader.byte()?;
        let Some(kind) = Kind::ALL.into_iter().find(|known| *known as u8 == kind) else {
            return Err(reader.damaged("unknown type of family"));
        };
        let push_seconds = reader.seconds()?;
        let [name, help, text, exact] =
            [reader.length()?, reader.length()?, reader.length()?, reader.length()?];
        let name = reader.text(name)?;
        let help = reader.text(help)?;
        let text = reader.take(text)?;
        let exact = reader.take(exact)?;
        if (bits & HAS_HELP == 0 && !help.is_empty()) || (bits & HAS_EXACT == 0 && !exact.is_empty()) {
            return Err(reader.damaged("a text that should not be there"));
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
            return Err(self.damaged("ends too early"));
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
