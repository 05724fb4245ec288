//! The progress of a `storage` command, shown only on a terminal.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sluicegate_store_tools::Phase;

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// A progress bar on stderr, if stderr is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    phase: AtomicU8,
}

impl Progress {
    /// `bytes` is the size of the store's files, an estimate of what will be read: nearly all of it is records.
    pub(super) fn new(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let style = "{msg:24} {wide_bar} {bytes} of about {total_bytes}, {elapsed}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(REDRAW_INTERVAL);
        Self { bar, phase: AtomicU8::new(u8::MAX) }
    }

    /// Adds a record of some bytes.
    pub(super) fn add(&self, phase: Phase, bytes: u64) {
        if self.phase.swap(phase as u8, Ordering::Relaxed) != phase as u8 {
            self.bar.set_message(phase_text(phase));
            self.bar.set_position(0);
        }
        self.bar.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::ReadSource => "reading",
        Phase::ReadTarget => "reading the target",
        Phase::Copy => "copying",
        Phase::Check => "reading the copy",
    }
}
