//! Skipped tests. Under CI (`CI` in the environment) a skip is a failure.

use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Features that this machine is known to forbid, separated by commas: skips for lack of them are allowed under CI.
/// `.ci/run` sets it after it has looked for itself.
const FORBIDDEN: &str = "SLUICEGATE_TEST_FORBIDDEN";

/// Reports that the running test is skipped because a feature is missing, with a running count.
///
/// Writes to stderr directly: the test harness shows what a passing test prints only with `--nocapture`.
///
/// # Panics
///
/// Under CI, unless the machine is known to forbid the feature.
pub fn report(feature: &str, reason: &str) {
    static SKIPPED: AtomicU32 = AtomicU32::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // The harness names each test's thread after the test.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(std::io::stderr(), "SKIPPED {test}: {reason} ({count} skipped)").expect("stderr is open");
    let forbidden = std::env::var(FORBIDDEN).unwrap_or_default();
    assert!(
        std::env::var_os("CI").is_none() || forbidden.split(',').any(|name| name == feature),
        "skipped under CI: {reason}"
    );
}

/// Whether the machine allows io_uring.
pub fn has_io_uring() -> bool {
    // In a thread of its own: the kernel tears a ring down later, and interrupts system calls of the thread that created it.
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        std::thread::spawn(|| io_uring::IoUring::new(8).is_ok())
            .join()
            .expect("creating a ring does not panic")
    });
    *ALLOWED
}

/// Whether the machine forbids io_uring. Reports the skip if it does.
pub fn without_io_uring() -> bool {
    let forbidden = !has_io_uring();
    if forbidden {
        report("io_uring", "this machine forbids io_uring");
    }
    forbidden
}
