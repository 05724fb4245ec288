//! The wire format of protobuf, parsed without copying.
//!
//! Every length is compared with the available bytes before it is used. Groups, which the exposition formats never used, are
//! skipped without recursion. They are the only part of the wire format that nests without limit, so their depth has one.

/// Why bytes are not a valid message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("unexpected end")]
    Truncated,
    /// The schema expects another wire type. Only the gateway's own messages must have all fields of the schema.
    #[error("a field has the wrong wire type")]
    WrongWireType,
    /// The wire type does not exist.
    #[error("a field has an unknown wire type")]
    UnknownWireType,
    /// The end of a group that did not begin.
    #[error("a group ends that did not begin")]
    GroupEnd,
    /// Groups within groups, too many.
    #[error("groups are nested too deeply")]
    GroupDepth,
    /// Zero, or above the maximum of 2^29 - 1.
    #[error("a field's number is out of range")]
    FieldNumber,
    /// A varint of more than ten bytes.
    #[error("a number is too long")]
    VarintTooLong,
    /// A string that is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
}

/// A field with its number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) value: FieldValue<'a>,
}

/// A field's value, as far as it is known without a schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FieldValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
    Group,
}

/// How deep groups may be nested; that of Go's parser.
const GROUP_DEPTH_MAX: usize = 10_000;

impl<'a> FieldValue<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::WrongWireType),
        }
    }
}

/// The remaining fields of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// Parses the next field. `None` at the end of the message.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => FieldValue::Varint(self.varint()?),
            1 => FieldValue::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => FieldValue::Bytes(self.delimited()?),
            5 => {
                self.array::<4>()?;
                FieldValue::Fixed32
            }
            3 => {
                self.skip_group(number)?;
                FieldValue::Group
            }
            4 => return Err(WireError::GroupEnd),
            _ => return Err(WireError::UnknownWireType),
        };
        Ok(Some(Field { number, value }))
    }

    /// The number and the wire type of a field.
    #[inline]
    fn key(&mut self) -> Result<(u32, u8), WireError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| WireError::FieldNumber)?;
        if number == 0 || number >= 1 << 29 {
            return Err(WireError::FieldNumber);
        }
        Ok((number, (key & 7) as u8))
    }

    /// Skips a group after its first key.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), WireError> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, wire_type) = self.key()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.array::<8>()?),
                2 => drop(self.delimited()?),
                3 if open.len() >= GROUP_DEPTH_MAX => return Err(WireError::GroupDepth),
                3 => open.push(number),
                4 if number == innermost => drop(open.pop()),
                4 => return Err(WireError::GroupEnd),
                5 => drop(self.array::<4>()?),
                _ => return Err(WireError::UnknownWireType),
            }
        }
        Ok(())
    }

    /// Parses a length and that many bytes.
    #[inline]
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that are not parsed yet.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        // Nearly all keys and lengths are one byte long.
        if let [byte @ 0..=0x7f, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            // The tenth byte has only the highest bit of 64.
            if index == 9 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Ok(number);
            }
        }
        Err(if self.0.len() < 10 { WireError::Truncated } else { WireError::VarintTooLong })
    }
}
