//! What a scraper says it takes.
#![no_main]

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use sluicegate::api::scrape::accepts_gzip;

fuzz_target!(|value: &[u8]| {
    let Ok(header) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, header);
    let named = value.to_ascii_lowercase().windows(4).any(|word| word == b"gzip");
    assert!(named || !accepts_gzip(&headers), "an encoding is sent that nobody asked for");
});
