//! One run: starts writers, scrapers and the one who kills, waits, checks, cleans up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

mod progress;
mod scraper;
mod writers;

use crate::check::{Findings, check};
use crate::flags::{Load, Scenario};
use crate::gateway::{Gateway, Target, process_cpu_seconds};
use crate::history::{Answer, Ask, History};
use crate::scenario::Plan;
use progress::Progress;
use writers::{Shared, histogram};

use crate::summary::{Counts, Memory, Quantiles, Summary};

/// How long writers wait for a scrape after a kill.
const SIGHT_MAX: Duration = Duration::from_secs(10);

/// Where the load goes.
pub enum Place<'a> {
    /// To a gateway that somebody else runs.
    Target(Target),
    /// To a process of our own.
    Own(&'a mut Gateway),
}

/// What to do beside the load.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Kill it, this far apart on average.
    pub kill_every: Option<Duration>,
    /// Do not check.
    pub no_check: bool,
    /// See [`History::late_deletes`].
    pub late_deletes: bool,
    /// Leave the groups there.
    pub keep: bool,
    /// No progress bar.
    pub quiet: bool,
}

/// Runs a scenario once.
pub fn run(
    scenario: Scenario,
    load: &Load,
    place: Place<'_>,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Summary> {
    let plan = Plan::new(scenario, load);
    let layout = plan.layout(run_name());
    let (target, own) = match place {
        Place::Target(target) => (target, None),
        Place::Own(gateway) => (gateway.target.clone(), Some(gateway)),
    };
    if !target.is_ready() {
        anyhow::bail!("http://{}{}/-/ready does not answer 200", target.host, target.prefix);
    }
    let is_own = own.is_some();
    let own = own.map(Mutex::new);
    let cpu = || match &own {
        Some(gateway) => Some(gateway.lock().expect("no thread panics with it").cpu_seconds()),
        None => target.cpu_seconds(),
    };
    let gateway_cpu = cpu();
    let shared = Shared {
        target: target.clone(),
        layout: &layout,
        plan: &plan,
        load,
        begin: Instant::now(),
        stop,
        paused: AtomicBool::new(false),
        dark: AtomicBool::new(false),
        busy: AtomicUsize::new(0),
        left: AtomicU64::new(load.count),
        pushes: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        scrapes: AtomicU64::new(0),
    };
    let own_cpu = process_cpu_seconds("self").unwrap_or(0.0);
    let threads = load.threads.clamp(1, plan.connections);
    let pushing = AtomicUsize::new(threads);
    let killing = AtomicBool::new(options.kill_every.is_some());
    let mut history = History { late_deletes: options.late_deletes, ..History::default() };
    let mut summary = Summary { scenario: format!("{scenario:?}").to_lowercase(), ..Summary::default() };
    let (mut push, mut delete, mut scrape) = (histogram(), histogram(), histogram());
    let (mut gateway_used, mut own_used, mut seconds) = (None, 0.0, 0.0);
    std::thread::scope(|scope| -> Result<()> {
        let writers = (0..threads).map(|thread| {
            let (first, next) =
                (plan.connections * thread / threads, plan.connections * (thread + 1) / threads);
            let (shared, pushing) = (&shared, &pushing);
            scope.spawn(move || {
                let result = writers::run(shared, thread, threads, first, next - first);
                pushing.fetch_sub(1, Ordering::SeqCst);
                result
            })
        });
        let writers: Vec<_> = writers.collect();
        let scrapers = (0..plan.scrapers).map(|number| {
            let (shared, pushing, killing) = (&shared, &pushing, &killing);
            let done = move || pushing.load(Ordering::SeqCst) == 0 && !killing.load(Ordering::SeqCst);
            scope.spawn(move || scraper::run(shared, number, !options.no_check, &done))
        });
        let scrapers: Vec<_> = scrapers.collect();
        let killer = options.kill_every.zip(own.as_ref()).map(|(every, gateway)| {
            let (shared, pushing, killing) = (&shared, &pushing, &killing);
            scope.spawn(move || {
                let result = kill(shared, gateway, every, pushing);
                killing.store(false, Ordering::SeqCst);
                if result.is_err() {
                    // Nothing can go on without a gateway.
                    shared.stop.store(true, Ordering::SeqCst);
                    shared.paused.store(false, Ordering::SeqCst);
                    shared.dark.store(false, Ordering::SeqCst);
                }
                result
            })
        });
        let progress = Progress::new(&shared, options.quiet);
        let mut next_look = Instant::now();
        while pushing.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(20));
            progress.show(&shared);
            if next_look <= Instant::now() {
                next_look += Duration::from_millis(250);
                let memory = own.as_ref().and_then(|gateway| gateway.try_lock().ok()?.memory_bytes());
                let memory_bytes = memory.unwrap_or(0);
                if is_own && memory_bytes > 0 {
                    summary
                        .memory
                        .push(Memory { seconds: shared.begin.elapsed().as_secs_f64(), bytes: memory_bytes });
                }
            }
        }
        seconds = shared.begin.elapsed().as_secs_f64();
        own_used = process_cpu_seconds("self").unwrap_or(0.0) - own_cpu;
        gateway_used = cpu().zip(gateway_cpu).map(|(now, before)| now - before);
        progress.end();
        if let Some(killer) = killer {
            history.crashes = killer.join().expect("the killer does not panic")?;
        }
        for writer in writers {
            let measured = writer.join().expect("writers do not panic")?;
            push.add(&measured.push).context("histograms have the same bounds")?;
            delete.add(&measured.delete).context("histograms have the same bounds")?;
            summary.unsent += measured.unsent;
            history.requests.extend(measured.requests);
        }
        for scraper in scrapers {
            let measured = scraper.join().expect("scrapers do not panic");
            scrape.add(&measured.latency).context("histograms have the same bounds")?;
            summary.scrape_wire_bytes += measured.wire_bytes;
            summary.scrapes_failed += measured.failed;
            history.scrapes.push(measured.scrapes);
        }
        Ok(())
    })?;
    if let Some(gateway) = &own {
        summary.starts_failed = gateway.lock().expect("no thread panics with it").starts_failed;
    }
    let counts = count(&history);
    let answered = counts.done + counts.refused + counts.rejected;
    summary.stopped_early = stop.load(Ordering::SeqCst);
    summary.seconds = seconds;
    summary.pushes_per_second = answered as f64 / seconds;
    summary.push = Quantiles::of(&push);
    summary.delete = Quantiles::of(&delete);
    summary.scrape = Quantiles::of(&scrape);
    summary.scrapes = scrape.len();
    summary.kills = history.crashes.len();
    summary.body_bytes = plan.body_bytes(&layout);
    summary.open_loop_rate = plan.rate;
    summary.own_cpu_microseconds_per_push = own_used * 1e6 / answered.max(1) as f64;
    summary.gateway_cpu_microseconds_per_push = gateway_used.map(|used| used * 1e6 / answered.max(1) as f64);
    summary.counts = counts;
    if !options.no_check {
        summary.findings = Some(check_with_notice(&history, &layout, options.quiet));
    }
    if !options.keep && !is_own {
        clean_up(&target, &history, &layout);
    }
    Ok(summary)
}

fn check_with_notice(history: &History, layout: &crate::schema::Layout, quiet: bool) -> Findings {
    if !quiet {
        eprintln!("checking …");
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    check(history, layout, threads)
}

fn count(history: &History) -> Counts {
    let mut counts = Counts::default();
    for request in history.requests.iter().flatten() {
        match request.answer {
            Answer::Done => counts.done += 1,
            Answer::Refused => counts.refused += 1,
            Answer::Rejected => counts.rejected += 1,
            Answer::Unknown(_) => counts.unknown += 1,
            Answer::Lost => counts.lost += 1,
            Answer::NotSent => counts.not_sent += 1,
        }
        match request.ask {
            Ask::Delete => counts.deletes += 1,
            Ask::Garbage | Ask::Inconsistent => counts.bad_pushes += 1,
            Ask::Put | Ask::Post => counts.pushes += 1,
        }
    }
    counts
}

/// Kills the gateway again and again until the writers are done; gives the moments between its lives.
fn kill(
    shared: &Shared<'_>,
    gateway: &Mutex<&mut Gateway>,
    every: Duration,
    pushing: &AtomicUsize,
) -> Result<Vec<u64>> {
    let mut random = SmallRng::seed_from_u64(shared.load.seed ^ 0x6b69_6c6c);
    let mut crashes = Vec::new();
    loop {
        let until = Instant::now() + every.mul_f64(random.random_range(0.5..1.5));
        while Instant::now() < until {
            if pushing.load(Ordering::SeqCst) == 0 {
                return Ok(crashes);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut gateway = gateway.lock().expect("no thread panics with it");
        gateway.kill()?;
        shared.paused.store(true, Ordering::SeqCst);
        shared.dark.store(true, Ordering::SeqCst);
        // All connections are gone; when everybody has noticed, nothing of the old process is under way.
        while shared.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        crashes.push(shared.now());
        gateway.start_again().context("after it was killed")?;
        drop(gateway);
        // What is gone must be seen before new pushes could explain it.
        let scrapes = shared.scrapes.load(Ordering::SeqCst);
        shared.dark.store(false, Ordering::SeqCst);
        let begin = Instant::now();
        while shared.plan.scrapers > 0
            && shared.scrapes.load(Ordering::SeqCst) == scrapes
            && begin.elapsed() < SIGHT_MAX
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        shared.paused.store(false, Ordering::SeqCst);
    }
}

/// Deletes the groups of the run.
fn clean_up(target: &Target, history: &History, layout: &crate::schema::Layout) {
    let mut groups: Vec<_> = history.requests.iter().flatten().map(|request| request.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut client = target.client();
    for group in groups {
        // A gateway that is gone needs no tidying.
        if client.request("DELETE", &format!("{}{}", target.prefix, layout.path(group)), false).is_err() {
            break;
        }
    }
}

/// Tells this run's groups from those of others.
fn run_name() -> String {
    let time =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    format!("r{:x}", time ^ u64::from(std::process::id()) << 44)
}
