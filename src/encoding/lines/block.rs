//! Writing sequences as a block with dynamic Huffman codes (RFC 1951, 3.2.7).

use super::Sequence;
use super::huffman::{Code, assign};

/// Symbols of literals and lengths: 256 bytes, the end of the block, and the lengths.
const LITERALS: usize = 286;
/// Symbols of distances.
const DISTANCES: usize = 30;
/// Symbols in which the lengths of codes are written.
const LEN_SYMBOLS: usize = 19;
const END_OF_BLOCK: usize = 256;
/// Longer codes are allowed, but with these four literals fit into one write.
const CODE_LEN_MAX: usize = 12;
/// More than the codes and the ends of blocks take, and a write of the last bits.
const CODES_BYTES_MAX: usize = 1024;
/// The order in which the code lengths of `LEN_SYMBOLS` are written.
const LEN_ORDER: [usize; LEN_SYMBOLS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// How often each symbol occurs in a block.
#[derive(Debug)]
pub(super) struct Counts {
    literals: [u32; LITERALS],
    distances: [u32; DISTANCES],
}

impl Default for Counts {
    fn default() -> Self {
        Self { literals: [0; LITERALS], distances: [0; DISTANCES] }
    }
}

impl Counts {
    /// Counts the first `len` bytes, in groups of four, because a loop over few literals is predicted badly.
    #[inline(always)]
    pub(super) fn add_literals(&mut self, text: &[u8], len: usize) {
        let mut at = 0;
        while at < len {
            let rest = len - at;
            if let Some(four) = text[at..].first_chunk::<4>() {
                for (k, &literal) in four.iter().enumerate() {
                    self.literals[usize::from(literal)] += u32::from(k < rest);
                }
            } else {
                text[at..len].iter().for_each(|&literal| self.literals[usize::from(literal)] += 1);
            }
            at += 4;
        }
    }

    #[inline(always)]
    pub(super) fn add_match(&mut self, length: usize, distance: usize) {
        self.literals[usize::from(LENGTH_SYMBOLS[length].0)] += 1;
        self.distances[distance_symbol(distance).0] += 1;
    }
}

/// The symbol of each length, the number of its extra bits, and their value.
const LENGTH_SYMBOLS: [(u16, u8, u8); 259] = {
    let mut symbols = [(0, 0, 0); 259];
    let mut length = 3;
    while length < 258 {
        let rest = length as u32 - 3;
        // From eight on, each power of two has four symbols.
        symbols[length] = if rest < 8 {
            (257 + rest as u16, 0, 0)
        } else {
            let extra = rest.ilog2() - 2;
            ((257 + 4 * extra + (rest >> extra)) as u16, extra as u8, (rest & ((1 << extra) - 1)) as u8)
        };
        length += 1;
    }
    symbols[258] = (285, 0, 0);
    symbols
};

/// The symbol of a distance, the number of its extra bits, and their value.
fn distance_symbol(distance: usize) -> (usize, u32, u32) {
    let rest = distance as u32 - 1;
    if rest < 4 {
        return (rest as usize, 0, 0);
    }
    // Each power of two has two symbols.
    let extra = rest.ilog2() - 1;
    ((2 * extra + (rest >> extra)) as usize, extra, rest & ((1 << extra) - 1))
}

/// Writes a block that is not the last one, and an empty stored block, which ends at a byte boundary. `out` is a buffer to use.
pub(super) fn write<'o>(
    text: &[u8],
    sequences: &[Sequence],
    counts: &Counts,
    out: &'o mut Vec<u8>,
) -> &'o [u8] {
    let mut literal_counts = counts.literals;
    literal_counts[END_OF_BLOCK] = 1;
    let mut literals = [Code::default(); LITERALS];
    let mut distances = [Code::default(); DISTANCES];
    assign::<CODE_LEN_MAX, LITERALS>(&literal_counts, &mut literals);
    assign::<CODE_LEN_MAX, DISTANCES>(&counts.distances, &mut distances);

    // A literal takes at most 12 bits, a match 12 + 5 + 12 + 13.
    let bytes_max = CODES_BYTES_MAX + text.len() * 3 / 2 + sequences.len() * 6;
    if out.len() < bytes_max {
        out.resize(bytes_max, 0);
    }
    let mut bits = BitWriter { out, at: 0, pending: 0, len: 0 };
    write_codes(&mut bits, &literals, &distances);
    let mut at = 0;
    for sequence in sequences {
        write_literals(&mut bits, &text[at..], sequence.literals as usize, &literals);
        let (symbol, extra_len, extra) = LENGTH_SYMBOLS[usize::from(sequence.length)];
        bits.put_code(literals[usize::from(symbol)]);
        bits.put(u32::from(extra), u32::from(extra_len));
        let (symbol, extra_len, extra) = distance_symbol(usize::from(sequence.distance));
        bits.put_code(distances[symbol]);
        bits.put(extra, extra_len);
        bits.flush();
        at += sequence.literals as usize + usize::from(sequence.length);
    }
    write_literals(&mut bits, &text[at..], text.len() - at, &literals);
    bits.put_code(literals[END_OF_BLOCK]);
    bits.put(0b000, 3);
    bits.align();
    bits.put(0xffff_0000, 32);
    let end = bits.finish();
    &out[..end]
}

/// Writes the first `len` bytes, in groups of four, because a loop over few literals is predicted badly.
#[inline(always)]
fn write_literals(bits: &mut BitWriter<'_>, text: &[u8], len: usize, codes: &[Code; LITERALS]) {
    let mut at = 0;
    while at < len {
        if let Some(four) = text[at..].first_chunk::<4>() {
            let rest = len - at;
            for (k, &literal) in four.iter().enumerate() {
                bits.put_code(codes[usize::from(literal)].only_if(k < rest));
            }
        } else {
            text[at..len].iter().for_each(|&literal| bits.put_code(codes[usize::from(literal)]));
        }
        bits.flush();
        at += 4;
    }
}

/// Writes the header of a block: the code lengths, which are run-length encoded and have a Huffman code of their own.
fn write_codes(bits: &mut BitWriter<'_>, literals: &[Code; LITERALS], distances: &[Code; DISTANCES]) {
    let last = |codes: &[Code]| codes.iter().rposition(|code| code.len > 0).map_or(0, |at| at + 1);
    let (literals_len, distances_len) = (last(literals).max(257), last(distances).max(1));
    let mut lens = [0u8; LITERALS + DISTANCES];
    let all = literals[..literals_len].iter().chain(&distances[..distances_len]);
    for (len, code) in lens.iter_mut().zip(all) {
        *len = code.len;
    }

    // Symbols with their extra bits.
    let mut runs = [(0u8, 0u8); LITERALS + DISTANCES];
    let mut runs_len = 0;
    let mut counts = [0; LEN_SYMBOLS];
    for run in lens[..literals_len + distances_len].chunk_by(|a, b| a == b) {
        let mut push = |symbol: u8, extra: usize| {
            runs[runs_len] = (symbol, extra as u8);
            runs_len += 1;
            counts[usize::from(symbol)] += 1;
        };
        let (len, mut rest) = (run[0], run.len());
        if len > 0 {
            push(len, 0);
            rest -= 1;
        }
        while rest > 0 {
            let (symbol, least, most) = match (len, rest) {
                (0, 11..) => (18, 11, 138),
                (0, 3..) => (17, 3, 10),
                (1.., 3..) => (16, 3, 6),
                _ => (len, 1, 1),
            };
            let repeated = rest.min(most);
            push(symbol, repeated - least);
            rest -= repeated;
        }
    }

    let mut codes = [Code::default(); LEN_SYMBOLS];
    assign::<7, LEN_SYMBOLS>(&counts, &mut codes);
    let order_len =
        LEN_ORDER.iter().rposition(|&symbol| codes[symbol].len > 0).map_or(4, |at| (at + 1).max(4));
    // Not the last block; dynamic codes.
    bits.put(0b100, 3);
    bits.put(literals_len as u32 - 257, 5);
    bits.put(distances_len as u32 - 1, 5);
    bits.put(order_len as u32 - 4, 4);
    for &symbol in &LEN_ORDER[..order_len] {
        bits.put(u32::from(codes[symbol].len), 3);
        bits.flush();
    }
    for &(symbol, extra) in &runs[..runs_len] {
        bits.put_code(codes[usize::from(symbol)]);
        bits.put(u32::from(extra), [2, 3, 7].get(usize::from(symbol).wrapping_sub(16)).copied().unwrap_or(0));
        bits.flush();
    }
}

/// Writes bits, lowest first. Up to 56 bits may be put between two flushes.
struct BitWriter<'o> {
    out: &'o mut [u8],
    /// The end of what is written in `out`.
    at: usize,
    pending: u64,
    len: u32,
}

impl BitWriter<'_> {
    #[inline]
    fn put(&mut self, bits: u32, len: u32) {
        self.pending |= u64::from(bits) << self.len;
        self.len += len;
    }

    #[inline]
    fn put_code(&mut self, code: Code) {
        self.put(u32::from(code.bits), u32::from(code.len));
    }

    /// Writes all whole bytes.
    #[inline]
    fn flush(&mut self) {
        self.out[self.at..self.at + 8].copy_from_slice(&self.pending.to_le_bytes());
        self.at += (self.len / 8) as usize;
        self.pending >>= self.len & !7;
        self.len &= 7;
    }

    /// Fills the last byte with zeros.
    fn align(&mut self) {
        self.len = self.len.next_multiple_of(8);
        self.flush();
    }

    /// Writes the rest. Returns the end of the output.
    fn finish(mut self) -> usize {
        self.align();
        self.at
    }
}
