//! Sizes in bytes: `65536`, `64KiB`, `64MiB`, `1GiB`.

use std::fmt;
use std::str::FromStr;

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The limit that the size sets; `None` if it is 0.
    pub fn limit(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

/// The text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 65536, 64KiB, 64MiB or 1GiB")]
pub struct SizeError;

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
            .unwrap_or((text, 1));
        // The parser of the standard library accepts a plus sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SizeError);
        }
        let number: u64 = digits.parse().map_err(|_| SizeError)?;
        number.checked_mul(unit).map(Self).ok_or(SizeError)
    }
}

/// In the largest unit that gives a whole number, so that the output parses to the same value.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_and_prints_sizes_with_and_without_a_unit() {
        for (text, expected) in
            [("0", 0), ("65536", 65536), ("64KiB", 65536), ("64MiB", 64 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(expected)), "{text}");
        }
        for text in ["", "KiB", "-1", "+1", "1.5MiB", "1 MiB", "64mb", "64M", "99999999999GiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(SizeError), "{text}");
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(1025).to_string(), "1025");
    }

    proptest! {
        #[test]
        fn printed_sizes_parse_to_the_same_value(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
