//! How fast a client reads a response, sampled by the sweep.

use std::cell::Cell;
use std::time::Duration;

/// The time over which the rate is averaged.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What the client of a connection has read.
#[derive(Debug, Default)]
pub(super) struct ReadRate {
    /// Bytes that the kernel has accepted.
    sent: Cell<u64>,
    /// Bytes that the client's kernel has acknowledged, as of the last sample.
    read: Cell<u64>,
    window: Cell<Option<Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    end_tick: u64,
    read_before: u64,
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It has read something since the last sample, or there is nothing to read.
    Progress,
    /// It has read nothing since the last sample.
    Stalled,
    /// It has read too little in the whole window.
    TooSlow,
}

impl ReadRate {
    /// The kernel has accepted bytes.
    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// A response begins.
    pub(super) fn restart(&self) {
        self.window.set(None);
    }

    /// Takes a sample. `unread` is what the kernel has accepted and the client's kernel has not acknowledged. In a window of
    /// `window_ticks`, the client must read `bytes_min` bytes, or all there is.
    pub(super) fn sample(&self, unread: u64, tick: u64, window_ticks: u64, bytes_min: u64) -> Reading {
        let read = self.sent.get().saturating_sub(unread);
        let before = self.read.replace(read.max(self.read.get()));
        let begin = Window { end_tick: tick.saturating_add(window_ticks), read_before: read };
        let Some(window) = self.window.get().filter(|_| unread > 0) else {
            self.window.set(Some(begin));
            return Reading::Progress;
        };
        if tick >= window.end_tick {
            if read.saturating_sub(window.read_before) < bytes_min {
                return Reading::TooSlow;
            }
            self.window.set(Some(begin));
        }
        if read > before { Reading::Progress } else { Reading::Stalled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rate with so many bytes sent.
    fn rate(sent: usize) -> ReadRate {
        let rate = ReadRate::default();
        rate.add_sent(sent);
        rate
    }

    #[test]
    fn a_client_that_reads_nothing_stalls_and_is_then_too_slow() {
        let rate = rate(1_000);
        let samples: Vec<_> = (0..4).map(|tick| rate.sample(900, tick, 3, 10)).collect();
        assert_eq!(samples, [Reading::Progress, Reading::Stalled, Reading::Stalled, Reading::TooSlow]);
    }

    #[test]
    fn a_client_that_reads_a_little_in_each_window_may_continue() {
        let rate = rate(1_000);
        for tick in 0..50 {
            let reading = rate.sample(900 - 10 * (tick / 3), tick, 3, 10);
            assert_ne!(reading, Reading::TooSlow, "{tick}");
        }
        assert_eq!(rate.sample(900 - 10 * 16, 60, 3, 10), Reading::TooSlow);
    }

    #[test]
    fn a_response_that_waits_for_the_gateway_is_not_slow() {
        let rate = rate(1_000);
        for tick in 0..50 {
            assert_eq!(rate.sample(0, tick, 3, 10), Reading::Progress);
        }
        rate.add_sent(100);
        assert_eq!(rate.sample(100, 50, 3, 10), Reading::Stalled);
        assert_eq!(rate.sample(100, 51, 3, 10), Reading::Stalled);
        rate.restart();
        assert_eq!(rate.sample(100, 90, 3, 10), Reading::Progress, "a new response has a new window");
    }
}
