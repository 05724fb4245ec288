//! The numbers, strings and messages of gob.

use crate::GobError;

/// Reads values one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The end of the current message.
    end: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: bytes.len() }
    }

    pub fn error(&self, what: impl Into<String>) -> GobError {
        GobError { at: self.at, what: what.into() }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }

    pub fn left(&self) -> usize {
        self.end - self.at
    }

    /// The next message, as a reader of its own: a length, then as many bytes.
    pub fn message(&mut self) -> Result<Self, GobError> {
        let length = self.length("a message")?;
        let message = Self { bytes: self.bytes, at: self.at, end: self.at + length };
        self.at += length;
        Ok(message)
    }

    /// A length, then as many bytes.
    pub fn bytes(&mut self, what: &str) -> Result<&'a [u8], GobError> {
        let length = self.length(what)?;
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str, GobError> {
        let at = self.at;
        let bytes = self.bytes(what)?;
        std::str::from_utf8(bytes).map_err(|_| GobError { at, what: format!("{what} is not UTF-8") })
    }

    fn length(&mut self, what: &str) -> Result<usize, GobError> {
        let length = self.uint()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.left() => Ok(length),
            _ => Err(self.error(format!("{what} of {length} bytes, but only {} remain", self.left()))),
        }
    }

    /// A byte below 128 is the number. Any other byte, negated, is the length of the big-endian number that follows.
    pub fn uint(&mut self) -> Result<u64, GobError> {
        let first = self.byte()?;
        if first < 128 {
            return Ok(u64::from(first));
        }
        let count = usize::from(first.wrapping_neg());
        if count > 8 {
            return Err(self.error(format!("a number of {count} bytes")));
        }
        (0..count).try_fold(0, |number, _| Ok(number << 8 | u64::from(self.byte()?)))
    }

    /// If the lowest bit is set, the other bits are inverted.
    pub fn int(&mut self) -> Result<i64, GobError> {
        let bits = self.uint()?;
        let half = (bits >> 1) as i64;
        Ok(if bits & 1 == 0 { half } else { !half })
    }

    fn byte(&mut self) -> Result<u8, GobError> {
        if self.is_empty() {
            return Err(self.error("ends too early"));
        }
        let byte = self.bytes[self.at];
        self.at += 1;
        Ok(byte)
    }

    /// The number of the next field of a struct, if there is one. It is encoded as the distance to the field before.
    pub fn field(&mut self, last: &mut Option<u64>) -> Result<Option<u64>, GobError> {
        let step = self.uint()?;
        if step == 0 {
            return Ok(None);
        }
        let next = match *last {
            None => Some(step - 1),
            Some(last) => last.checked_add(step),
        };
        *last = next;
        next.map(Some).ok_or_else(|| self.error("field number overflow"))
    }
}
