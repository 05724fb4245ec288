//! A body without its numbers.

use super::super::hash::hash_64;
use crate::exposition::number::{EXACT_MAX, scan_decimal};

/// The pieces of a body before, between and after its numbers.
#[derive(Debug)]
pub(super) struct Skeleton {
    /// All pieces, one after the other.
    text: Box<[u8]>,
    /// The end of each piece but the last.
    ends: Box<[u32]>,
    /// What may be between a piece and the next one.
    gaps: Box<[Gap]>,
}

/// Which numbers may be in a gap. All others may change more than the number: a histogram has no negative counts, the count of a summary
/// is truncated, and a negative zero is kept as protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// Any but a negative zero.
    Any,
    /// None with a sign.
    NotNegative,
    /// Only a whole number that a float represents exactly.
    Whole,
}

impl Gap {
    #[inline]
    fn allows(self, number: f64) -> bool {
        match self {
            Self::Any => number != 0.0 || number.is_sign_positive(),
            Self::NotNegative => number.is_sign_positive(),
            Self::Whole => {
                number.is_sign_positive() && number.trunc() == number && number <= EXACT_MAX as f64
            }
        }
    }
}

impl Skeleton {
    /// Cuts a body at what follows the last space of each line that is not a comment. `None` if there is no such line. Whether numbers are
    /// there is not known yet.
    pub fn cut(body: &[u8]) -> Option<Self> {
        let (mut text, mut ends) = (Vec::with_capacity(body.len()), Vec::new());
        if !body.ends_with(b"\n") {
            return None;
        }
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            if is_kept_whole(line) {
                text.extend_from_slice(line);
                continue;
            }
            let at = memchr::memrchr(b' ', line)? + 1;
            text.extend_from_slice(&line[..at]);
            ends.push(u32::try_from(text.len()).ok()?);
            text.push(b'\n');
        }
        let gaps = vec![Gap::NotNegative; ends.len()].into();
        (!ends.is_empty()).then(|| Self { text: text.into(), ends: ends.into(), gaps })
    }

    /// The number of gaps.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A hash of all pieces.
    pub fn hash(&self) -> u64 {
        hash_64(&self.text)
    }

    pub fn has_same_pieces(&self, other: &Self) -> bool {
        self.text == other.text && self.ends == other.ends
    }

    /// The memory that it takes beside its own size.
    pub fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends) + size_of_val(&*self.gaps)
    }

    pub fn set_gap(&mut self, index: usize, gap: Gap) {
        self.gaps[index] = gap;
    }

    /// A body with these pieces and, in each gap, the text for its index.
    pub fn filled(&self, text_of: impl Fn(usize) -> String) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.text.len() + 8 * self.ends.len());
        let mut start = 0;
        for (index, end) in self.ends.iter().enumerate() {
            body.extend_from_slice(&self.text[start..*end as usize]);
            body.extend_from_slice(text_of(index).as_bytes());
            start = *end as usize;
        }
        body.extend_from_slice(&self.text[start..]);
        body
    }

    /// Reads the numbers of a body with these pieces. Returns `false` if the body has others, or a number that its gap does not allow.
    pub fn read_numbers(&self, body: &[u8], numbers: &mut Vec<f64>) -> bool {
        numbers.clear();
        let (mut start, mut rest) = (0, body);
        for (end, gap) in self.ends.iter().zip(&self.gaps) {
            let Some(after) = rest.strip_prefix(&self.text[start..*end as usize]) else { return false };
            // The parser reads numbers with the same function. The next piece begins with the line feed that ends it.
            let Some((number, length)) = scan_decimal(after).filter(|(number, _)| gap.allows(*number)) else {
                return false;
            };
            numbers.push(number);
            (start, rest) = (*end as usize, &after[length..]);
        }
        *rest == self.text[start..]
    }
}

fn is_kept_whole(line: &[u8]) -> bool {
    matches!(line[0], b'#' | b'\n')
}

/// A hash of what is quickly read of a body: the first and the last line without their numbers, and the number of lines. Bodies with the
/// same pieces have the same. `None` for a body that no shape can have.
pub(super) fn fingerprint(body: &[u8]) -> Option<u64> {
    let without_number = |line: &[u8]| {
        let end = if is_kept_whole(line) { line.len() } else { memchr::memrchr(b' ', line)? };
        Some(hash_64(&line[..end]))
    };
    let before = body.strip_suffix(b"\n")?;
    let first_end = memchr::memchr(b'\n', body)? + 1;
    let last_start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let lines = memchr::memchr_iter(b'\n', body).count() as u64;
    let (first, last) = (without_number(&body[..first_end])?, without_number(&body[last_start..])?);
    Some(first.rotate_left(7) ^ last ^ lines.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
