//! One run of a scenario: starts writers, scrapers and kills, waits for them, checks the history and summarises it.

mod alarm;
mod kill;
mod progress;
mod request;
mod scraper;
mod shared;
mod writers;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use crate::check::{Findings, check};
use crate::flags::{LoadFlags, Scenario};
use crate::gateway::{Gateway, Target, process_cpu_seconds};
use crate::history::{History, Operation, Outcome};
use crate::scenario::{Plan, WriterRange};
use crate::schema::Schema;
use crate::summary::{Counts, MemorySample, Quantiles, Summary};
use progress::Progress;
use scraper::ScraperResult;
use shared::{RunState, latency_histogram};
use writers::WriterResult;

/// Time between two updates of the progress bar.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(20);
/// Time between two memory samples.
const MEMORY_INTERVAL: Duration = Duration::from_millis(250);

/// The gateway that receives the load.
pub enum Endpoint<'e, 'f> {
    /// A gateway that was running already.
    Running(Target),
    /// A process that the load test started.
    Started(&'e mut Gateway<'f>),
}

/// Options of a run besides the load.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Kill the gateway, on average at this interval. Requires [`Endpoint::Started`].
    pub kill_every: Option<Duration>,
    /// Skip the checks.
    pub no_check: bool,
    /// See [`History::late_deletes`].
    pub late_deletes: bool,
    /// Do not delete the groups afterwards.
    pub keep_groups: bool,
    /// Show no progress.
    pub quiet: bool,
}

/// Runs a scenario once.
pub fn run(
    scenario: Scenario,
    load: &LoadFlags,
    endpoint: Endpoint<'_, '_>,
    options: &RunOptions,
    stop: &AtomicBool,
) -> Result<Summary> {
    let plan = Plan::new(scenario, load);
    let schema = plan.schema(unique_run_name());
    let (target, gateway) = match endpoint {
        Endpoint::Running(target) => (target, None),
        Endpoint::Started(gateway) => (gateway.target.clone(), Some(Mutex::new(gateway))),
    };
    if !target.is_ready() {
        bail!(
            "the gateway is not ready: http://{}{}/-/ready does not return 200",
            target.host,
            target.prefix
        );
    }
    // Before the clock starts, because the gateway may take its time.
    let cpu_before = CpuSeconds::now(&target, gateway.as_ref());
    let state = RunState::new(target.clone(), &schema, &plan, load, stop);
    let measured = measure(&state, gateway.as_ref(), options, cpu_before)?;
    let starts_failed = gateway.as_ref().map_or(0, |gateway| lock(gateway).starts_failed);
    let findings = (!options.no_check).then(|| check_history(&measured.history, &schema, options.quiet));
    if !options.keep_groups && gateway.is_none() {
        delete_groups(&target, &measured.history, &schema);
    }
    let stopped_early = stop.load(Ordering::SeqCst);
    let summary = measured.summarize(&plan, &schema);
    Ok(Summary { starts_failed, findings, stopped_early, ..summary })
}

/// Locks a gateway. The lock is shared with the thread that kills the gateway.
fn lock<'g, 'f, 'e>(gateway: &'g Mutex<&'e mut Gateway<'f>>) -> MutexGuard<'g, &'e mut Gateway<'f>> {
    gateway.lock().expect("no thread panics while it holds the lock")
}

/// CPU time used so far.
#[derive(Clone, Copy)]
struct CpuSeconds {
    own: f64,
    /// `None` if the gateway does not report it.
    gateway: Option<f64>,
}

impl CpuSeconds {
    fn now(target: &Target, gateway: Option<&Mutex<&mut Gateway<'_>>>) -> Self {
        let own = process_cpu_seconds("self").unwrap_or(0.0);
        let gateway =
            gateway.map_or_else(|| target.cpu_seconds(), |gateway| Some(lock(gateway).cpu_seconds()));
        Self { own, gateway }
    }

    fn since(self, before: Self) -> Self {
        let gateway = self.gateway.zip(before.gateway).map(|(now, before)| now - before);
        Self { own: self.own - before.own, gateway }
    }
}

/// The measurements of a run.
struct Measurements {
    history: History,
    push: Histogram<u64>,
    delete: Histogram<u64>,
    scrape: Histogram<u64>,
    /// How long the writers ran.
    seconds: f64,
    cpu: CpuSeconds,
    memory: Vec<MemorySample>,
    unsent: u64,
    scrape_wire_bytes: u64,
    scrapes_failed: u64,
}

impl Measurements {
    fn new(late_deletes: bool) -> Self {
        Self {
            history: History { late_deletes, ..History::default() },
            push: latency_histogram(),
            delete: latency_histogram(),
            scrape: latency_histogram(),
            seconds: 0.0,
            cpu: CpuSeconds { own: 0.0, gateway: None },
            memory: Vec::new(),
            unsent: 0,
            scrape_wire_bytes: 0,
            scrapes_failed: 0,
        }
    }

    fn add_writers(&mut self, result: WriterResult) -> Result<()> {
        self.push.add(&result.push).context("add histograms")?;
        self.delete.add(&result.delete).context("add histograms")?;
        self.unsent += result.unsent;
        self.history.requests.extend(result.requests);
        Ok(())
    }

    fn add_scraper(&mut self, result: ScraperResult) -> Result<()> {
        self.scrape.add(&result.latency).context("add histograms")?;
        self.scrape_wire_bytes += result.wire_bytes;
        self.scrapes_failed += result.failed;
        self.history.scrape_logs.push(result.log);
        Ok(())
    }

    fn summarize(self, plan: &Plan, schema: &Schema) -> Summary {
        let counts = count_requests(&self.history);
        let answered = counts.answered();
        let per_push = |seconds: f64| seconds * 1e6 / answered.max(1) as f64;
        Summary {
            scenario: format!("{:?}", plan.scenario).to_lowercase(),
            seconds: self.seconds,
            open_loop_rate: plan.rate,
            body_bytes: plan.body_bytes(schema),
            pushes_per_second: answered as f64 / self.seconds,
            counts,
            unsent: self.unsent,
            push: Quantiles::from_microseconds(&self.push),
            delete: Quantiles::from_microseconds(&self.delete),
            scrape: Quantiles::from_microseconds(&self.scrape),
            scrapes: self.scrape.len(),
            scrapes_failed: self.scrapes_failed,
            scrape_wire_bytes: self.scrape_wire_bytes,
            own_cpu_microseconds_per_push: per_push(self.cpu.own),
            gateway_cpu_microseconds_per_push: self.cpu.gateway.map(per_push),
            kills: self.history.kills.len(),
            memory: self.memory,
            ..Summary::default()
        }
    }
}

/// Runs all threads of a run until the last one has ended.
fn measure(
    state: &RunState<'_>,
    gateway: Option<&Mutex<&mut Gateway<'_>>>,
    options: &RunOptions,
    cpu_before: CpuSeconds,
) -> Result<Measurements> {
    let threads = state.load.threads.clamp(1, state.plan.connections);
    let writer_threads = &AtomicUsize::new(threads);
    let writers_are_done = &|| writer_threads.load(Ordering::SeqCst) == 0;
    let is_killing = &AtomicBool::new(options.kill_every.is_some() && gateway.is_some());
    let load_is_done = &|| writers_are_done() && !is_killing.load(Ordering::SeqCst);
    let mut measured = Measurements::new(options.late_deletes);
    std::thread::scope(|scope| {
        let writers = spawn_writers(scope, state, threads, writer_threads);
        let scrapers: Vec<_> = (0..state.plan.scrapers)
            .map(|number| scope.spawn(move || scraper::run(state, number, !options.no_check, load_is_done)))
            .collect();
        let killer = options.kill_every.zip(gateway).map(|(interval, gateway)| {
            scope.spawn(move || {
                let kills = kill::run(state, gateway, interval, writers_are_done);
                is_killing.store(false, Ordering::SeqCst);
                if kills.is_err() {
                    // Without a gateway, the other threads would wait for ever.
                    state.stop.store(true, Ordering::SeqCst);
                    state.writers_paused.store(false, Ordering::SeqCst);
                    state.scrapers_paused.store(false, Ordering::SeqCst);
                }
                kills
            })
        });
        measured.memory = watch(state, gateway, options.quiet, writers_are_done);
        measured.seconds = state.begin.elapsed().as_secs_f64();
        measured.cpu = CpuSeconds::now(&state.target, gateway).since(cpu_before);
        if let Some(killer) = killer {
            measured.history.kills = killer.join().expect("the thread that kills does not panic")?;
        }
        for writer in writers {
            measured.add_writers(writer.join().expect("writers do not panic")?)?;
        }
        for scraper in scrapers {
            measured.add_scraper(scraper.join().expect("scrapers do not panic"))?;
        }
        Ok(measured)
    })
}

/// Spawns the threads of the writers. Each of them decrements `running` when it ends.
fn spawn_writers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    state: &'scope RunState<'_>,
    threads: usize,
    running: &'scope AtomicUsize,
) -> Vec<ScopedJoinHandle<'scope, Result<WriterResult>>> {
    let connections = state.plan.connections;
    let spawn = |thread| {
        let first = connections * thread / threads;
        let count = connections * (thread + 1) / threads - first;
        scope.spawn(move || {
            let result = writers::run(state, WriterRange { thread, threads, first, count });
            running.fetch_sub(1, Ordering::SeqCst);
            result
        })
    };
    (0..threads).map(spawn).collect()
}

/// Shows the progress until `is_done`, and samples the memory of a gateway that the load test started.
fn watch(
    state: &RunState<'_>,
    gateway: Option<&Mutex<&mut Gateway<'_>>>,
    quiet: bool,
    is_done: &dyn Fn() -> bool,
) -> Vec<MemorySample> {
    let progress = Progress::new(state, quiet);
    let mut memory = Vec::new();
    let mut next_sample = Instant::now();
    while !is_done() {
        std::thread::sleep(PROGRESS_INTERVAL);
        progress.update(state);
        if next_sample <= Instant::now() {
            next_sample += MEMORY_INTERVAL;
            // The lock is held, and there is no process to look at, during a restart.
            let bytes = gateway.and_then(|gateway| gateway.try_lock().ok()?.memory_bytes());
            if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
                memory.push(MemorySample { seconds: state.begin.elapsed().as_secs_f64(), bytes });
            }
        }
    }
    progress.finish();
    memory
}

fn check_history(history: &History, schema: &Schema, quiet: bool) -> Findings {
    if !quiet {
        eprintln!("checking …");
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    check(history, schema, threads)
}

fn count_requests(history: &History) -> Counts {
    let mut counts = Counts::default();
    for request in history.requests.iter().flatten() {
        match request.outcome {
            Outcome::Accepted => counts.accepted += 1,
            Outcome::Inconsistent => counts.inconsistent += 1,
            Outcome::Rejected => counts.rejected += 1,
            Outcome::Unknown(_) => counts.unknown += 1,
            Outcome::Lost => counts.lost += 1,
            Outcome::NotSent => counts.not_sent += 1,
        }
        match request.operation {
            Operation::Delete => counts.deletes += 1,
            Operation::Malformed | Operation::Inconsistent => counts.bad_pushes += 1,
            Operation::Put | Operation::Post => counts.pushes += 1,
        }
    }
    counts
}

/// Deletes the groups of the run.
fn delete_groups(target: &Target, history: &History, schema: &Schema) {
    let mut groups: Vec<_> = history.requests.iter().flatten().map(|request| request.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut client = target.client();
    for group in groups {
        // If the gateway has gone away, there is nothing to clean up.
        if client.delete(&format!("{}{}", target.prefix, schema.group_path(group))).is_err() {
            break;
        }
    }
}

/// A name that distinguishes the groups of this run from those of other runs.
fn unique_run_name() -> String {
    let time =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    format!("r{:x}", time ^ (u64::from(std::process::id()) << 44))
}
