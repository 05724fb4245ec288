//! Forms of an exposition, and the encoder for pieces of it.
//!
//! The gateway stores rendered text. Every other form is derived from that text piece by piece, and cached with the piece.

use bytes::Bytes;

use super::gzip::{Deflated, Deflater};
use crate::exposition::Format;
use crate::exposition::escape::Escaping;

/// The content coding of a scrape response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// No compression.
    Identity,
    /// One gzip member.
    Gzip,
    /// Concatenated Zstandard frames.
    Zstd,
}

impl Coding {
    /// All content codings.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Gzip, Self::Zstd];

    /// The name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The form of an exposition: what a scraper negotiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// The exposition format.
    pub format: Format,
    /// The escaping of names.
    pub escaping: Escaping,
    /// The content coding.
    pub coding: Coding,
}

impl Form {
    /// Whether the text is sent as it is stored, apart from compression.
    pub fn is_stored_text(self) -> bool {
        self.format == Format::Text && self.escaping == Escaping::AllowUtf8
    }
}

/// A piece of an exposition in one form. Clones share the bytes.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Uncompressed.
    Plain(Bytes),
    /// Part of a gzip member.
    Gzip(Deflated),
    /// A complete zstd frame.
    Zstd {
        /// The compressed bytes.
        frame: Bytes,
        /// Length in bytes before compression.
        plain_len: usize,
    },
}

impl Piece {
    /// Length in bytes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Gzip(deflated) => deflated.encoded_len(),
            Self::Zstd { frame, .. } => frame.len(),
        }
    }

    /// Length in bytes before compression.
    pub fn plain_len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Gzip(deflated) => deflated.text_len() as usize,
            Self::Zstd { plain_len, .. } => *plain_len,
        }
    }
}

/// On pieces of 16 KB, level 1 compresses as well as level 5 and is six times as fast (measured).
const ZSTD_LEVEL: i32 = 1;

/// Encodes pieces, one after the other. It keeps its tables allocated, so use one per thread rather than one per piece.
#[derive(Default)]
pub struct PieceEncoder {
    deflater: Deflater,
    /// Created when zstd is first used.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl PieceEncoder {
    /// Encodes bytes as one piece.
    pub fn encode(&mut self, coding: Coding, plain: Bytes) -> Piece {
        match coding {
            Coding::Identity => Piece::Plain(plain),
            Coding::Gzip => Piece::Gzip(self.deflate(&plain)),
            Coding::Zstd => Piece::Zstd { frame: self.zstd_frame(&plain), plain_len: plain.len() },
        }
    }

    /// Compresses bytes as a part of a gzip member.
    pub fn deflate(&mut self, plain: &[u8]) -> Deflated {
        self.deflater.deflate(plain)
    }

    /// Encodes bytes that are sent only once; see [`Deflater::deflate_fast`].
    pub fn encode_fast(&mut self, coding: Coding, plain: Bytes) -> Piece {
        if coding == Coding::Gzip {
            return Piece::Gzip(self.deflater.deflate_fast(&plain));
        }
        self.encode(coding, plain)
    }

    fn zstd_frame(&mut self, plain: &[u8]) -> Bytes {
        let zstd = self.zstd.get_or_insert_with(|| {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the level exists");
            zstd.include_checksum(true).expect("checksums are a setting of the encoder");
            zstd
        });
        let mut frame = zstd.compress(plain).expect("the encoder allocates enough output space");
        frame.shrink_to_fit();
        frame.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::decode::ZSTD;
    use crate::exposition::memory::Unlimited;
    use proptest::prelude::*;

    proptest! {
        /// The decoder shares no code with the encoder.
        #[test]
        fn concatenated_frames_decode_to_the_whole_text(texts in prop::collection::vec("[a-c\n]{0,2000}", 1..5)) {
            let mut encoder = PieceEncoder::default();
            let mut sent = Vec::new();
            for text in &texts {
                match encoder.encode(Coding::Zstd, text.clone().into()) {
                    Piece::Zstd { frame, plain_len } => {
                        prop_assert_eq!(plain_len, text.len());
                        sent.extend_from_slice(&frame);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(ZSTD.decode(&sent, 1 << 20, &mut Unlimited).expect("valid"), texts.concat().into_bytes());
        }
    }
}
