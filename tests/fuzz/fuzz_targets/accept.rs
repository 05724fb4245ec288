//! What a scraper says it takes. A line feed stands between `Accept` and `Accept-Encoding`.
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
        Coding::Gzip => assert!(names(coding, "gzip"), "gzip is sent that nobody asked for"),
        Coding::Zstd => assert!(names(coding, "zstd"), "zstd is sent that nobody asked for"),
    }
    let (format, escaping) = negotiate::format(&headers);
    assert!(format == Format::Text || names(accept, "delimited"), "protobuf is sent that nobody asked for");
    assert!(escaping == Escaping::Underscores || names(accept, escaping.name()));
    assert!(!negotiate::content_type(format, escaping).is_empty());
});
