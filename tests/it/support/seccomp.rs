//! A seccomp filter as container engines have.

use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Runs a closure in a thread whose children cannot use io_uring, as under the default seccomp profile of container engines.
/// The filter applies to that thread only, not to the process.
pub fn without_io_uring<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let arch =
        TargetArch::try_from(std::env::consts::ARCH).expect("an architecture that seccompiler supports");
    let forbidden = [(libc::SYS_io_uring_setup, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(forbidden, SeccompAction::Allow, refuse, arch).expect("a valid filter");
    let filter = BpfProgram::try_from(filter).expect("a valid filter");
    thread::scope(|scope| {
        let confined = scope.spawn(|| {
            seccompiler::apply_filter(&filter).expect("the kernel has seccomp");
            assert!(io_uring::IoUring::new(8).is_err(), "the filter has no effect");
            run()
        });
        confined.join().expect("the confined thread does not panic")
    })
}
