//! Compressed bodies. The first byte chooses the encoding, the second how much may come out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::encoding::decode::{DecodeError, Encoding, decode};

const ENCODINGS: [Encoding; 3] = [Encoding::Gzip, Encoding::Snappy, Encoding::Zstd];
const OUTPUT_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [encoding, limit, body @ ..] = input else { return };
    let encoding = ENCODINGS[usize::from(*encoding) % ENCODINGS.len()];
    let whole = decode(encoding, body, OUTPUT_BYTES_MAX);
    if let Ok(whole) = &whole {
        assert!(whole.len() <= OUTPUT_BYTES_MAX);
    }
    // A lower limit changes nothing but that.
    let limit = usize::from(*limit);
    match (decode(encoding, body, limit), whole) {
        (Ok(less), Ok(whole)) => assert!(less == whole && less.len() <= limit),
        (Err(DecodeError::TooLarge { .. }), Ok(whole)) => assert!(whole.len() > limit),
        (Err(_), Err(_)) => {}
        (less, whole) => panic!("limit {limit}: {less:?}, without: {whole:?}"),
    }
});
