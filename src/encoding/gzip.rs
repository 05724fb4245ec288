//! gzip of an exposition whose parts are compressed once and sent often.
//!
//! A piece of text becomes raw deflate blocks that end at a byte boundary (a sync flush) and refer to nothing outside
//! the piece. Such pieces may follow each other in any order and still be **one** gzip member: a head, the pieces, an
//! empty last block, a trailer. One member, because some clients (curl) stop after the first.
//!
//! The trailer needs the checksum of the whole text. It is combined from those of the pieces: a CRC-32 is a remainder
//! of polynomials over GF(2), so `crc(a ‖ b) = crc(a) · x^(8·len b) + crc(b)`. Each piece carries its power of x, which
//! leaves one multiplication a piece for a scrape (`benches/gzip.rs`: a quarter of computing the power anew).
//!
//! Not for request bodies: these are taken apart in [`super::decode`].

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// No name, no time, no extra fields; "unknown" operating system (RFC 1952).
const HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last block with fixed codes and nothing in it (RFC 1951, 3.2.6).
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];
/// Level 2 compresses expositions 7.5 : 1, level 1 only 5.6 : 1 and no faster, since it writes more. What more effort would
/// save, no scrape interval is worth.
const LEVEL: Compression = Compression::new(2);
/// What a sync flush may still want to write when the input is used up; with less room zlib would flush twice.
const FLUSH_ROOM: usize = 64;

/// A piece of text, compressed so that it can stand anywhere in a gzip member. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Deflated {
    bytes: Bytes,
    crc: u32,
    /// Length of the text in bytes, before compression.
    len: u64,
    /// x^(8·len), by which the checksum of all that stands before this piece is multiplied.
    shift: u32,
}

/// The piece of no text.
impl Default for Deflated {
    fn default() -> Self {
        Self { bytes: Bytes::new(), crc: 0, len: 0, shift: crc::ONE }
    }
}

impl Deflated {
    /// The length of the text in bytes.
    pub fn text_len(&self) -> u64 {
        self.len
    }

    /// The compressed length in bytes.
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }

    /// One piece that stands for several in their order. Copies the compressed bytes.
    pub fn join<'a>(pieces: impl IntoIterator<Item = &'a Self> + Clone) -> Self {
        let mut bytes = Vec::with_capacity(pieces.clone().into_iter().map(Self::wire_len).sum());
        let mut whole = Self::default();
        for piece in pieces {
            bytes.extend_from_slice(&piece.bytes);
            whole.crc = crc::multiply(whole.crc, piece.shift) ^ piece.crc;
            whole.shift = crc::multiply(whole.shift, piece.shift);
            whole.len += piece.len;
        }
        whole.bytes = Bytes::from(bytes);
        whole
    }
}

/// Compresses pieces one after the other. Keeps its tables allocated (about 300 KB): have one a thread, not one a piece.
#[derive(Debug)]
pub struct Deflater {
    compress: Compress,
    out: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Deflater {
    /// Allocates the tables.
    pub fn new() -> Self {
        Self { compress: Compress::new(LEVEL, false), out: Vec::new() }
    }

    /// Compresses the parts, one after the other, to one piece.
    pub fn deflate<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Deflated {
        self.compress.reset();
        self.out.clear();
        let mut hasher = crc32fast::Hasher::new();
        let mut len = 0;
        for part in parts {
            hasher.update(part);
            len += part.len() as u64;
            self.feed(part, FlushCompress::None);
        }
        if len > 0 {
            self.feed(&[], FlushCompress::Sync);
        }
        // A copy of exact size: the scratch buffer stays here, and cached pieces waste nothing.
        Deflated {
            bytes: Bytes::copy_from_slice(&self.out),
            crc: hasher.finalize(),
            len,
            shift: crc::shift(len),
        }
    }

    fn feed(&mut self, mut input: &[u8], flush: FlushCompress) {
        loop {
            self.out.reserve(input.len() / 4 + FLUSH_ROOM);
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(input, &mut self.out, flush);
            let read = (self.compress.total_in() - before) as usize;
            input = &input[read..];
            // `BufError` only says that there was nothing to do: room was made above.
            debug_assert!(matches!(status, Ok(Status::Ok | Status::BufError)));
            if input.is_empty() && self.out.len() < self.out.capacity() {
                return;
            }
        }
    }
}

/// A gzip member put together from pieces, which it does not copy.
#[derive(Debug)]
pub struct Member {
    buffers: Vec<Bytes>,
    crc: u32,
    len: u64,
    wire_len: usize,
}

impl Default for Member {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Member {
    /// Room for that many pieces.
    pub fn with_capacity(pieces: usize) -> Self {
        let mut buffers = Vec::with_capacity(pieces + 2);
        buffers.push(Bytes::from_static(HEAD));
        Self { buffers, crc: 0, len: 0, wire_len: HEAD.len() }
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: &Deflated) {
        if piece.len == 0 {
            return;
        }
        self.crc = crc::multiply(self.crc, piece.shift) ^ piece.crc;
        self.len += piece.len;
        self.wire_len += piece.bytes.len();
        self.buffers.push(piece.bytes.clone());
    }

    /// The member as buffers to be sent in this order: head, pieces, trailer. None of them is empty.
    pub fn finish(mut self) -> Stitched {
        let mut trailer = Vec::with_capacity(LAST_BLOCK.len() + 8);
        trailer.extend_from_slice(&LAST_BLOCK);
        trailer.extend_from_slice(&self.crc.to_le_bytes());
        // The format has room for the length modulo 2^32 only.
        trailer.extend_from_slice(&(self.len as u32).to_le_bytes());
        self.wire_len += trailer.len();
        self.buffers.push(Bytes::from(trailer));
        Stitched { buffers: self.buffers, wire_len: self.wire_len }
    }
}

/// A complete gzip member.
#[derive(Debug, Clone)]
pub struct Stitched {
    /// To be sent in this order.
    pub buffers: Vec<Bytes>,
    /// Their length in bytes, all together.
    pub wire_len: usize,
}

/// The pieces, in their order, as one gzip member.
pub fn stitch<'a>(pieces: impl IntoIterator<Item = &'a Deflated>) -> Stitched {
    let pieces = pieces.into_iter();
    let mut member = Member::with_capacity(pieces.size_hint().0);
    pieces.for_each(|piece| member.push(piece));
    member.finish()
}

/// Multiplication of remainders modulo the polynomial of CRC-32. As in the checksum itself, the highest bit of a word is
/// the coefficient of x^0.
mod crc {
    /// x^32 + x^26 + … + 1 without its first term, lowest power first.
    const POLYNOMIAL: u32 = 0xedb8_8320;
    /// x^0.
    pub(super) const ONE: u32 = 1 << 31;
    /// x^(2^k). They repeat after 32, because x^(2^32) = x.
    const SQUARES: [u32; 32] = {
        let mut squares = [ONE >> 1; 32];
        let mut k = 1;
        while k < 32 {
            squares[k] = multiply(squares[k - 1], squares[k - 1]);
            k += 1;
        }
        squares
    };

    /// The product. Without branches: the bits of checksums cannot be predicted.
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
    use crate::encoding::decode::{Encoding, decode};

    /// Reads one member as the format's description says, with a decoder that has no code in common with ours, and
    /// computes the checksum bit by bit.
    fn slow_gunzip(member: &[u8]) -> Vec<u8> {
        assert_eq!(member[..4], [0x1f, 0x8b, 8, 0]);
        let (blocks, trailer) = member[10..].split_at(member.len() - 18);
        let text = miniz_oxide::inflate::decompress_to_vec(blocks).unwrap();
        assert_eq!(trailer[..4], slow_crc(&text).to_le_bytes());
        assert_eq!(trailer[4..], (text.len() as u32).to_le_bytes());
        text
    }

    fn slow_crc(text: &[u8]) -> u32 {
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
        let line = "[a-c]{1,4}_total\\{job=\"[a-c]{0,20}\"\\} [0-9]{1,9}\n";
        let lines = prop::collection::vec(line, 0..200).prop_map(|lines| lines.concat().into_bytes());
        let noise = prop::collection::vec(any::<u8>(), 0..40_000);
        prop::collection::vec(prop_oneof![4 => lines, 1 => noise], 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn stitched_pieces_are_one_member_of_the_whole_text(texts in texts(), joined in any::<bool>(), cut in 0usize..6) {
            let mut deflater = Deflater::new();
            let mut pieces: Vec<_> = texts.iter().map(|text| deflater.deflate([text.as_slice()])).collect();
            if joined {
                let rest = pieces.split_off(cut.min(pieces.len()));
                pieces.push(Deflated::join(&rest));
            }
            let stitched = stitch(&pieces);
            prop_assert!(stitched.buffers.iter().all(|buffer| !buffer.is_empty()));
            let member = stitched.buffers.concat();
            prop_assert_eq!(member.len(), stitched.wire_len);
            prop_assert_eq!(slow_gunzip(&member), texts.concat());
            prop_assert_eq!(decode(Encoding::Gzip, &member, usize::MAX).unwrap(), texts.concat());
        }

        #[test]
        fn parts_of_a_piece_count_as_one_text(texts in texts()) {
            let piece = Deflater::new().deflate(texts.iter().map(Vec::as_slice));
            prop_assert_eq!(slow_gunzip(&stitch([&piece]).buffers.concat()), texts.concat());
        }

        #[test]
        fn combining_agrees_with_crc32fast(first: u32, second: u32, len in 0..u64::MAX / 8) {
            let mut whole = crc32fast::Hasher::new_with_initial_len(first, 1);
            whole.combine(&crc32fast::Hasher::new_with_initial_len(second, len));
            prop_assert_eq!(crc::multiply(first, crc::shift(len)) ^ second, whole.finalize());
        }
    }

    #[test]
    fn a_piece_does_not_refer_to_the_one_before() {
        let mut deflater = Deflater::new();
        let first = deflater.deflate([b"the same text again and again".as_slice()]);
        let second = deflater.deflate([b"the same text again and again".as_slice()]);
        assert_eq!(first.bytes, second.bytes);
        assert_eq!(slow_gunzip(&stitch([&second]).buffers.concat()), b"the same text again and again");
    }

    #[test]
    fn a_member_of_nothing_is_valid() {
        assert_eq!(slow_gunzip(&stitch([]).buffers.concat()), b"");
        assert_eq!(Deflater::new().deflate([]).wire_len(), 0);
    }
}
