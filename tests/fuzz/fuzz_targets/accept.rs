//! Content negotiation of scrapes. The input is `Accept` and `Accept-Encoding`, separated by a line feed.
#![no_main]

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use sluicegate::encoding::encode::Coding;
use sluicegate::exposition::Format;
use sluicegate::exposition::escape::Escaping;
use sluicegate::scrape::negotiate;

fuzz_target!(|input: &[u8]| {
    let (accept, coding) = match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, input),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [(ACCEPT, accept), (ACCEPT_ENCODING, coding)] {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.insert(name, value);
    }
    let names = |value: &[u8], word: &str| {
        value.to_ascii_lowercase().windows(word.len()).any(|bytes| bytes == word.as_bytes())
    };
    match negotiate::coding(&headers) {
        Coding::Identity => {}
        Coding::Gzip => assert!(names(coding, "gzip"), "gzip is not in Accept-Encoding"),
        Coding::Zstd => assert!(names(coding, "zstd"), "zstd is not in Accept-Encoding"),
    }
    let (format, escaping) = negotiate::format(&headers);
    assert!(format == Format::Text || names(accept, "delimited"), "protobuf is not in Accept");
    assert!(escaping == Escaping::Underscores || names(accept, escaping.name()));
    assert!(!negotiate::content_type(format, escaping).is_empty());
});
