//! In which form an exposition is shown: its format, how names are spelled in it, how it is compressed.
//!
//! The gateway keeps text as it was rendered. Every other form is made of that text piece by piece, and kept with the piece.

use bytes::Bytes;

use super::gzip::{Deflated, Deflater};
use crate::exposition::Format;
use crate::exposition::escape::Escaping;

/// How the exposition is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// One gzip member.
    Gzip,
    /// Zstandard frames, one behind the other.
    Zstd,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Gzip, Self::Zstd];

    /// The word in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// A form of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// What it is written in.
    pub format: Format,
    /// How names are spelled.
    pub escaping: Escaping,
    /// How it is compressed.
    pub coding: Coding,
}

impl Form {
    /// Whether the gateway keeps its text like that, but for the compression.
    pub fn is_rendered(self) -> bool {
        self.format == Format::Text && self.escaping == Escaping::AllowUtf8
    }
}

/// A piece of an exposition in some form. Clones share the bytes.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Not compressed.
    Plain(Bytes),
    /// For a gzip member.
    Gzip(Deflated),
    /// A zstd frame of its own.
    Zstd {
        /// The frame.
        frame: Bytes,
        /// Length in bytes before compression.
        plain_len: usize,
    },
}

impl Piece {
    /// Length in bytes before compression.
    pub fn plain_len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Gzip(deflated) => deflated.text_len() as usize,
            Self::Zstd { plain_len, .. } => *plain_len,
        }
    }
}

/// On pieces of 16 KB, level 1 was found to compress as well as level 5, six times as fast.
const ZSTD_LEVEL: i32 = 1;

/// Compresses pieces one after the other. Keeps its tables allocated: have one a thread, not one a piece.
#[derive(Default)]
pub struct Packer {
    deflater: Deflater,
    /// From the first time on that zstd was asked for.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Packer {
    /// Compresses bytes to one piece.
    pub fn pack(&mut self, coding: Coding, plain: Bytes) -> Piece {
        match coding {
            Coding::Identity => Piece::Plain(plain),
            Coding::Gzip => Piece::Gzip(self.deflate(&plain)),
            Coding::Zstd => Piece::Zstd { frame: self.zstd_frame(&plain), plain_len: plain.len() },
        }
    }

    /// Compresses bytes for a gzip member.
    pub fn deflate(&mut self, plain: &[u8]) -> Deflated {
        self.deflater.deflate([plain])
    }

    fn zstd_frame(&mut self, plain: &[u8]) -> Bytes {
        let zstd = self.zstd.get_or_insert_with(|| {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the level exists");
            zstd.include_checksum(true).expect("is a setting of the encoder");
            zstd
        });
        let mut frame = zstd.compress(plain).expect("the encoder makes itself room enough");
        frame.shrink_to_fit();
        frame.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::decode::{Encoding, decode};
    use proptest::prelude::*;

    proptest! {
        /// Read by a decoder that has no code in common with the encoder.
        #[test]
        fn frames_one_behind_the_other_are_the_whole(texts in prop::collection::vec("[a-c\n]{0,2000}", 1..5)) {
            let mut packer = Packer::default();
            let mut sent = Vec::new();
            for text in &texts {
                match packer.pack(Coding::Zstd, text.clone().into()) {
                    Piece::Zstd { frame, plain_len } => {
                        prop_assert_eq!(plain_len, text.len());
                        sent.extend_from_slice(&frame);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(decode(Encoding::Zstd, &sent, 1 << 20).expect("valid"), texts.concat().into_bytes());
        }
    }
}
