//! A token bucket that all cores share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::web_config::RateLimit;

/// A bucket of `burst` tokens, full at the start, that gains one per interval.
///
/// It is kept as the time at which it will be full again, which makes taking a token one exchange of a number.
#[derive(Debug)]
pub(super) struct TokenBucket {
    start: Instant,
    interval_nanos: u64,
    /// How long an empty bucket takes to become full.
    capacity_nanos: u64,
    /// When the bucket is full, in nanoseconds since the start.
    full_at: AtomicU64,
}

impl TokenBucket {
    pub(super) fn new(limit: RateLimit) -> Self {
        let interval_nanos = u64::try_from(limit.interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            start: Instant::now(),
            interval_nanos,
            capacity_nanos: interval_nanos.saturating_mul(limit.burst),
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&self) -> bool {
        self.take_at(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn take_at(&self, now_nanos: u64) -> bool {
        let take = |full_at: u64| {
            let full_at = full_at.max(now_nanos).checked_add(self.interval_nanos)?;
            (full_at - now_nanos <= self.capacity_nanos).then_some(full_at)
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn bucket(interval_nanos: u64, burst: u64) -> TokenBucket {
        TokenBucket::new(RateLimit { interval: Duration::from_nanos(interval_nanos), burst })
    }

    #[test]
    fn without_burst_no_request_is_allowed() {
        let bucket = bucket(1_000, 0);
        assert!(!bucket.take_at(0) && !bucket.take_at(1_000_000));
    }

    #[test]
    fn a_burst_of_any_size_does_not_overflow() {
        let bucket = bucket(u64::MAX, u64::MAX);
        assert!(bucket.take_at(0));
        assert!(!bucket.take_at(1), "it will be full after the end of time");
    }

    proptest! {
        /// The reference counts tokens, in parts of an interval.
        #[test]
        fn takes_as_many_tokens_as_a_bucket_has(
            interval in 1_u64..20, burst in 0_u64..5, waits in prop::collection::vec(0_u64..30, 0..200),
        ) {
            let bucket = bucket(interval, burst);
            let (mut now, mut parts) = (0, burst * interval);
            for wait in waits {
                now += wait;
                parts = (parts + wait).min(burst * interval);
                let expected = parts >= interval;
                if expected {
                    parts -= interval;
                }
                prop_assert_eq!(bucket.take_at(now), expected);
            }
        }
    }
}
