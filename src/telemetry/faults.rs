//! Helper threads, and what `/-/healthy` says about their panics.
//!
//! A *helper* is every thread that is not a core: workers, the writer of the store, the log, signals. All of them are started by
//! [`spawn`], so that no panic goes unnoticed:
//!
//! * A panic that ends its thread makes the gateway unhealthy until a restart, because nobody does the thread's work any more.
//! * A panic in one job of a thread that goes on ([`contain`]) makes the gateway unhealthy for [`CONTAINED_SHOWN`]. Monitoring sees
//!   it, and only repeated panics reach the threshold at which an orchestrator restarts the gateway, which loses groups that are
//!   only in memory.
//! * A panic in a thread of a storage engine ([`notice`]) has the same effect. Only the engine knows whether the thread goes on, so
//!   the engine reports what it cannot do any more.
//!
//! A panic on a core aborts the program, see `runtime::threads`.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::own_metric::OwnMetric;
use super::process::family;
use super::recorder::OwnFamily;

/// How long a contained panic makes the gateway unhealthy. Kubernetes restarts a container after three failures ten seconds apart,
/// unless told otherwise.
pub const CONTAINED_SHOWN: Duration = Duration::from_secs(15);
/// Longer texts of panics are cut, because they may contain what a client sent.
const TEXT_CHARS_MAX: usize = 200;

const PANICS: OwnMetric = OwnMetric::counter(
    "sluicegate_helper_panics_total",
    "Total number of panics of helper threads: workers, the log, signals, the writer of the store and threads of its engine.",
);

pub(crate) const METRICS: &[OwnMetric] = &[PANICS];

static FAULTS: Mutex<Faults> = Mutex::new(Faults::new());

thread_local! {
    /// Whether [`spawn`] started this thread, which then reports its own panics.
    static IS_HELPER: Cell<bool> = const { Cell::new(false) };
}

/// Starts a helper thread.
///
/// # Errors
/// If the operating system cannot start a thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        IS_HELPER.set(true);
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
            let fault = describe(&*payload);
            tracing::error!(%fault, "a helper thread has ended; restart the gateway");
            faults().ended(fault);
            resume_unwind(payload)
        })
    })
}

/// Runs a job of a thread that goes on if the job panics. The caller restores what the job may have left half done.
///
/// # Errors
/// The text of the panic, with the name of the thread.
pub fn contain<T>(job: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|payload| {
        let fault = describe(&*payload);
        tracing::error!(%fault, "a job panicked; its thread goes on");
        faults().contained(fault.clone(), Instant::now());
        fault
    })
}

/// Records a panic of a thread that [`spawn`] did not start. Called by the panic hook, so it also sees panics that the thread catches.
pub(super) fn notice(payload: &(dyn Any + Send)) {
    if !IS_HELPER.get() {
        faults().contained(describe(payload), Instant::now());
    }
}

/// Why the gateway is unhealthy; `None` if no helper has ended and none panicked recently.
pub fn unhealthy() -> Option<String> {
    faults().unhealthy(Instant::now())
}

/// The families of this module with their values.
pub(super) fn families() -> Vec<OwnFamily> {
    vec![family(PANICS, faults().panics as f64)]
}

fn faults() -> MutexGuard<'static, Faults> {
    FAULTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Faults {
    panics: u64,
    /// The first panic that ended a helper.
    ended: Option<String>,
    /// The last contained panic.
    contained: Option<(String, Instant)>,
}

impl Faults {
    const fn new() -> Self {
        Self { panics: 0, ended: None, contained: None }
    }

    fn ended(&mut self, fault: String) {
        self.panics += 1;
        self.ended.get_or_insert(fault);
    }

    fn contained(&mut self, fault: String, now: Instant) {
        self.panics += 1;
        self.contained = Some((fault, now));
    }

    fn unhealthy(&self, now: Instant) -> Option<String> {
        let recent = self.contained.as_ref().filter(|(_, at)| now.duration_since(*at) < CONTAINED_SHOWN);
        self.ended.as_ref().or(recent.map(|(fault, _)| fault)).cloned()
    }
}

/// `thread worker-0 panicked: index out of bounds`.
fn describe(payload: &(dyn Any + Send)) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let text: String = panic_text(payload).chars().take(TEXT_CHARS_MAX).collect();
    format!("thread {name} panicked: {text}")
}

/// The message of a panic.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown cause")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_helper_is_shown_until_a_restart_and_a_contained_panic_for_a_while() {
        let mut faults = Faults::new();
        let now = Instant::now();
        assert_eq!(faults.unhealthy(now), None);
        faults.contained("a job".to_owned(), now);
        assert_eq!(faults.unhealthy(now).as_deref(), Some("a job"));
        assert_eq!(faults.unhealthy(now + CONTAINED_SHOWN), None);
        faults.ended("a thread".to_owned());
        faults.ended("another thread".to_owned());
        assert_eq!(faults.unhealthy(now + 2 * CONTAINED_SHOWN).as_deref(), Some("a thread"));
        assert_eq!(faults.panics, 3);
    }

    #[test]
    fn the_panic_of_a_helper_makes_the_gateway_unhealthy_and_is_returned_by_join() {
        let helper = spawn("helper", || panic!("on {}", "purpose")).expect("a thread");
        assert!(helper.join().is_err());
        assert!(unhealthy().is_some_and(|fault| fault.contains("panicked: on purpose")));
        assert!(faults().panics >= 1);
    }

    #[test]
    fn a_contained_panic_leaves_the_thread_running() {
        let helper = spawn("goes-on", || (contain(|| -> u32 { panic!("on purpose") }), contain(|| 7)));
        let (panicked, result) = helper.expect("a thread").join().expect("it goes on");
        assert_eq!(panicked, Err("thread goes-on panicked: on purpose".to_owned()));
        assert_eq!(result, Ok(7));
        assert!(unhealthy().is_some());
    }

    #[test]
    fn a_panic_is_noticed_unless_its_thread_reports_it() {
        let noticed = |text: &str| {
            notice(&text.to_owned());
            faults().contained.clone().is_some_and(|(fault, _)| fault.contains(text))
        };
        // Other tests panic at the same time, and only the last panic is kept.
        assert!((0..100).any(|_| noticed("by the hook")));
        let helper = spawn("helper", move || noticed("by the thread")).expect("a thread");
        assert!(!helper.join().expect("no panic"));
    }

    #[test]
    fn long_texts_are_cut() {
        let text = describe(&"ü".repeat(2 * TEXT_CHARS_MAX));
        assert!(
            text.ends_with(&"ü".repeat(TEXT_CHARS_MAX)) && !text.contains(&"ü".repeat(TEXT_CHARS_MAX + 1)),
            "{text}"
        );
    }
}
