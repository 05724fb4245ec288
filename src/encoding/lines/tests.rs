//! Other decoders read what the encoder writes.

use std::fmt::Write as _;

use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;

/// An empty last block.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// Decompresses with two decoders that share no code with the encoder nor with each other.
fn inflate(blocks: &[u8], text_len: usize) -> Vec<u8> {
    let stream = [blocks, &LAST_BLOCK].concat();
    let text = miniz_oxide::inflate::decompress_to_vec(&stream).expect("miniz_oxide accepts the stream");
    let mut other = Vec::with_capacity(text_len + 1);
    let status = Decompress::new(false).decompress_vec(&stream, &mut other, FlushDecompress::Finish);
    assert!(matches!(status, Ok(Status::StreamEnd)), "zlib-rs rejects the stream: {status:?}");
    assert!(text == other, "two decoders disagree");
    text
}

fn check(encoder: &mut LineDeflater, text: &[u8]) {
    assert!(inflate(encoder.deflate_always(text), text.len()) == text, "{:?}", String::from_utf8_lossy(text));
    let wanted = encoder.deflate_always(text).to_vec();
    if let Some(blocks) = encoder.deflate(text) {
        assert!(blocks == wanted);
        // Text that is worth it takes little space. The rest are the codes.
        assert!(blocks.len() < text.len() + 700);
    }
}

/// A line that begins like another one, and numbers that grow.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let step = (0..12usize, "[a-c]{0,3}", 0..3u32, "[0-9.e+]{0,9}", 0..40usize);
    (prop::collection::vec(step, 0..120), any::<bool>(), 0..u32::MAX).prop_map(|(steps, ends, mut number)| {
        let mut text = String::new();
        for (kind, label, more, value, keep) in steps {
            number = number.wrapping_add(more);
            let _ = match kind {
                0 => writeln!(text),
                1 => writeln!(text, "{value}"),
                2 => writeln!(text, "# HELP {label} Words with spaces, {value}."),
                3 => write!(text, "{label}"),
                4 => writeln!(text, "m{{long=\"{}\",z=\"{label}\"}} {number}", label.repeat(keep * 40)),
                5 => {
                    let kept = text.lines().last().unwrap_or_default().chars().take(keep).collect::<String>();
                    writeln!(text, "{kept}{value}")
                }
                6 => writeln!(text, "seconds_bucket{{instance=\"{number}\",le=\"{value}\"}} {keep}"),
                7 => writeln!(text, "seconds_sum{{instance=\"{number}\"}} {value}"),
                8 => writeln!(text, ",,,,\",{{{label}}}\" , {value}"),
                _ => writeln!(text, "m_total{{instance=\"host-{number}\",job=\"{label}\"}} {value}"),
            };
        }
        let text = text.into_bytes();
        let end = if ends { text.len() } else { text.len().saturating_sub(3) };
        text[..end].to_vec()
    })
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    let few = prop::sample::select(&b"\n\n ,{\0\xff1"[..]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        prop::collection::vec(few, 0..3000),
        // Repeated, also beyond the largest distance and with line ends that are far apart.
        (prop::collection::vec(any::<u8>(), 0..60), 0..2000usize)
            .prop_map(|(bytes, times)| bytes.repeat(times)),
        (any::<u8>(), 30_000..40_000usize).prop_map(|(byte, len)| {
            let line = [&vec![byte; len][..], b"\n"].concat();
            line.repeat(2)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn lines_are_decoded_to_themselves(texts in prop::collection::vec(lines(), 1..4)) {
        let mut encoder = LineDeflater::default();
        texts.iter().for_each(|text| check(&mut encoder, text));
    }

    #[test]
    fn other_bytes_are_decoded_to_themselves(text in binary()) {
        check(&mut LineDeflater::default(), &text[..text.len().min(TEXT_BYTES_MAX)]);
    }
}

#[test]
fn short_texts_are_decoded_to_themselves() {
    let mut encoder = LineDeflater::default();
    for text in [
        "",
        "\n",
        "a",
        "\n\n\n\n",
        "a 1\na 1",
        "a 1\na 1\n",
        "a 1\n\na 1\n",
        "{ \n{ \n",
        "aaaaaaaaa\naaaaaaaaaaa",
    ] {
        check(&mut encoder, text.as_bytes());
    }
}

#[test]
fn an_exposition_is_compressed_well_and_other_text_left_to_others() {
    let mut encoder = LineDeflater::default();
    let mut text = String::new();
    for host in 0..100 {
        for le in ["0.1", "1", "10", "+Inf"] {
            writeln!(
                text,
                "step_seconds_bucket{{instance=\"host-{host}\",job=\"job{}\",le=\"{le}\"}} {host}",
                host % 20
            )
            .expect("writing to a string cannot fail");
        }
    }
    let len = encoder.deflate(text.as_bytes()).map(<[u8]>::len).expect("are lines");
    assert!(len * 14 < text.len(), "{len} of {}", text.len());

    let mut digits = 1u64;
    let mut noise = Vec::new();
    for _ in 0..10_000 {
        digits = digits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        noise.push((digits >> 56) as u8);
    }
    assert!(encoder.deflate(&noise).is_none());
    assert!(encoder.deflate(b"m 1\n").is_none());
    assert!(encoder.deflate(&b"m 1\n".repeat(TEXT_BYTES_MAX / 4 + 1)).is_none());
}

/// The longest match, and the largest distance with its extra bits.
#[test]
fn lengths_and_distances_at_their_limits_are_decoded() {
    let mut encoder = LineDeflater::default();
    for len in [3, 4, 10, 11, 257, 258, 259, 260, 261, 600, 32_766, 32_767, 32_768] {
        let line = [&vec![b'a'; len][..], b"\n"].concat();
        check(&mut encoder, &line.repeat(2));
        check(&mut encoder, &[&line[..], b"b\n", &line, &line].concat());
    }
}
