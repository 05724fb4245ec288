//! The bar with live rates.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::run::writers::Shared;

/// A bar on stderr while a run lasts; nothing if stderr is no terminal.
pub struct Progress {
    bar: ProgressBar,
    shown: Cell<(Instant, u64, u64)>,
}

impl Progress {
    /// Begins it.
    pub fn new(shared: &Shared<'_>, quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(shared.load.duration.as_millis() as u64)
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar, shown: Cell::new((Instant::now(), 0, 0)) }
    }

    /// Brings it up to date.
    pub fn show(&self, shared: &Shared<'_>) {
        let (time, pushes, scrapes) = self.shown.get();
        let seconds = time.elapsed().as_secs_f64();
        if seconds < 0.5 {
            return;
        }
        let now = (shared.pushes.load(Ordering::Relaxed), shared.scrapes.load(Ordering::Relaxed));
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        self.bar.set_position(shared.begin.elapsed().as_millis() as u64);
        self.bar.set_message(format!(
            "{:.0} pushes/s, {:.1} scrapes/s, {} pushes, {} failed",
            rate(now.0, pushes),
            rate(now.1, scrapes),
            now.0,
            shared.errors.load(Ordering::Relaxed)
        ));
        self.shown.set((Instant::now(), now.0, now.1));
    }

    /// Takes it away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
