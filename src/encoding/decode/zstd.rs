//! Decodes zstd bodies.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{DecodeError, Output};

/// The largest window, in bytes, that a zstd decoder over HTTP must support (RFC 9659).
const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// Output between two checks of the limit, in bytes.
const STEP_BYTES: usize = 128 << 10;

pub(super) fn decode(mut body: &[u8], output: &mut Output<'_>) -> Result<(), DecodeError> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_BYTES_MAX);
    while !body.is_empty() {
        match decoder.reset(&mut body) {
            Ok(()) => decode_frame(&mut decoder, &mut body, output)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                body = body.get(length as usize..).ok_or(DecodeError::Truncated)?;
            }
            Err(error) => return Err(decode_error(body, &error)),
        }
    }
    Ok(())
}

fn decode_frame(
    decoder: &mut FrameDecoder,
    body: &mut &[u8],
    output: &mut Output<'_>,
) -> Result<(), DecodeError> {
    let start = output.text.len();
    let mut decoded_bytes_min = 0;
    while !decoder.is_finished() {
        let step = BlockDecodingStrategy::UptoBytes(STEP_BYTES);
        decoder.decode_blocks(&mut *body, step).map_err(|error| decode_error(body, &error))?;
        output.reserve(decoder.can_collect())?;
        decoder
            .collect_to_writer(&mut output.text)
            .map_err(|error| DecodeError::Corrupt(error.to_string()))?;
        if !decoder.is_finished() {
            decoded_bytes_min += STEP_BYTES;
        }
        // The decoder returns nothing until it has more than the window.
        output.check((start + decoded_bytes_min).saturating_sub(output.text.len()))?;
    }
    // The decoder computes the checksum but does not compare it.
    let expected = decoder.get_checksum_from_data();
    if expected.is_some() && expected != decoder.get_calculated_checksum() {
        return Err(DecodeError::Corrupt("checksum mismatch".to_owned()));
    }
    let expected_len = decoder.content_size();
    if expected_len != 0 && expected_len != (output.text.len() - start) as u64 {
        return Err(DecodeError::Corrupt("content size mismatch".to_owned()));
    }
    Ok(())
}

/// A decoder that fails with no input left ran out of input.
fn decode_error(rest: &[u8], error: &FrameDecoderError) -> DecodeError {
    if rest.is_empty() { DecodeError::Truncated } else { DecodeError::Corrupt(error.to_string()) }
}
