//! Hashes that clients cannot predict: their seed is random, and new in every process.
//!
//! Nothing that outlives the process may depend on them. A store places its records by a hash of its own.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

static SEED: LazyLock<u64> = LazyLock::new(|| std::hash::RandomState::new().hash_one(0));

pub(crate) fn hash_64(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, *SEED)
}

pub(crate) fn hash_128(bytes: &[u8]) -> u128 {
    xxh3_128_with_seed(bytes, *SEED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_compute_the_hashes() {
        assert_ne!(hash_64(b"job=\"a\""), xxhash_rust::xxh3::xxh3_64(b"job=\"a\""));
        assert_ne!(hash_128(b"job=\"a\""), xxhash_rust::xxh3::xxh3_128(b"job=\"a\""));
        assert_eq!(hash_64(b"job=\"a\""), hash_64(b"job=\"a\""));
    }
}
