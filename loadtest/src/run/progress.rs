//! The progress bar with live rates.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::shared::RunState;

/// Time between updates; the rates are averages over it.
const INTERVAL: Duration = Duration::from_millis(500);

/// A bar on stderr; invisible if stderr is no terminal.
pub struct Progress {
    bar: ProgressBar,
    shown: Cell<Shown>,
}

/// The counters at the last update.
#[derive(Clone, Copy)]
struct Shown {
    time: Instant,
    answered: u64,
    scrapes: u64,
}

impl Progress {
    /// Shows the bar, unless `quiet`.
    pub fn new(state: &RunState<'_>, quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(state.load.duration.as_millis() as u64)
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar, shown: Cell::new(Shown { time: Instant::now(), answered: 0, scrapes: 0 }) }
    }

    /// Updates the bar if it is due.
    pub fn update(&self, state: &RunState<'_>) {
        let shown = self.shown.get();
        let elapsed = shown.time.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        let answered = state.answered.load(Ordering::Relaxed);
        let scrapes = state.scrapes.load(Ordering::Relaxed);
        let rate = |now: u64, before: u64| (now - before) as f64 / elapsed.as_secs_f64();
        self.bar.set_position(state.begin.elapsed().as_millis() as u64);
        self.bar.set_message(format!(
            "{:.0} pushes/s, {:.1} scrapes/s, {answered} pushes, {} failed",
            rate(answered, shown.answered),
            rate(scrapes, shown.scrapes),
            state.failed.load(Ordering::Relaxed)
        ));
        self.shown.set(Shown { time: Instant::now(), answered, scrapes });
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
