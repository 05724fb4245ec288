//! Signals, and shutting down: one handle that every core awaits, requested by SIGTERM, SIGINT or a call.
//!
//! Signals that are not named here keep their default effect. SIGQUIT, for example, ends the program with a core dump.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::service_manager;
use crate::telemetry::{faults, log};

/// A request to end the program, shared by all its clones. It cannot be withdrawn.
#[derive(Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requested: AtomicBool,
    event: Event,
}

impl Shutdown {
    /// A handle on which no shutdown is requested.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Requests the shutdown, from any thread. Further calls do nothing.
    pub fn request(&self) {
        self.shared.requested.store(true, Ordering::SeqCst);
        self.shared.event.notify(usize::MAX);
    }

    /// Whether the shutdown was requested.
    pub(crate) fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::SeqCst)
    }

    /// Waits for the request; on any core.
    pub(crate) async fn requested(&self) {
        while !self.is_requested() {
            let listener = self.shared.event.listen();
            // A request between the first check and listen() would be missed, hence the second check.
            if self.is_requested() {
                return;
            }
            listener.await;
        }
    }

    /// Requests the shutdown at the first SIGTERM or SIGINT. A second signal exits at once with status 1, for an operator who does not want
    /// to wait for the drain. SIGHUP calls `on_hangup`; it never ends the program, not even at the end of a terminal session.
    ///
    /// # Errors
    /// If the signal handlers or the thread that waits for signals cannot be set up.
    pub fn request_on_signals(&self, on_hangup: impl Fn() + Send + 'static) -> io::Result<()> {
        let unattended = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_default(signal, unattended.clone())?;
        }
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let shutdown = self.clone();
        let attended = Attended { unattended };
        faults::spawn("signals", move || {
            let _attended = attended;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    service_manager::around_reload(&on_hangup);
                } else {
                    shutdown.handle(signal);
                }
            }
        })?;
        Ok(())
    }

    fn handle(&self, signal: c_int) {
        let signal = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
        if self.is_requested() {
            tracing::warn!(signal, "second signal; exiting at once");
            log::exit(1);
        }
        self.request();
        tracing::info!(signal, "received SIGINT/SIGTERM; exiting gracefully...");
    }
}

/// Held by the thread that waits for signals. Without the thread, SIGTERM and SIGINT have their default effect, because nobody would
/// react to them.
struct Attended {
    unattended: Arc<AtomicBool>,
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.unattended.store(true, Ordering::SeqCst);
    }
}

/// Lets a write beyond the limit of file sizes (`ulimit -f`) fail with an error, which the store and the log handle, instead of
/// ending the program.
///
/// # Errors
/// If the signal handler cannot be set up.
pub fn survive_file_size_limit() -> io::Result<()> {
    // A handler that does nothing would do; this is the simplest one that needs no unsafe code.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Shutdown;
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};

    #[test]
    fn a_request_reaches_present_and_future_waiters() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            let shutdown = Shutdown::new();
            let waiting = shutdown.clone();
            let requester = std::thread::spawn({
                let shutdown = shutdown.clone();
                move || {
                    std::thread::sleep(Duration::from_millis(50));
                    shutdown.request();
                }
            });
            run_on_cores(3, choice, move |CoreIndex(index)| {
                let waiting = waiting.clone();
                async move {
                    // The last core waits only after the others were woken.
                    crate::runtime::sleep(Duration::from_millis(if index == 2 { 100 } else { 0 })).await;
                    waiting.requested().await;
                }
            })
            .expect("epoll works everywhere");
            assert!(shutdown.is_requested());
            requester.join().expect("the thread does not panic");
        }
    }
}
