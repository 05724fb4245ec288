//! State that all threads of a run share: the clock, limits, counters, and the pauses around a kill.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::flags::LoadFlags;
use crate::gateway::Target;
use crate::scenario::Plan;
use crate::schema::Schema;

/// Shared state of a run.
pub struct RunState<'a> {
    /// The gateway.
    pub target: Target,
    /// Groups and bodies.
    pub schema: &'a Schema,
    /// The scenario.
    pub plan: &'a Plan,
    /// Flags that the plan does not include.
    pub load: &'a LoadFlags,
    /// Time 0 of the history.
    pub begin: Instant,
    /// A signal ended the run.
    pub stop: &'a AtomicBool,
    /// Writers start no requests: the gateway is down, or no scrape has shown yet what survived.
    pub writers_paused: AtomicBool,
    /// Scrapers start no requests: the gateway is down.
    pub scrapers_paused: AtomicBool,
    /// Threads that may have a request in flight.
    active_threads: AtomicUsize,
    /// Requests that may still be sent.
    requests_left: AtomicU64,
    /// Responses with a clear outcome, for the progress bar.
    pub answered: AtomicU64,
    /// Other requests, for the progress bar.
    pub failed: AtomicU64,
    /// Successful scrapes.
    pub scrapes: AtomicU64,
}

impl<'a> RunState<'a> {
    /// Starts the clock.
    pub fn new(
        target: Target,
        schema: &'a Schema,
        plan: &'a Plan,
        load: &'a LoadFlags,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            target,
            schema,
            plan,
            load,
            begin: Instant::now(),
            stop,
            writers_paused: AtomicBool::new(false),
            scrapers_paused: AtomicBool::new(false),
            active_threads: AtomicUsize::new(0),
            requests_left: AtomicU64::new(load.count),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            scrapes: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the run began; never 0, which is the time before the first request.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64 + 1
    }

    /// Whether the time of the run has passed, or a signal ended it.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.begin.elapsed() >= self.load.duration
    }

    /// Whether all requests have been sent.
    pub fn is_exhausted(&self) -> bool {
        self.requests_left.load(Ordering::Relaxed) == 0
    }

    /// Reserves one request; false if all have been sent.
    pub fn take_request(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.requests_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Whether no thread has a request in flight.
    pub fn is_idle(&self) -> bool {
        self.active_threads.load(Ordering::SeqCst) == 0
    }
}

/// Marks a thread as active: it may have a request in flight. Unmarked on drop.
///
/// A thread marks itself *before* it looks at a pause flag, and the thread that sets the flag waits for [`RunState::is_idle`]
/// afterwards. So no request can start between the two.
pub struct ActivityMark<'s> {
    active_threads: &'s AtomicUsize,
    is_set: bool,
}

impl<'s> ActivityMark<'s> {
    /// A mark that is not set.
    pub fn new(state: &'s RunState<'_>) -> Self {
        Self { active_threads: &state.active_threads, is_set: false }
    }

    /// Marks the thread as active.
    pub fn set(&mut self) {
        if !self.is_set {
            self.active_threads.fetch_add(1, Ordering::SeqCst);
            self.is_set = true;
        }
    }

    /// Marks the thread as idle.
    pub fn clear(&mut self) {
        if self.is_set {
            self.active_threads.fetch_sub(1, Ordering::SeqCst);
            self.is_set = false;
        }
    }
}

impl Drop for ActivityMark<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A histogram of latencies from 1 µs to 2 minutes with three significant digits.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("the bounds are valid")
}
