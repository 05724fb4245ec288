//! The deflate encoder for lines. The input is a text, or steps that make lines from earlier ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::encoding::decode::GZIP;
use sluicegate::encoding::gzip::{Deflater, Member};
use sluicegate::encoding::lines::{LineDeflater, TEXT_BYTES_MAX};
use sluicegate::exposition::memory::Unlimited;

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let text = if kind % 2 == 0 { rest.to_vec() } else { lines(rest) };

    let blocks = LineDeflater::default().deflate_always(&text).to_vec();
    // An empty last block.
    let stream = [&blocks[..], &[3, 0]].concat();
    let other = miniz_oxide::inflate::decompress_to_vec(&stream).expect("miniz_oxide reads the stream");
    assert!(other == text, "miniz_oxide reads {:?}", String::from_utf8_lossy(&other));

    // The encoder's buffers are reused; zlib-rs decodes, and checks the checksum.
    let mut deflater = Deflater::new();
    let (first, second) = text.split_at(text.len() / 2);
    let mut member = Member::default();
    for part in [first, second, &text] {
        member.push(&deflater.deflate(part));
    }
    let sent = GZIP.decode(&member.finish().concat(), usize::MAX, &mut Unlimited).expect("zlib-rs reads the member");
    assert!(sent == text.repeat(2), "zlib-rs reads {:?}", String::from_utf8_lossy(&sent));
});

/// Each step of two bytes copies a part of an earlier line, or adds a byte, a number or a line end.
fn lines(steps: &[u8]) -> Vec<u8> {
    let mut text = b"m_bucket{job=\"a\",le=\"1\"} 1\n".to_vec();
    for step in steps.chunks_exact(2) {
        if text.len() + 4096 > TEXT_BYTES_MAX {
            break;
        }
        let operand = usize::from(step[1]);
        match step[0] % 8 {
            0 => text.push(step[1]),
            1 => text.extend_from_slice(operand.to_string().as_bytes()),
            2 => text.extend_from_slice(b"\"} "),
            3 => text.push(b'\n'),
            4 => text.extend(std::iter::repeat_n(step[1], 16 * operand)),
            kind => {
                // What follows one of the last line ends.
                let nth = usize::from(kind - 5) * 3 + usize::from(step[0] >> 6);
                let end = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(nth);
                let start = end.map_or(0, |(at, _)| at + 1);
                let copied = text[start..].iter().copied().take(operand).collect::<Vec<_>>();
                text.extend_from_slice(&copied);
            }
        }
    }
    text
}
