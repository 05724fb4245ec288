//! One thread per core, each with its own monoio runtime, all on the same driver.
//!
//! The runtimes are built before anything is served: every thread builds its io_uring runtime and reports; only if all have
//! one, all keep it. Nothing is built for a try and thrown away: the kernel gives the locked memory of a closed ring back
//! late, so a try that succeeded would not prove that the real rings can be had.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use monoio::time::TimeDriver;
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Entries of each submission queue. More gained nothing, and small rings fit into low limits of locked memory.
const RING_ENTRIES: u32 = 256;

/// Which driver the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where all cores can have it, else epoll.
    #[default]
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// epoll.
    Epoll,
}

/// Which driver does the network IO, on all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverInUse {
    /// Completions of an io_uring.
    IoUring,
    /// Readiness from epoll.
    Epoll,
}

impl fmt::Display for DriverInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriverInUse::IoUring => "io_uring",
            DriverInUse::Epoll => "epoll",
        })
    }
}

/// Number of a core, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoreIndex(pub usize);

/// The cores this process may use: CPU affinity and cgroup quotas (versions 1 and 2, rounded down), at least 1.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Raises the limit of open descriptors as far as it is allowed: each connection needs one. Returns the limit.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// Threads with runtimes, ready to run.
pub struct Cores {
    threads: Vec<Core>,
    driver: DriverInUse,
    fallback: Option<String>,
}

struct Core {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    Keep(DriverInUse),
    Run(Job),
}

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;
type Ring = Box<FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>>;

impl Cores {
    /// Starts `count` threads with a runtime each, and decides the driver for all.
    ///
    /// # Errors
    /// If a thread cannot be started, no runtime can be had, or io_uring was demanded and cannot be had.
    pub fn start(count: usize, choice: DriverChoice) -> io::Result<Cores> {
        let cpus = cpus_to_pin(count);
        let (reports, outcomes) = channel();
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (orders, inbox) = channel();
            let (reports, cpu) = (reports.clone(), cpus.get(index).copied());
            let thread = std::thread::Builder::new()
                .name(format!("core-{index}"))
                .spawn(move || core_thread(choice, cpu, &reports, &inbox))?;
            threads.push(Core { orders, thread });
        }

        let (driver, fallback) = if choice == DriverChoice::Epoll {
            (DriverInUse::Epoll, None)
        } else {
            match gather(&outcomes, count) {
                Ok(()) => (DriverInUse::IoUring, None),
                Err(err) if choice == DriverChoice::IoUring => {
                    return Err(io::Error::new(err.kind(), format!("io_uring cannot be had: {err}")));
                }
                Err(err) => (DriverInUse::Epoll, Some(err.to_string())),
            }
        };
        for core in &threads {
            // A thread that is gone shows in the outcomes.
            let _ = core.orders.send(Order::Keep(driver));
        }
        gather(&outcomes, count)?;
        Ok(Cores { threads, driver, fallback })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// The driver on all cores.
    pub fn driver(&self) -> DriverInUse {
        self.driver
    }

    /// Why epoll is in use although io_uring would have been taken; for the log.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Runs `make(core)` on each core and returns when all have ended. Tasks that are left then are dropped.
    ///
    /// # Panics
    /// Never; but a panic on a core ends the whole program, since the groups at home there would be out of reach.
    pub fn run<F, Fut>(self, make: F)
    where
        F: Fn(CoreIndex) -> Fut + Send + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        for (index, core) in self.threads.iter().enumerate() {
            let make = make.clone();
            let job: Job = Box::new(move || Box::pin(make(CoreIndex(index))));
            // A core that is gone has ended the program.
            let _ = core.orders.send(Order::Run(job));
        }
        for core in self.threads {
            drop(core.orders);
            let _ = core.thread.join();
        }
    }
}

/// Starts `count` cores and runs `make(core)` on each until all have ended.
///
/// # Errors
/// Those of [`Cores::start`].
pub fn run_on_cores<F, Fut>(count: usize, choice: DriverChoice, make: F) -> io::Result<()>
where
    F: Fn(CoreIndex) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    Cores::start(count, choice)?.run(make);
    Ok(())
}

fn gather(outcomes: &Receiver<io::Result<()>>, count: usize) -> io::Result<()> {
    let mut all = Ok(());
    for _ in 0..count {
        let outcome = outcomes.recv().unwrap_or_else(|_| Err(io::Error::other("a core's thread ended")));
        all = all.and(outcome);
    }
    all
}

fn core_thread(
    choice: DriverChoice,
    cpu: Option<usize>,
    reports: &Sender<io::Result<()>>,
    inbox: &Receiver<Order>,
) {
    if let Some(cpu) = cpu {
        pin_to(cpu);
    }
    let mut ring = None;
    if choice != DriverChoice::Epoll {
        let built = build_ring();
        let _ = reports.send(built.map(|runtime| ring = Some(runtime)));
    }
    let Ok(Order::Keep(driver)) = inbox.recv() else { return };
    let runtime = match (driver, ring) {
        (DriverInUse::IoUring, Some(ring)) => Ok(ring),
        (DriverInUse::IoUring, None) => Err(io::Error::other("io_uring was chosen without a ring")),
        (DriverInUse::Epoll, ring) => {
            drop(ring);
            build_epoll()
        }
    };
    let mut runtime = match runtime {
        Ok(runtime) => {
            let _ = reports.send(Ok(()));
            runtime
        }
        Err(err) => {
            let _ = reports.send(Err(err));
            return;
        }
    };
    let Ok(Order::Run(job)) = inbox.recv() else { return };
    if catch_unwind(AssertUnwindSafe(|| runtime.block_on(job()))).is_err() {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a core").to_owned();
        tracing::error!(core = name, "a core panicked; ending the program");
        eprintln!("sluicegate: {name} panicked; ending the program");
        std::process::abort();
    }
}

fn build_ring() -> io::Result<Ring> {
    // Bound to a variable, because its methods hand out references.
    let mut flags = io_uring::IoUring::builder();
    // Completions are delivered when this thread enters the kernel anyway, not by interrupting it.
    flags.setup_coop_taskrun().setup_taskrun_flag();
    let runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(flags)
        .enable_timer()
        .build()?;
    Ok(Box::new(FusionRuntime::Uring(runtime)))
}

fn build_epoll() -> io::Result<Ring> {
    let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    Ok(Box::new(FusionRuntime::Legacy(runtime)))
}

/// The CPUs to pin to: one for each core, or none if there are fewer cores than CPUs. With a quota, many gateways on one
/// machine would all sit on its first CPUs.
fn cpus_to_pin(count: usize) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    if cpus.len() == count { cpus } else { Vec::new() }
}

fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(err) = sched_setaffinity(None, &set) {
        tracing::warn!(cpu, error = %err, "cannot pin a thread to its CPU");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{CoreIndex, Cores, DriverChoice, DriverInUse, available, run_on_cores};

    #[test]
    fn every_core_runs_its_future_with_a_timer() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            let sum = Arc::new(AtomicUsize::new(0));
            let shared = sum.clone();
            run_on_cores(3, choice, move |CoreIndex(index)| {
                let sum = shared.clone();
                async move {
                    monoio::time::sleep(std::time::Duration::from_millis(1)).await;
                    sum.fetch_add(index + 1, Ordering::Relaxed);
                }
            })
            .expect("some driver works everywhere");
            assert_eq!(sum.load(Ordering::Relaxed), 6);
        }
    }

    #[test]
    fn cores_that_never_run_end_when_dropped() {
        let cores = Cores::start(2, DriverChoice::Epoll).expect("epoll works everywhere");
        assert_eq!((cores.count(), cores.driver(), cores.fallback()), (2, DriverInUse::Epoll, None));
        drop(cores);
        assert!(available() >= 1);
    }
}
