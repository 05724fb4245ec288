//! In which form an exposition is shown: its format, how names are spelled in it, how it is compressed.
//!
//! The gateway keeps text as it was rendered. Every other form is made of that text piece by piece, and kept with the piece.

use bytes::Bytes;

use super::gzip::{Deflated, Deflater};

/// What the exposition is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text 0.0.4.
    Text,
    /// Delimited protobuf.
    Protobuf,
}

/// How names are spelled that are not made of ASCII letters, digits, underscores and colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// As they are; in text in quotes.
    AllowUtf8,
    /// An underscore for every other character.
    Underscores,
    /// `_dot_` for a dot, two underscores for an underscore and for every other character.
    Dots,
    /// `U__` in front, and the number of every other character between underscores.
    Values,
}

impl Escaping {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];

    /// The word in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }
}

/// How the exposition is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// One gzip member.
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Identity, Self::Gzip];

    /// The word in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
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
}

impl Piece {
    /// Length in bytes before compression.
    pub fn plain_len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Gzip(deflated) => deflated.text_len() as usize,
        }
    }
}

/// Compresses pieces one after the other. Keeps its tables allocated: have one a thread, not one a piece.
#[derive(Debug, Default)]
pub struct Packer {
    deflater: Deflater,
}

impl Packer {
    /// Compresses bytes to one piece.
    pub fn pack(&mut self, coding: Coding, plain: Bytes) -> Piece {
        match coding {
            Coding::Identity => Piece::Plain(plain),
            Coding::Gzip => Piece::Gzip(self.deflate(&plain)),
        }
    }

    /// Compresses bytes for a gzip member.
    pub fn deflate(&mut self, plain: &[u8]) -> Deflated {
        self.deflater.deflate([plain])
    }
}
