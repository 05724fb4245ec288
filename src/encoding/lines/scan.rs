//! Searching text in words of eight bytes. Differences in expositions are short, so a call of a vectorised search would take longer.

use memchr::memchr;

/// The end of the line that begins at `start`, after its `\n`.
#[inline(always)]
pub(super) fn line_end(text: &[u8], start: usize) -> usize {
    memchr(b'\n', &text[start..]).map_or(text.len(), |end| start + end + 1)
}

/// How many bytes at `old` and `at` are equal; `old` is not after `at`.
#[inline(always)]
pub(super) fn common_len(text: &[u8], old: usize, at: usize) -> usize {
    let (new, old) = (&text[at..], &text[old..]);
    let mut len = 0;
    for (a, b) in new.as_chunks().0.iter().zip(old.as_chunks().0) {
        let difference = word(a) ^ word(b);
        if difference != 0 {
            return len + first_byte(difference);
        }
        len += 8;
    }
    len + new[len..].iter().zip(&old[len..]).take_while(|(a, b)| a == b).count()
}

/// How many of the last bytes are equal.
#[inline(always)]
pub(super) fn common_suffix_len(mut a: &[u8], mut b: &[u8]) -> usize {
    let mut len = 0;
    while let (Some((a_rest, a_last)), Some((b_rest, b_last))) = (a.split_last_chunk(), b.split_last_chunk())
    {
        let difference = word(a_last) ^ word(b_last);
        if difference != 0 {
            return len + (difference.leading_zeros() / 8) as usize;
        }
        (a, b) = (a_rest, b_rest);
        len += 8;
    }
    len + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// The first byte that is below `0` or from `{` on, or the length of the text. That includes everything that ends a name, a label or a
/// number; that some characters beside letters and digits are not included does not matter.
#[inline(always)]
pub(super) fn find_delimiter(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks();
    for (number, bytes) in words.iter().enumerate() {
        let word = word(bytes);
        let low = word.wrapping_sub(splat(b'0')) & !word;
        let high = word.wrapping_add(splat(0x80 - b'{')) | word;
        // Because of carries, only the first of these bits is exact.
        let found = (low | high) & splat(0x80);
        if found != 0 {
            return 8 * number + first_byte(found);
        }
    }
    8 * words.len() + rest.iter().position(|byte| !(b'0'..b'{').contains(byte)).unwrap_or(rest.len())
}

/// The first such byte or line end, or the length of the text.
#[inline(always)]
pub(super) fn find_in_line(text: &[u8], wanted: u8) -> usize {
    // Because of carries, only the first of these bits is exact.
    let zeros = |word: u64| word.wrapping_sub(splat(1)) & !word & splat(0x80);
    let (words, rest) = text.as_chunks();
    for (number, bytes) in words.iter().enumerate() {
        let word = word(bytes);
        let found = zeros(word ^ splat(wanted)) | zeros(word ^ splat(b'\n'));
        if found != 0 {
            return 8 * number + first_byte(found);
        }
    }
    let rest_at = rest.iter().position(|&byte| byte == wanted || byte == b'\n').unwrap_or(rest.len());
    8 * words.len() + rest_at
}

/// The last space in the last 32 bytes of a line, unless it is in the first bytes of a shorter line.
#[inline(always)]
pub(super) fn last_space(line: &[u8]) -> Option<usize> {
    let mut end = line.len();
    for _ in 0..4 {
        let word = word(line[..end].last_chunk()?) ^ splat(b' ');
        let seven_bits = !splat(0x80);
        let found = !((word & seven_bits).wrapping_add(seven_bits) | word) & splat(0x80);
        if found != 0 {
            return Some(end - 1 - (found.leading_zeros() / 8) as usize);
        }
        end -= 8;
    }
    None
}

fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The number of the first byte that is not zero.
fn first_byte(word: u64) -> usize {
    (word.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), prop::sample::select(&b" \n\"{z09/|\xff"[..])];
        prop::collection::vec(byte, 0..50)
    }

    proptest! {
        #[test]
        fn finds_what_a_search_by_bytes_finds(text in texts(), wanted in any::<u8>(), other in texts()) {
            let first = |is: &dyn Fn(u8) -> bool| text.iter().position(|&byte| is(byte)).unwrap_or(text.len());
            prop_assert_eq!(find_delimiter(&text), first(&|byte| !(b'0'..b'{').contains(&byte)));
            prop_assert_eq!(find_in_line(&text, wanted), first(&|byte| byte == wanted || byte == b'\n'));
            prop_assert_eq!(line_end(&text, 0), text.len().min(first(&|byte| byte == b'\n') + 1));

            let words = text.len().min(32) / 8 * 8;
            let last = text.iter().rposition(|&byte| byte == b' ');
            prop_assert_eq!(last_space(&text), last.filter(|&at| at >= text.len() - words));

            for other in [other.clone(), [&other[..], &text[..]].concat()] {
                let suffix = text.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
                prop_assert_eq!(common_suffix_len(&text, &other), suffix);
            }

            let both = [&text[..], &text[..], &other[..]].concat();
            let equal = both[text.len()..].iter().zip(&both).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_len(&both, 0, text.len()), equal);
        }
    }
}
