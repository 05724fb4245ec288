//! Request bodies as they were meant: gzip, framed snappy and zstd taken off.
//!
//! Strict about the end of a stream, since half a push must not pass for a whole one; bounded in its output, and in memory
//! by what comes out. gzip and snappy behave as in the official program. zstd is an addition of this gateway, with
//! windows up to what RFC 9659 allows over HTTP.
//!
//! Not for answers: these are compressed piece by piece in [`super::gzip`].

use std::fmt;
use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The window that every zstd decoder behind HTTP has, in bytes (RFC 9659).
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;
/// Output between two looks at the limit.
const ZSTD_STEP_BYTES: usize = 128 << 10;

/// How a body was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Members of RFC 1952, one after the other.
    Gzip,
    /// The framed stream, not the block format.
    Snappy,
    /// Frames of RFC 8878, one after the other.
    Zstd,
}

impl Encoding {
    /// The encoding of that name in any case, as `Content-Encoding` has it.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Gzip, Self::Snappy, Self::Zstd]
            .into_iter()
            .find(|encoding| encoding.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The name in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

/// Why a body could not be decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The stream ends before its end, or there is none at all.
    Cut,
    /// What the decoder has to say: another format, damaged blocks, a checksum that does not fit.
    Corrupt(String),
    /// The output passes this many bytes. How far was not looked at.
    TooLarge {
        /// The limit that was given.
        output_bytes_max: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => out.write_str("unexpected end of the stream"),
            Self::Corrupt(problem) => out.write_str(problem),
            Self::TooLarge { output_bytes_max } => {
                write!(out, "more than {output_bytes_max} bytes of output")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Decompresses a whole body, to at most `output_bytes_max` bytes.
///
/// # Errors
/// A stream that is cut or damaged, also behind its first part; output beyond the limit, which is then not made.
pub fn decode(encoding: Encoding, body: &[u8], output_bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    match encoding {
        // Anything else behind a member is an error, zeros too, as it is for the official program.
        Encoding::Gzip => read_all(MultiGzDecoder::new(body), output_bytes_max),
        Encoding::Snappy => read_all(snap::read::FrameDecoder::new(body), output_bytes_max),
        Encoding::Zstd => unzstd(body, output_bytes_max),
    }
}

fn read_all(decoder: impl Read, output_bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    // One byte more than allowed: seeing it is the proof that there was too much.
    let bound = (output_bytes_max as u64).saturating_add(1);
    let mut text = Vec::new();
    if let Err(error) = decoder.take(bound).read_to_end(&mut text) {
        return Err(match error.kind() {
            io::ErrorKind::UnexpectedEof => DecodeError::Cut,
            _ => DecodeError::Corrupt(error.to_string()),
        });
    }
    check_size(&text, output_bytes_max)?;
    Ok(text)
}

fn check_size(text: &[u8], output_bytes_max: usize) -> Result<(), DecodeError> {
    if text.len() > output_bytes_max { Err(DecodeError::TooLarge { output_bytes_max }) } else { Ok(()) }
}

fn unzstd(mut body: &[u8], output_bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut text = Vec::new();
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
    while !body.is_empty() {
        match decoder.reset(&mut body) {
            Ok(()) => unzstd_frame(&mut decoder, &mut body, &mut text, output_bytes_max)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                body = body.get(length as usize..).ok_or(DecodeError::Cut)?;
            }
            Err(problem) => return Err(zstd_error(body, &problem)),
        }
    }
    Ok(text)
}

fn unzstd_frame(
    decoder: &mut FrameDecoder,
    body: &mut &[u8],
    text: &mut Vec<u8>,
    output_bytes_max: usize,
) -> Result<(), DecodeError> {
    let start = text.len();
    while !decoder.is_finished() {
        let step = BlockDecodingStrategy::UptoBytes(ZSTD_STEP_BYTES);
        decoder.decode_blocks(&mut *body, step).map_err(|problem| zstd_error(body, &problem))?;
        decoder.collect_to_writer(&mut *text).map_err(|problem| DecodeError::Corrupt(problem.to_string()))?;
        check_size(text, output_bytes_max)?;
    }
    // The decoder computes the checksum, but does not compare it.
    let announced = decoder.get_checksum_from_data();
    if announced.is_some() && announced != decoder.get_calculated_checksum() {
        return Err(DecodeError::Corrupt("the checksum does not fit".to_owned()));
    }
    let announced_len = decoder.content_size();
    if announced_len != 0 && announced_len != (text.len() - start) as u64 {
        return Err(DecodeError::Corrupt("the length does not fit".to_owned()));
    }
    Ok(())
}

/// Whoever wanted more than there was has read everything.
fn zstd_error(rest: &[u8], problem: &FrameDecoderError) -> DecodeError {
    if rest.is_empty() { DecodeError::Cut } else { DecodeError::Corrupt(problem.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Snappy, Encoding::Zstd];

    fn encode(encoding: Encoding, text: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
                encoder.write_all(text).expect("a vector grows as needed");
                encoder.finish().expect("a vector grows as needed")
            }
            Encoding::Snappy => {
                let mut encoder = snap::write::FrameEncoder::new(Vec::new());
                encoder.write_all(text).expect("a vector grows as needed");
                encoder.into_inner().expect("a vector grows as needed")
            }
            Encoding::Zstd => compress_to_vec(text, CompressionLevel::Fastest),
        }
    }

    /// What a bomb is made of, one after the other; snappy has no better one.
    fn bomb(encoding: Encoding) -> Vec<u8> {
        encode(encoding, &vec![b'\n'; 16 << 20])
    }

    fn encodings() -> impl Strategy<Value = Encoding> {
        prop::sample::select(&ALL[..])
    }

    proptest! {
        #[test]
        fn streams_in_a_row_are_one_body(
            encoding in encodings(),
            texts in prop::collection::vec(prop::collection::vec(b'a'..=b'd', 0..3000), 1..4),
        ) {
            let body: Vec<u8> = texts.iter().flat_map(|text| encode(encoding, text)).collect();
            let len = texts.concat().len();
            prop_assert_eq!(decode(encoding, &body, len), Ok(texts.concat()));
            if len > 0 {
                prop_assert_eq!(
                    decode(encoding, &body, len - 1),
                    Err(DecodeError::TooLarge { output_bytes_max: len - 1 })
                );
            }
        }

        #[test]
        fn nothing_panics(
            encoding in encodings(),
            body in prop::collection::vec(any::<u8>(), 0..300),
            at: prop::sample::Index,
            flip: u8,
        ) {
            let _ = decode(encoding, &body, 1000);
            let mut damaged = encode(encoding, b"m{zone=\"eu\"} 1\nm{zone=\"us\"} 2\nm{zone=\"eu-east\"} 1\n");
            damaged.extend_from_slice(&body);
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            let _ = decode(encoding, &damaged, 1000);
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        for encoding in ALL {
            let body = encode(encoding, b"m 1\nn 2\n");
            for end in 1..body.len() {
                // A snappy stream may end behind every chunk; the one of the identifier has 10 bytes.
                if encoding == Encoding::Snappy && end == 10 {
                    continue;
                }
                let cut = decode(encoding, &body[..end], 100);
                assert_eq!(cut, Err(DecodeError::Cut), "{encoding:?} cut after {end} bytes");
            }
            // Behind a whole stream a second one is cut.
            let two = [body.clone(), body.clone()].concat();
            for end in body.len() + 1..two.len() {
                if encoding == Encoding::Snappy && end == body.len() + 10 {
                    continue;
                }
                let cut = decode(encoding, &two[..end], 100);
                assert_eq!(cut, Err(DecodeError::Cut), "{encoding:?} cut after {end} bytes");
            }
        }
    }

    #[test]
    fn only_gzip_needs_bytes_to_be_empty() {
        assert_eq!(decode(Encoding::Gzip, b"", 100), Err(DecodeError::Cut));
        assert_eq!(decode(Encoding::Snappy, b"", 100), Ok(Vec::new()));
        assert_eq!(decode(Encoding::Zstd, b"", 100), Ok(Vec::new()));
    }

    #[test]
    fn damage_is_an_error() {
        for (encoding, ends) in [(Encoding::Gzip, 8), (Encoding::Snappy, 8), (Encoding::Zstd, 4)] {
            let body = encode(encoding, b"m 1\nn 2\n");
            for at in body.len() - ends..body.len() {
                let mut damaged = body.clone();
                damaged[at] ^= 1;
                let damaged = decode(encoding, &damaged, 100);
                assert!(
                    matches!(damaged, Err(DecodeError::Corrupt(_))),
                    "{encoding:?} byte {at}: {damaged:?}"
                );
            }
        }
    }

    #[test]
    fn garbage_behind_a_stream_is_an_error() {
        for encoding in ALL {
            let body = encode(encoding, b"m 1\n");
            for garbage in [b"\0".as_slice(), b"\0\0\0\0\0\0\0\0\0\0\0\0", b"x", b"some more text"] {
                assert!(decode(encoding, &[body.as_slice(), garbage].concat(), 100).is_err(), "{garbage:?}");
            }
            assert!(decode(encoding, b"m 1\nm is nothing but text\n", 100).is_err());
        }
    }

    #[test]
    fn the_block_format_of_snappy_is_refused() {
        let block = snap::raw::Encoder::new().compress_vec(b"m 1\n").expect("short");
        assert!(decode(Encoding::Snappy, &block, 100).is_err());
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        for encoding in ALL {
            let bomb = bomb(encoding);
            // Its end is missing: who reads on to it reports another error.
            let cut = &bomb[..bomb.len() / 2];
            let refused = Err(DecodeError::TooLarge { output_bytes_max: 1 << 20 });
            assert_eq!(decode(encoding, cut, 1 << 20), refused, "{encoding:?}");
        }
    }

    #[test]
    fn a_zstd_window_is_not_made_as_large_as_it_says() {
        // Magic number, a descriptor without anything, a window of 2^41 bytes, an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0];
        assert!(matches!(decode(Encoding::Zstd, &frame, 100), Err(DecodeError::Corrupt(_))));
    }

    #[test]
    fn zstd_frames_to_be_skipped_are_skipped() {
        let mut body = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'y', b'z'];
        assert_eq!(decode(Encoding::Zstd, &body, 100), Ok(Vec::new()));
        body.extend_from_slice(&encode(Encoding::Zstd, b"m 1\n"));
        assert_eq!(decode(Encoding::Zstd, &body, 100), Ok(b"m 1\n".to_vec()));
        assert_eq!(decode(Encoding::Zstd, &body[..9], 100), Err(DecodeError::Cut));
    }

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Encoding::named(b"GZip"), Some(Encoding::Gzip));
        assert_eq!(Encoding::named(b"snappy"), Some(Encoding::Snappy));
        assert_eq!(Encoding::named(b"zstd"), Some(Encoding::Zstd));
        assert_eq!(Encoding::named(b"br"), None);
        assert_eq!(Encoding::named(b"gzip, snappy"), None);
    }
}
