//! Compressed bodies. The first byte of the input selects the encoding, the second the limit on the output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::encoding::decode::{ALL, DecodeError};
use sluicegate::exposition::memory::Unlimited;

const OUTPUT_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [encoding, limit, body @ ..] = input else { return };
    let encoding = ALL[usize::from(*encoding) % ALL.len()];
    let whole = encoding.decode(body, OUTPUT_BYTES_MAX, &mut Unlimited);
    if let Ok(whole) = &whole {
        assert!(whole.len() <= OUTPUT_BYTES_MAX);
    }
    // A lower limit has no other effect.
    let limit = usize::from(*limit);
    match (encoding.decode(body, limit, &mut Unlimited), whole) {
        (Ok(less), Ok(whole)) => assert!(less == whole && less.len() <= limit),
        (Err(DecodeError::TooLarge { .. }), Ok(whole)) => assert!(whole.len() > limit),
        (Err(_), Err(_)) => {}
        (less, whole) => panic!("limit {limit}: {less:?}, without it: {whole:?}"),
    }
});
