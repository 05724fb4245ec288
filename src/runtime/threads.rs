//! One thread per core, each with its own monoio runtime, all on the same driver.
//!
//! The runtimes are built before the gateway serves requests. Every thread builds an io_uring runtime and reports the result; the
//! threads keep their runtimes only if all succeeded. No ring is built as a probe: the kernel releases the locked memory of a closed
//! ring late, so a successful probe would not prove that the real rings can be created.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use monoio::time::TimeDriver;
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::turns::{Gate, TakingTurns};
use crate::telemetry::log;

/// Entries of each submission queue. More gained nothing, and small rings fit into a low limit of locked memory.
const RING_ENTRIES: u32 = 256;

/// The driver that the operator requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring if every core can use it, otherwise epoll.
    #[default]
    Auto,
    /// io_uring; starting fails if a core cannot use it.
    IoUring,
    /// epoll.
    Epoll,
}

/// The driver of the network IO on all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverInUse {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

impl std::fmt::Display for DriverInUse {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

impl DriverInUse {
    /// Its name in flags, logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            DriverInUse::IoUring => "io_uring",
            DriverInUse::Epoll => "epoll",
        }
    }
}

/// The number of a core, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoreIndex(pub usize);

/// How many cores this process may use, according to CPU affinity and cgroup quotas (versions 1 and 2, rounded down); at least 1.
pub(crate) fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The most cores that make sense on this machine. Each takes memory and two threads, and cores beyond the processors only compete.
pub(crate) fn cores_max() -> usize {
    const PER_PROCESSOR: usize = 4;
    const ALWAYS: usize = 16;
    (available() * PER_PROCESSOR).max(ALWAYS)
}

/// The threads of all cores, with their runtimes.
pub struct Cores {
    threads: Vec<CoreThread>,
    driver: DriverInUse,
    fallback: Option<String>,
}

struct CoreThread {
    commands: Sender<ThreadCommand>,
    /// A channel of its own, so that a thread that ended without a report is noticed while others still wait.
    reports: Receiver<io::Result<()>>,
    thread: JoinHandle<()>,
}

/// A command to a starting thread.
enum ThreadCommand {
    UseDriver(DriverInUse),
    Run(Job),
}

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;
type CoreRuntime = Box<FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>>;

impl Cores {
    /// Starts `count` threads with a runtime each, and chooses the driver for all.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be started, or io_uring was requested and is unavailable.
    pub fn start(count: usize, choice: DriverChoice) -> io::Result<Cores> {
        let cpus = cpus_to_pin(count);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (commands, inbox) = channel();
            let (report, reports) = channel();
            let cpu = cpus.get(index).copied();
            let thread = std::thread::Builder::new()
                .name(format!("core-{index}"))
                .spawn(move || core_thread(choice, cpu, &report, &inbox))?;
            threads.push(CoreThread { commands, reports, thread });
        }

        let (driver, fallback) = if choice == DriverChoice::Epoll {
            (DriverInUse::Epoll, None)
        } else {
            match wait_for_reports(&threads) {
                Ok(()) => (DriverInUse::IoUring, None),
                Err(err) if choice == DriverChoice::IoUring => {
                    return Err(io::Error::new(err.kind(), format!("io_uring is unavailable: {err}")));
                }
                Err(err) => (DriverInUse::Epoll, Some(err.to_string())),
            }
        };
        for core in &threads {
            // If a thread has ended, its report is missing below.
            let _ = core.commands.send(ThreadCommand::UseDriver(driver));
        }
        wait_for_reports(&threads)?;
        Ok(Cores { threads, driver, fallback })
    }

    /// The number of cores.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// The driver of all cores.
    pub fn driver(&self) -> DriverInUse {
        self.driver
    }

    /// Why epoll is used although io_uring was preferred.
    pub(crate) fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Runs `make(core)` on each core and returns when all have ended. Tasks that remain are dropped.
    ///
    /// A panic on a core aborts the program, because nothing could reach the groups of that core.
    pub fn run<F, Fut>(self, make: F)
    where
        F: Fn(CoreIndex) -> Fut + Send + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        for (index, core) in self.threads.iter().enumerate() {
            let make = make.clone();
            let job: Job = Box::new(move || Box::pin(make(CoreIndex(index))));
            // A core that panicked has aborted the program.
            let _ = core.commands.send(ThreadCommand::Run(job));
        }
        for core in self.threads {
            drop(core.commands);
            let _ = core.thread.join();
        }
    }
}

/// Waits for a report of each thread. Returns the first error.
fn wait_for_reports(threads: &[CoreThread]) -> io::Result<()> {
    let mut all = Ok(());
    for core in threads {
        let outcome = core
            .reports
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("a core's thread ended unexpectedly")));
        all = all.and(outcome);
    }
    all
}

fn core_thread(
    choice: DriverChoice,
    cpu: Option<usize>,
    report: &Sender<io::Result<()>>,
    inbox: &Receiver<ThreadCommand>,
) {
    if let Some(cpu) = cpu {
        pin_to(cpu);
    }
    let mut ring = None;
    if choice != DriverChoice::Epoll {
        let built = build_ring();
        let _ = report.send(built.map(|runtime| ring = Some(runtime)));
    }
    let Ok(ThreadCommand::UseDriver(driver)) = inbox.recv() else { return };
    let runtime = match (driver, ring) {
        (DriverInUse::IoUring, Some(ring)) => Ok(ring),
        (DriverInUse::IoUring, None) => Err(io::Error::other("io_uring was chosen, but the ring is missing")),
        (DriverInUse::Epoll, ring) => {
            drop(ring);
            build_epoll()
        }
    };
    let mut runtime = match runtime {
        Ok(runtime) => {
            let _ = report.send(Ok(()));
            runtime
        }
        Err(err) => {
            let _ = report.send(Err(err));
            return;
        }
    };
    let Ok(ThreadCommand::Run(job)) = inbox.recv() else { return };
    if catch_unwind(AssertUnwindSafe(|| block_on(&mut runtime, job()))).is_err() {
        // The panic itself is in the log.
        tracing::error!("a core panicked; aborting");
        log::flush();
        std::process::abort();
    }
}

fn block_on<T>(runtime: &mut CoreRuntime, future: impl Future<Output = T>) -> T {
    runtime.block_on(async {
        let _gate = Gate::start();
        TakingTurns::new(future).await
    })
}

fn build_ring() -> io::Result<CoreRuntime> {
    // Bound to a variable, because its methods return references.
    let mut flags = io_uring::IoUring::builder();
    // Completions are delivered when this thread enters the kernel, without interrupting it.
    flags.setup_coop_taskrun().setup_taskrun_flag();
    let runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(flags)
        .enable_timer()
        .build()?;
    Ok(Box::new(FusionRuntime::Uring(runtime)))
}

fn build_epoll() -> io::Result<CoreRuntime> {
    let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    Ok(Box::new(FusionRuntime::Legacy(runtime)))
}

/// The CPUs to pin the threads to: one per core, or none if there are fewer cores than CPUs. With a quota, all gateways of a machine
/// would otherwise be pinned to its first CPUs.
fn cpus_to_pin(count: usize) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    if cpus.len() == count { cpus } else { Vec::new() }
}

fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(err) = sched_setaffinity(None, &set) {
        tracing::warn!(cpu, error = %err, "cannot pin a core's thread to a CPU");
    }
}

/// Runs a future on an epoll runtime of the current thread.
#[cfg(test)]
pub(crate) fn block_on_epoll<T>(future: impl Future<Output = T>) -> T {
    block_on(&mut build_epoll().expect("epoll works everywhere"), future)
}

/// Starts `count` cores and runs `make(core)` on each until all have ended.
///
/// # Errors
/// Those of [`Cores::start`].
#[cfg(test)]
pub(crate) fn run_on_cores<F, Fut>(count: usize, choice: DriverChoice, make: F) -> io::Result<()>
where
    F: Fn(CoreIndex) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    Cores::start(count, choice)?.run(make);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use std::sync::mpsc::channel;

    use super::{
        CoreIndex, CoreThread, Cores, DriverChoice, DriverInUse, available, run_on_cores, wait_for_reports,
    };

    #[test]
    fn every_core_runs_its_future_with_a_timer() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            let sum = Arc::new(AtomicUsize::new(0));
            let shared = sum.clone();
            run_on_cores(3, choice, move |CoreIndex(index)| {
                let sum = shared.clone();
                async move {
                    crate::runtime::sleep(std::time::Duration::from_millis(1)).await;
                    sum.fetch_add(index + 1, Ordering::Relaxed);
                }
            })
            .expect("epoll works everywhere");
            assert_eq!(sum.load(Ordering::Relaxed), 6);
        }
    }

    #[test]
    fn a_thread_that_ends_without_a_report_is_an_error() {
        let start = |reports_first: bool| {
            let (commands, inbox) = channel();
            let (report, reports) = channel();
            let thread = std::thread::spawn(move || {
                if reports_first {
                    report.send(Ok(())).expect("the test waits");
                    // Lives until the end of the test, as a core that waits for a command.
                    assert!(inbox.recv().is_err());
                }
            });
            CoreThread { commands, reports, thread }
        };
        let threads = [start(true), start(false), start(true)];
        let error = wait_for_reports(&threads).expect_err("the second thread has ended");
        assert_eq!(error.to_string(), "a core's thread ended unexpectedly");
        for core in threads {
            drop(core.commands);
            core.thread.join().expect("the thread does not panic");
        }
    }

    #[test]
    fn dropping_cores_ends_their_threads() {
        let cores = Cores::start(2, DriverChoice::Epoll).expect("epoll works everywhere");
        assert_eq!((cores.count(), cores.driver(), cores.fallback()), (2, DriverInUse::Epoll, None));
        drop(cores);
        assert!(available() >= 1);
    }
}
