//! A deflate encoder for lines that resemble each other, such as those of an exposition.
//!
//! A line of a family differs from another one in a few digits. So this encoder does not search. It compares a line with the previous
//! one. Where they differ, it continues with the *similar* line, the latest one with the same last label and the same end of the name,
//! from the point on from which both lines are equal up to the value. What is equal becomes matches and the rest literals, in one block
//! with Huffman codes of its own.
//!
//! Every output is valid deflate, whatever the text. A general encoder is better for other texts than lines; [`super::gzip`] chooses.

mod block;
mod huffman;
mod scan;
#[cfg(test)]
mod tests;

use block::Counts;
use scan::{common_len, common_suffix_len, find_delimiter, find_in_line, last_space};

/// Longer texts are not compressed here. Segments are shorter, except for very long lines.
pub const TEXT_BYTES_MAX: usize = 128 << 10;
/// The longest match of the format.
const LENGTH_MAX: usize = 258;
/// The shortest match of the format.
const LENGTH_MIN: usize = 3;
/// The largest distance of the format.
const DISTANCE_MAX: usize = 32 << 10;
/// How many delimiters of a line are looked for in another one after a difference.
const DELIMITERS_MAX: usize = 4;
/// How many bits of a hash select the place of a line.
const PLACE_BITS: u32 = 10;
/// The end of a line up to its value is worth a match from this length on.
const TAIL_MIN: usize = 4;
/// So much of the end is compared, so that many differences in a long line do not compare the same bytes again and again.
const TAIL_MAX: usize = LENGTH_MAX;
/// Fewer literals than this before such an end cost less than a match.
const GAP_MIN: usize = 4;
/// How many equal bytes at the same offset make another line better than a search for delimiters.
const SAME_OFFSET_MIN: usize = 6;

/// Some literals, then a match.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    literals: u32,
    length: u16,
    distance: u16,
}

/// Compresses lines, text by text. It keeps its buffers allocated, at most about 600 KB, so use one per thread rather than one per
/// text.
#[derive(Debug, Default)]
pub struct LineDeflater {
    sequences: Vec<Sequence>,
    counts: Counts,
    /// How many bytes are in matches.
    matched: usize,
    /// The latest line with each hash.
    latest: Vec<Place>,
    out: Vec<u8>,
}

/// Where a line begins, and where the space before its value is; 0 for none, because the first line has no line before it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    start: u32,
    value: u32,
}

/// A line of the text.
struct Line {
    start: usize,
    /// Where the space before the value is; the end if there is none.
    value: usize,
    /// After the line end.
    end: usize,
    /// An earlier line with the same last label, probably.
    similar: Place,
}

impl LineDeflater {
    /// Compresses a text to a deflate block and an empty stored block, so that the output ends at a byte boundary. Returns `None` if
    /// less than half of the text is in matches, or if it is too long; then a general encoder is better.
    pub fn deflate(&mut self, text: &[u8]) -> Option<&[u8]> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        self.match_lines(text);
        (2 * self.matched >= text.len())
            .then(|| block::write(text, &self.sequences, &self.counts, &mut self.out))
    }

    /// Compresses a text of at most [`TEXT_BYTES_MAX`], also one for which this is the wrong encoder.
    pub fn deflate_always(&mut self, text: &[u8]) -> &[u8] {
        self.match_lines(text);
        block::write(text, &self.sequences, &self.counts, &mut self.out)
    }

    /// Splits the text into sequences and counts their symbols. Literals after the last match have no sequence.
    fn match_lines(&mut self, text: &[u8]) {
        self.sequences.clear();
        self.counts = Counts::default();
        self.matched = 0;
        self.latest.clear();
        self.latest.resize(1 << PLACE_BITS, Place::default());

        let first_len = scan::line_end(text, 0);
        // Names are compared where the first line's name ends, because those of a family differ in a suffix; or else where they begin.
        let name_at = memchr::memchr(b'{', &text[..first_len]).map_or(0, |end| end.saturating_sub(4));
        let mut line = self.line_at(text, 0, name_at);
        let mut previous = 0;
        // The next byte, and its counterpart, which is always in an earlier line.
        let (mut at, mut old) = (first_len, 0);
        // What follows the last sequence.
        let mut done = 0;
        while at < text.len() {
            let equal = common_len(text, old, at);
            done = self.add_matches(text, done, at, old, equal);
            (at, old) = (at + equal, old + equal);
            if at >= text.len() {
                break;
            }
            while at >= line.end {
                previous = line.start;
                line = self.line_at(text, line.end, name_at);
            }
            (at, old) = if at < line.value {
                after_difference(text, at, old, previous, &line)
            } else {
                after_different_value(text, at, old, &line)
            };
        }
        self.counts.add_literals(&text[done..], text.len() - done);
    }

    /// Finds the line that begins at `start` and an earlier line like it, and remembers it for later ones.
    #[inline(always)]
    fn line_at(&mut self, text: &[u8], start: usize, name_at: usize) -> Line {
        let end = scan::line_end(text, start);
        let line = &text[start..end];
        let Some(space) = last_space(line) else {
            return Line { start, value: end, end, similar: Place::default() };
        };
        let value = start + space;
        let label = line[..space].last_chunk::<8>();
        let name = line.get(name_at..).and_then(|line| line.first_chunk::<8>());
        let similar = match (label, name) {
            (Some(label), Some(name)) => {
                let word = u64::from_le_bytes(*label) ^ u64::from_le_bytes(*name).rotate_left(29);
                let place = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACE_BITS);
                let this = Place { start: start as u32, value: value as u32 };
                std::mem::replace(&mut self.latest[place as usize], this)
            }
            _ => Place::default(),
        };
        Line { start, value, end, similar }
    }

    /// Adds matches for bytes at `at` that equal those at `old`, with the literals before them. Returns what follows the last sequence.
    #[inline(always)]
    fn add_matches(&mut self, text: &[u8], mut done: usize, at: usize, old: usize, equal: usize) -> usize {
        let distance = at - old;
        if !(1..=DISTANCE_MAX).contains(&distance) {
            return done;
        }
        let (mut at, mut rest) = (at, equal);
        while rest >= LENGTH_MIN {
            let (literals, length) = (at - done, rest.min(LENGTH_MAX));
            self.counts.add_literals(&text[done..], literals);
            self.counts.add_match(length, distance);
            self.sequences.push(Sequence {
                literals: literals as u32,
                length: length as u16,
                distance: distance as u16,
            });
            self.matched += length;
            (at, rest) = (at + length, rest - length);
            done = at;
        }
        done
    }
}

/// Finds where to continue after a difference before the value of a line: the next place at or after `at`, and its counterpart in the line
/// of `old`, the previous line or the similar one.
#[inline(always)]
fn after_difference(text: &[u8], at: usize, old: usize, previous: usize, line: &Line) -> (usize, usize) {
    let similar = line.similar.value as usize;
    let tail_start = at.max(line.value.saturating_sub(TAIL_MAX));
    let tail = common_suffix_len(&text[..similar], &text[tail_start..line.value]);
    let tail = if tail >= TAIL_MIN { tail } else { 0 };
    let tail_at = line.value - tail;
    if tail > 0 && tail_at - at < GAP_MIN {
        return (tail_at, similar - tail);
    }
    let offset = at - line.start;
    let equal_at = |start: usize| {
        let place = start + offset;
        if place < line.start && place != old { (common_len(text, place, at), place) } else { (0, place) }
    };
    let (equal, place) = if similar > 0 {
        equal_at(previous).max(equal_at(line.similar.start as usize))
    } else {
        equal_at(previous)
    };
    if equal >= SAME_OFFSET_MIN {
        return (at, place);
    }
    let mut next = at;
    for _ in 0..DELIMITERS_MAX {
        next += find_delimiter(&text[next..]);
        if next >= tail_at {
            break;
        }
        let delimiter = text[next];
        let found = old + find_in_line(&text[old..next], delimiter);
        if text[found] == delimiter {
            return (next, found);
        }
        next += 1;
    }
    if tail > 0 { (tail_at, similar - tail) } else { (line.value, old) }
}

/// Finds the equal ends of a line and the one before it, whose values differ.
#[inline(always)]
fn after_different_value(text: &[u8], at: usize, old: usize, line: &Line) -> (usize, usize) {
    let last = line.end - 1;
    let Some(old_last) = line.start.checked_sub(1) else { return (line.end, old) };
    if text[last] != b'\n' {
        return (line.end, old);
    }
    let equal = common_suffix_len(&text[..old_last], &text[at..last]);
    (last - equal, old_last - equal)
}
