//! gzip for expositions whose parts are compressed once and sent often.
//!
//! A piece of text is compressed to raw deflate blocks that end at a byte boundary (a sync flush) and refer to nothing
//! outside the piece. Such pieces can follow each other in any order and still form **one** gzip member: header, pieces, an
//! empty last block, trailer. One member, because some clients (curl) stop after the first.
//!
//! The trailer needs the checksum of the whole text. It is combined from the checksums of the pieces: a CRC-32 is a
//! remainder of polynomials over GF(2), so `crc(a ‖ b) = crc(a) · x^(8·len b) + crc(b)`. Each piece carries its power of x,
//! which leaves one multiplication per piece and scrape (`benches/gzip.rs`: a quarter of the time that computing the power
//! again takes).
//!
//! Lines that resemble each other are compressed by [`super::lines`], everything else by zlib-rs.
//!
//! Request bodies are decoded by [`super::decode`].

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::lines::{LineDeflater, TEXT_BYTES_MAX};

/// No name, no time, no extra fields, operating system "unknown" (RFC 1952).
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block with fixed codes (RFC 1951, 3.2.6).
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];
/// Level 2 compresses expositions 7.5 : 1, level 1 only 5.6 : 1. Higher levels save too little for their time.
const LEVEL: Compression = Compression::new(2);
/// Output space for a sync flush, in bytes. With less space zlib would flush twice.
const FLUSH_BYTES: usize = 64;

/// A piece of text, compressed so that it can be used anywhere in a gzip member. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Deflated {
    bytes: Bytes,
    crc: u32,
    /// Length of the text in bytes, before compression.
    text_len: u64,
    /// x^(8·text_len), the factor for the checksum of everything before this piece.
    shift: u32,
}

/// An empty piece.
impl Default for Deflated {
    fn default() -> Self {
        Self { bytes: Bytes::new(), crc: 0, text_len: 0, shift: crc::ONE }
    }
}

impl Deflated {
    fn new(text: &[u8], blocks: &[u8]) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        let len = text.len() as u64;
        // The copy has the exact size, so cached pieces waste no memory; the scratch buffer is reused.
        Self {
            bytes: Bytes::copy_from_slice(blocks),
            crc: crc32fast::hash(text),
            text_len: len,
            shift: crc::shift(len),
        }
    }

    /// Length in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Length of the text in bytes, before compression.
    pub(super) fn text_len(&self) -> u64 {
        self.text_len
    }
}

/// Compresses pieces, one after the other. It keeps up to 900 KB of tables, so use one per thread rather than one per piece.
#[derive(Debug, Default)]
pub struct Deflater {
    lines: LineDeflater,
    general: GeneralDeflater,
}

impl Deflater {
    /// Creates a compressor and allocates its tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compresses a text to one piece.
    pub fn deflate(&mut self, text: &[u8]) -> Deflated {
        let blocks = match self.lines.deflate(text) {
            Some(blocks) => blocks,
            None => self.general.deflate(text),
        };
        Deflated::new(text, blocks)
    }

    /// Compresses a text that is sent only once to one piece: fast, if it is not long, but to more bytes unless its lines resemble each
    /// other.
    pub fn deflate_fast(&mut self, text: &[u8]) -> Deflated {
        if text.len() > TEXT_BYTES_MAX {
            return self.deflate(text);
        }
        Deflated::new(text, self.lines.deflate_always(text))
    }
}

/// zlib-rs, for text of any kind.
#[derive(Debug)]
struct GeneralDeflater {
    compress: Compress,
    out: Vec<u8>,
}

impl Default for GeneralDeflater {
    fn default() -> Self {
        Self { compress: Compress::new(LEVEL, false), out: Vec::new() }
    }
}

impl GeneralDeflater {
    fn deflate(&mut self, text: &[u8]) -> &[u8] {
        self.compress.reset();
        self.out.clear();
        self.feed(text, FlushCompress::None);
        self.feed(&[], FlushCompress::Sync);
        &self.out
    }

    fn feed(&mut self, mut input: &[u8], flush: FlushCompress) {
        loop {
            self.out.reserve(input.len() / 4 + FLUSH_BYTES);
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(input, &mut self.out, flush);
            let read = (self.compress.total_in() - before) as usize;
            input = &input[read..];
            // `BufError` only means that there was nothing to do, because space was reserved above.
            debug_assert!(matches!(status, Ok(Status::Ok | Status::BufError)));
            if input.is_empty() && self.out.len() < self.out.capacity() {
                return;
            }
        }
    }
}

/// Consecutive pieces of a gzip member.
#[derive(Debug, Clone)]
pub struct Stitched {
    buffers: Vec<Bytes>,
    crc: u32,
    text_len: u64,
    /// As in [`Deflated`].
    shift: u32,
}

impl Default for Stitched {
    fn default() -> Self {
        Self { buffers: Vec::new(), crc: 0, text_len: 0, shift: crc::ONE }
    }
}

impl Stitched {
    /// Appends a piece.
    pub fn push(&mut self, piece: &Deflated) {
        if piece.text_len == 0 {
            return;
        }
        self.crc = crc::multiply(self.crc, piece.shift) ^ piece.crc;
        self.shift = crc::multiply(self.shift, piece.shift);
        self.text_len += piece.text_len;
        self.buffers.push(piece.bytes.clone());
    }

    /// The compressed bytes. They may be replaced by the same bytes in other buffers.
    pub fn buffers_mut(&mut self) -> &mut Vec<Bytes> {
        &mut self.buffers
    }
}

/// A gzip member, assembled from pieces without copying them.
#[derive(Debug)]
pub struct Member {
    buffers: Vec<Bytes>,
    crc: u32,
    text_len: u64,
}

impl Default for Member {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Member {
    /// Creates a member with capacity for that many pieces.
    pub fn with_capacity(pieces: usize) -> Self {
        let mut buffers = Vec::with_capacity(pieces + 2);
        buffers.push(Bytes::from_static(HEADER));
        Self { buffers, crc: 0, text_len: 0 }
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: &Deflated) {
        if piece.text_len == 0 {
            return;
        }
        self.crc = crc::multiply(self.crc, piece.shift) ^ piece.crc;
        self.text_len += piece.text_len;
        self.buffers.push(piece.bytes.clone());
    }

    /// Appends pieces.
    pub fn extend(&mut self, pieces: &Stitched) {
        self.crc = crc::multiply(self.crc, pieces.shift) ^ pieces.crc;
        self.text_len += pieces.text_len;
        self.buffers.extend_from_slice(&pieces.buffers);
    }

    /// Returns the member as buffers to send in this order: header, pieces, trailer. No buffer is empty.
    pub fn finish(mut self) -> Vec<Bytes> {
        let mut trailer = Vec::with_capacity(LAST_BLOCK.len() + 8);
        trailer.extend_from_slice(&LAST_BLOCK);
        trailer.extend_from_slice(&self.crc.to_le_bytes());
        // The format stores the length modulo 2^32.
        trailer.extend_from_slice(&(self.text_len as u32).to_le_bytes());
        self.buffers.push(Bytes::from(trailer));
        self.buffers
    }
}

/// Multiplies remainders modulo the polynomial of CRC-32. As in the checksum itself, the highest bit of a word is the
/// coefficient of x^0.
mod crc {
    /// x^32 + x^26 + … + 1 without its first term, lowest power in the highest bit.
    const POLYNOMIAL: u32 = 0xedb8_8320;
    /// x^0.
    pub(super) const ONE: u32 = 1 << 31;
    /// x^(2^k) for k below 32. The sequence repeats after 32, because x^(2^32) = x.
    const SQUARES: [u32; 32] = {
        let mut squares = [ONE >> 1; 32];
        let mut k = 1;
        while k < 32 {
            squares[k] = multiply(squares[k - 1], squares[k - 1]);
            k += 1;
        }
        squares
    };

    /// The product of two remainders. It has no branches on the bits, because the bits of checksums are unpredictable.
    pub(super) const fn multiply(a: u32, mut b: u32) -> u32 {
        let mut product = 0;
        let mut power = 32;
        while power > 0 {
            power -= 1;
            product ^= b & 0u32.wrapping_sub((a >> power) & 1);
            b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
        }
        product
    }

    /// x^(8·bytes).
    pub(super) fn shift(bytes: u64) -> u32 {
        let mut power = ONE;
        let mut rest = bytes;
        let mut k = 3;
        while rest > 0 {
            if rest & 1 == 1 {
                power = multiply(power, SQUARES[k % 32]);
            }
            rest >>= 1;
            k += 1;
        }
        power
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::encoding::decode::GZIP;
    use crate::exposition::memory::Unlimited;

    fn stitch<'a>(pieces: impl IntoIterator<Item = &'a Deflated>) -> Vec<u8> {
        let mut member = Member::default();
        pieces.into_iter().for_each(|piece| member.push(piece));
        let buffers = member.finish();
        assert!(buffers.iter().all(|buffer| !buffer.is_empty()));
        buffers.concat()
    }

    /// Reference implementation: reads one member with a decoder that shares no code with the encoder, and computes the
    /// checksum bit by bit.
    fn gunzip(member: &[u8]) -> Vec<u8> {
        assert_eq!(member[..4], [0x1f, 0x8b, 8, 0]);
        let (blocks, trailer) = member[10..].split_at(member.len() - 18);
        let text = miniz_oxide::inflate::decompress_to_vec(blocks).unwrap();
        assert_eq!(trailer[..4], bitwise_crc(&text).to_le_bytes());
        assert_eq!(trailer[4..], (text.len() as u32).to_le_bytes());
        text
    }

    fn bitwise_crc(text: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in text {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        !crc
    }

    fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Some are compressed as lines, some are not.
        let line = "[a-c]{1,4}_total\\{job=\"[a-c]{0,20}\"\\} [0-9]{1,9}\n";
        let lines = prop::collection::vec(line, 0..200).prop_map(|lines| lines.concat().into_bytes());
        let noise = prop::collection::vec(any::<u8>(), 0..40_000);
        prop::collection::vec(prop_oneof![4 => lines, 1 => noise], 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn stitched_pieces_are_one_member_of_the_whole_text(texts in texts()) {
            let mut deflater = Deflater::new();
            let pieces: Vec<_> = texts.iter().map(|text| deflater.deflate(text)).collect();
            let member = stitch(&pieces);
            prop_assert_eq!(gunzip(&member), texts.concat());
            // Pieces that are stitched in two steps.
            let mut other = Member::default();
            for pieces in pieces.chunks(2) {
                let mut stitched = Stitched::default();
                pieces.iter().for_each(|piece| stitched.push(piece));
                other.extend(&stitched);
            }
            prop_assert_eq!(other.finish().concat(), member.clone());
            prop_assert_eq!(GZIP.decode(&member, usize::MAX, &mut Unlimited).unwrap(), texts.concat());
        }

        #[test]
        fn combined_checksums_agree_with_crc32fast(first: u32, second: u32, len in 0..u64::MAX / 8) {
            let mut whole = crc32fast::Hasher::new_with_initial_len(first, 1);
            whole.combine(&crc32fast::Hasher::new_with_initial_len(second, len));
            prop_assert_eq!(crc::multiply(first, crc::shift(len)) ^ second, whole.finalize());
        }
    }

    #[test]
    fn a_piece_does_not_refer_to_the_previous_one() {
        let mut deflater = Deflater::new();
        let first = deflater.deflate(b"the same text again and again");
        let second = deflater.deflate(b"the same text again and again");
        assert_eq!(first.bytes, second.bytes);
        assert_eq!(gunzip(&stitch([&second])), b"the same text again and again");
    }

    #[test]
    fn an_empty_member_is_valid() {
        assert_eq!(gunzip(&stitch([])), b"");
        assert!(Deflater::new().deflate(b"").bytes.is_empty());
    }
}
