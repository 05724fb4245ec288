//! How long a core keeps its tasks waiting, measured by a timer on each core.
//!
//! The delay of a timer is the time for which the core ran other tasks, or for which the operating system ran other threads on its CPU.
//! A sample each [`TICK`] misses most short delays, but finds those that occur again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sleep;

/// How often the delay is measured.
const TICK: Duration = Duration::from_millis(50);
/// A longer delay is logged and counted.
const STALL: Duration = Duration::from_secs(1);
/// A core that has been silent for longer is stuck, which the other cores report.
const STUCK: Duration = Duration::from_secs(10);
/// The longest delay is that of the last [`WINDOWS`] windows, so of the last minute or a little less.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: u64 = 6;

/// The delays of all cores.
#[derive(Debug)]
pub(crate) struct Stalls {
    started: Instant,
    cores: Vec<CoreDelays>,
}

/// The delays of one core. Only the core itself writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CoreDelays {
    /// When the timer last fired, in milliseconds since the start; 0 if it never did.
    ticked_millis: AtomicU64,
    /// A ring of windows, each with its number in the upper half, and its longest delay in microseconds in the lower half.
    windows: [AtomicU64; WINDOWS as usize],
    stalls: AtomicU64,
}

impl Stalls {
    pub(crate) fn new(cores: usize) -> Self {
        Self { started: Instant::now(), cores: (0..cores).map(|_| CoreDelays::default()).collect() }
    }

    /// Measures the delays of the present core, and looks after the next core; without end.
    pub(crate) async fn watch(self: Arc<Self>, core: usize) {
        let next = (core + 1) % self.cores.len();
        let mut next_is_stuck = false;
        loop {
            let due = self.started.elapsed() + TICK;
            sleep(TICK).await;
            let now = self.started.elapsed();
            let delay = now.saturating_sub(due);
            self.cores[core].record(delay, now);
            if delay > STALL {
                tracing::warn!(core, seconds = delay.as_secs_f64(), "a core was stalled");
                // If the whole process was stopped, the others have not run yet, either.
                continue;
            }
            let silence = self.cores[next].silence(now);
            if silence > STUCK && !next_is_stuck {
                tracing::error!(core = next, seconds = silence.as_secs(), "a core is stuck");
            }
            next_is_stuck = silence > STUCK;
        }
    }

    /// The cores' longest delays of the last minute in seconds, and their numbers of stalls.
    pub(crate) fn delays(&self) -> impl Iterator<Item = (f64, u64)> {
        let now = self.started.elapsed();
        self.cores
            .iter()
            .map(move |core| (core.longest(now).as_secs_f64(), core.stalls.load(Ordering::Relaxed)))
    }

    /// A core that has not run its tasks for a long time.
    pub(crate) fn stuck(&self) -> Option<String> {
        let now = self.started.elapsed();
        let silences = self.cores.iter().map(|core| core.silence(now)).enumerate();
        let (core, silence) = silences.max_by_key(|(_, silence)| *silence)?;
        (silence > STUCK).then(|| format!("core {core} has been stuck for {} seconds", silence.as_secs()))
    }
}

impl CoreDelays {
    fn record(&self, delay: Duration, now: Duration) {
        let number = window_number(now);
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        let window = &self.windows[(number % WINDOWS) as usize];
        let old = window.load(Ordering::Relaxed);
        let longest = if old >> 32 == number { micros.max(old & u64::from(u32::MAX)) } else { micros };
        window.store(number << 32 | longest, Ordering::Relaxed);
        if delay > STALL {
            self.stalls.fetch_add(1, Ordering::Relaxed);
        }
        self.ticked_millis.store((now.as_millis() as u64).max(1), Ordering::Relaxed);
    }

    /// The longest delay of the last windows, including one that has not ended.
    fn longest(&self, now: Duration) -> Duration {
        let windows = self.windows.iter().map(|window| window.load(Ordering::Relaxed));
        let recent = windows.filter(|window| (window >> 32) + WINDOWS > window_number(now));
        let longest = recent.map(|window| window & u64::from(u32::MAX)).max().unwrap_or(0);
        Duration::from_micros(longest).max(self.silence(now).saturating_sub(2 * TICK))
    }

    /// The time since the timer last fired; zero before it fired for the first time.
    fn silence(&self, now: Duration) -> Duration {
        match self.ticked_millis.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            ticked => now.saturating_sub(Duration::from_millis(ticked)),
        }
    }
}

fn window_number(now: Duration) -> u64 {
    now.as_secs() / WINDOW.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::spawn;
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_longest_delay_is_that_of_the_last_minute() {
        let core = CoreDelays::default();
        for (delay, now) in [(7, 1_000), (3, 2_000), (2, 35_000)] {
            core.record(millis(delay), millis(now));
        }
        assert_eq!(core.longest(millis(35_001)), millis(7));
        core.record(millis(1), millis(61_000));
        assert_eq!(core.longest(millis(61_001)), millis(2));
        assert_eq!(core.stalls.load(Ordering::Relaxed), 0);
        core.record(millis(10_000_000), millis(62_000));
        assert_eq!(core.stalls.load(Ordering::Relaxed), 1);
        assert!(core.longest(millis(62_001)) > Duration::from_secs(4_000));
    }

    #[test]
    fn a_silent_core_is_stuck_once_it_ran() {
        let core = CoreDelays::default();
        assert_eq!(core.silence(Duration::from_secs(60)), Duration::ZERO);
        core.record(Duration::ZERO, millis(1_000));
        assert_eq!(core.silence(millis(15_000)), millis(14_000));
        assert_eq!(core.longest(millis(15_000)), millis(13_900));
    }

    #[test]
    fn a_core_that_is_held_is_late() {
        run_on_cores(1, DriverChoice::Epoll, |CoreIndex(core)| async move {
            let stalls = Arc::new(Stalls::new(1));
            spawn(stalls.clone().watch(core));
            // The watch has begun and waits for its timer.
            sleep(TICK / 2).await;
            let held = Instant::now();
            while held.elapsed() < 4 * TICK {
                std::hint::spin_loop();
            }
            sleep(2 * TICK).await;
            assert!(stalls.delays().all(|(seconds, _)| seconds > TICK.as_secs_f64()), "{stalls:?}");
            assert_eq!(stalls.stuck(), None);
        })
        .expect("epoll works everywhere");
    }
}
