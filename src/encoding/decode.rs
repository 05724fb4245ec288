//! Decodes request bodies: gzip, framed snappy and zstd.
//!
//! A stream that ends early is an error, because half a push must not pass for a whole one. The caller limits the output,
//! and memory grows with the output rather than with what the stream announces. gzip and snappy behave as in the official
//! Pushgateway; zstd is an addition of this gateway.
//!
//! To add an encoding, declare a [`ContentEncoding`], with its decoder in a file of its own unless it is a single call
//! (see `decode/zstd.rs`), and add it to [`ALL`]. The handler, the tests and the fuzz target take the list from there.

mod zstd;

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

use crate::exposition::memory::{Memory, OutOfMemory};

/// gzip: one or more members (RFC 1952). Any other bytes after a member are an error, even zeros, as in the official
/// Pushgateway.
pub static GZIP: ContentEncoding =
    ContentEncoding { name: "gzip", decoder: |body, output| output.read_all(MultiGzDecoder::new(body)) };

/// snappy: the framed stream, not the block format.
static SNAPPY: ContentEncoding = ContentEncoding {
    name: "snappy",
    decoder: |body, output| output.read_all(snap::read::FrameDecoder::new(body)),
};

/// zstd: one or more frames (RFC 8878), with windows of up to 8 MiB as RFC 9659 requires over HTTP.
pub(crate) static ZSTD: ContentEncoding = ContentEncoding { name: "zstd", decoder: zstd::decode };

/// All encodings of request bodies.
pub static ALL: [&ContentEncoding; 3] = [&GZIP, &SNAPPY, &ZSTD];

/// An encoding of request bodies.
#[derive(Debug)]
pub struct ContentEncoding {
    name: &'static str,
    decoder: fn(&[u8], &mut Output<'_>) -> Result<(), DecodeError>,
}

impl ContentEncoding {
    /// Finds the encoding by its name in `Content-Encoding`, in any case.
    pub fn named(name: &[u8]) -> Option<&'static Self> {
        ALL.into_iter().find(|encoding| encoding.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The name in `Content-Encoding`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Decodes a whole body into at most `output_bytes_max` bytes, which it reserves from `memory` while it decodes.
    ///
    /// # Errors
    /// The stream is truncated or corrupt, also after its first member or frame, or the output exceeds the limit or the memory.
    /// No more than that is decoded (zstd: than that and one step).
    pub fn decode(
        &self,
        body: &[u8],
        output_bytes_max: usize,
        memory: &mut dyn Memory,
    ) -> Result<Vec<u8>, DecodeError> {
        let mut output = Output { text: Vec::new(), bytes_max: output_bytes_max, memory };
        (self.decoder)(body, &mut output)?;
        Ok(output.text)
    }
}

/// Why a body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The stream ends early, or is empty although its format needs bytes.
    #[error("unexpected end of stream")]
    Truncated,
    /// The bytes have another format, are damaged, or do not match their checksum. Contains the decoder's message.
    #[error("{0}")]
    Corrupt(String),
    /// The output exceeds the limit.
    #[error("output exceeds {output_bytes_max} bytes")]
    TooLarge {
        /// The limit.
        output_bytes_max: usize,
    },
    /// The output does not fit into the memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// What has been decoded, and how much more may be.
struct Output<'m> {
    text: Vec<u8>,
    bytes_max: usize,
    memory: &'m mut dyn Memory,
}

/// The first capacity of an output in bytes; the output of a typical body fits.
const FIRST_BYTES: usize = 8 << 10;

impl Output<'_> {
    /// Makes room for more bytes.
    fn reserve(&mut self, bytes: usize) -> Result<(), DecodeError> {
        let (len, capacity) = (self.text.len(), self.text.capacity());
        if capacity - len >= bytes {
            return Ok(());
        }
        // A large text grows by less than twice, because the memory for it is taken at once.
        let ahead = if len < 1 << 20 { len.max(FIRST_BYTES) } else { len / 4 };
        let more = ahead.min(self.bytes_max.saturating_sub(len).saturating_add(1)).max(bytes);
        self.memory.grow(len + more - capacity)?;
        self.text.reserve_exact(more);
        Ok(())
    }

    /// Checks the limit, with bytes that were decoded but not appended yet.
    fn check(&self, pending_bytes: usize) -> Result<(), DecodeError> {
        let output_bytes_max = self.bytes_max;
        if self.text.len().saturating_add(pending_bytes) > output_bytes_max {
            Err(DecodeError::TooLarge { output_bytes_max })
        } else {
            Ok(())
        }
    }

    fn read_all(&mut self, mut decoder: impl Read) -> Result<(), DecodeError> {
        loop {
            // One byte beyond the limit proves that it is exceeded.
            self.reserve(1)?;
            let room = (self.text.capacity() - self.text.len()) as u64;
            let read = decoder.by_ref().take(room).read_to_end(&mut self.text);
            let read = read.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
                _ => DecodeError::Corrupt(error.to_string()),
            })?;
            self.check(0)?;
            if (read as u64) < room {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;
    use crate::exposition::memory::Unlimited;

    fn encode(encoding: &ContentEncoding, text: &[u8]) -> Vec<u8> {
        match encoding.name {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
                encoder.write_all(text).expect("a vector grows as needed");
                encoder.finish().expect("a vector grows as needed")
            }
            "snappy" => {
                let mut encoder = snap::write::FrameEncoder::new(Vec::new());
                encoder.write_all(text).expect("a vector grows as needed");
                encoder.into_inner().expect("a vector grows as needed")
            }
            "zstd" => compress_to_vec(text, CompressionLevel::Fastest),
            unknown => panic!("the test cannot encode {unknown}"),
        }
    }

    fn encodings() -> impl Strategy<Value = &'static ContentEncoding> {
        prop::sample::select(&ALL[..])
    }

    proptest! {
        #[test]
        fn concatenated_streams_are_one_body(
            encoding in encodings(),
            texts in prop::collection::vec(prop::collection::vec(b'a'..=b'd', 0..3000), 1..4),
        ) {
            let body: Vec<u8> = texts.iter().flat_map(|text| encode(encoding, text)).collect();
            let len = texts.concat().len();
            prop_assert_eq!(encoding.decode(&body, len, &mut Unlimited), Ok(texts.concat()));
            if len > 0 {
                prop_assert_eq!(
                    encoding.decode(&body, len - 1, &mut Unlimited),
                    Err(DecodeError::TooLarge { output_bytes_max: len - 1 })
                );
            }
        }

        #[test]
        fn arbitrary_and_damaged_bodies_do_not_panic(
            encoding in encodings(),
            body in prop::collection::vec(any::<u8>(), 0..300),
            at: prop::sample::Index,
            flip: u8,
        ) {
            let _ = encoding.decode(&body, 1000, &mut Unlimited);
            let mut damaged = encode(encoding, b"m{zone=\"eu\"} 1\nm{zone=\"us\"} 2\nm{zone=\"eu-east\"} 1\n");
            damaged.extend_from_slice(&body);
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            let _ = encoding.decode(&damaged, 1000, &mut Unlimited);
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        for encoding in ALL {
            let body = encode(encoding, b"m 1\nn 2\n");
            for end in 1..body.len() {
                // A snappy stream may end after every chunk; the stream identifier is a chunk of 10 bytes.
                if encoding.name == "snappy" && end == 10 {
                    continue;
                }
                let cut = encoding.decode(&body[..end], 100, &mut Unlimited);
                assert_eq!(cut, Err(DecodeError::Truncated), "{encoding:?} cut after {end} bytes");
            }
            // A second stream after a whole one is truncated.
            let two = [body.clone(), body.clone()].concat();
            for end in body.len() + 1..two.len() {
                if encoding.name == "snappy" && end == body.len() + 10 {
                    continue;
                }
                let cut = encoding.decode(&two[..end], 100, &mut Unlimited);
                assert_eq!(cut, Err(DecodeError::Truncated), "{encoding:?} cut after {end} bytes");
            }
        }
    }

    #[test]
    fn an_empty_body_is_valid_except_for_gzip() {
        assert_eq!(GZIP.decode(b"", 100, &mut Unlimited), Err(DecodeError::Truncated));
        assert_eq!(SNAPPY.decode(b"", 100, &mut Unlimited), Ok(Vec::new()));
        assert_eq!(ZSTD.decode(b"", 100, &mut Unlimited), Ok(Vec::new()));
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        for (encoding, ends) in [(&GZIP, 8), (&SNAPPY, 8), (&ZSTD, 4)] {
            let body = encode(encoding, b"m 1\nn 2\n");
            for at in body.len() - ends..body.len() {
                let mut damaged = body.clone();
                damaged[at] ^= 1;
                let damaged = encoding.decode(&damaged, 100, &mut Unlimited);
                assert!(
                    matches!(damaged, Err(DecodeError::Corrupt(_))),
                    "{encoding:?} byte {at}: {damaged:?}"
                );
            }
        }
    }

    #[test]
    fn garbage_after_a_stream_is_an_error() {
        for encoding in ALL {
            let body = encode(encoding, b"m 1\n");
            for garbage in [b"\0".as_slice(), b"\0\0\0\0\0\0\0\0\0\0\0\0", b"x", b"some more text"] {
                assert!(
                    encoding.decode(&[body.as_slice(), garbage].concat(), 100, &mut Unlimited).is_err(),
                    "{garbage:?}"
                );
            }
            assert!(encoding.decode(b"m 1\nm is nothing but text\n", 100, &mut Unlimited).is_err());
        }
    }

    #[test]
    fn rejects_the_block_format_of_snappy() {
        let block = snap::raw::Encoder::new().compress_vec(b"m 1\n").expect("short");
        assert!(SNAPPY.decode(&block, 100, &mut Unlimited).is_err());
    }

    #[test]
    fn a_decompression_bomb_is_not_inflated() {
        for encoding in ALL {
            let bomb = encode(encoding, &vec![b'\n'; 16 << 20]);
            // A decoder that read the whole body would report that it is truncated.
            let half = &bomb[..bomb.len() / 2];
            let too_large = Err(DecodeError::TooLarge { output_bytes_max: 1 << 20 });
            assert_eq!(encoding.decode(half, 1 << 20, &mut Unlimited), too_large, "{encoding:?}");
        }
    }

    #[test]
    fn rejects_a_zstd_window_beyond_the_limit() {
        // Magic number, an empty descriptor, a window of 2^41 bytes, an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0];
        assert!(matches!(ZSTD.decode(&frame, 100, &mut Unlimited), Err(DecodeError::Corrupt(_))));
    }

    #[test]
    fn skippable_zstd_frames_are_skipped() {
        let mut body = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'y', b'z'];
        assert_eq!(ZSTD.decode(&body, 100, &mut Unlimited), Ok(Vec::new()));
        body.extend_from_slice(&encode(&ZSTD, b"m 1\n"));
        assert_eq!(ZSTD.decode(&body, 100, &mut Unlimited), Ok(b"m 1\n".to_vec()));
        assert_eq!(ZSTD.decode(&body[..9], 100, &mut Unlimited), Err(DecodeError::Truncated));
    }

    #[test]
    fn names_match_in_any_case() {
        let named = |name: &[u8]| ContentEncoding::named(name).map(ContentEncoding::name);
        assert_eq!(named(b"GZip"), Some("gzip"));
        assert_eq!(named(b"snappy"), Some("snappy"));
        assert_eq!(named(b"zstd"), Some("zstd"));
        assert_eq!(named(b"br"), None);
        assert_eq!(named(b"gzip, snappy"), None);
    }
}
