//! One attack from start to end.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::MIB;
use crate::attack::{Attack, Play};
use crate::gateway::{Gateway, GatewayCommand, cpu_seconds};
use crate::http::{get, request};
use crate::report::{Figures, Outcome};
use crate::scene::{Scene, exchange_once, lower_priority};
use crate::victims::{CLIENTS, Seen, Victims, push_of};
use crate::watch::{Bounds, Watch};

/// Well-behaved clients run this long before the attack begins.
const WARM_UP: Duration = Duration::from_millis(400);
/// Back to normal is a push and a scrape that each take no longer than this.
const NORMAL_MAX: Duration = Duration::from_secs(1);
/// The report marks a longer recovery.
pub const RECOVERY_WANTED: Duration = Duration::from_secs(1);
/// How long freed memory may take to return to the system; requests of the attack may still be queued.
const FREE_MAX: Duration = Duration::from_secs(30);
/// How long memory below the limit is watched for further changes.
const SETTLE: Duration = Duration::from_secs(1);
/// Memory above the limit that has not changed for so long is not in use by requests.
const UNCHANGED: Duration = Duration::from_secs(4);
/// The report marks a p99 of well-behaved pushes above this.
pub const P99_WANTED: Duration = Duration::from_millis(50);
/// Memory beyond the budget and what is stored: what the allocator keeps, connections, the well-behaved clients.
const ALLOWANCE: u64 = 64 * MIB;
/// Memory that may remain after everything was deleted. The allocator returns memory late and in part: if more remains, the attack is
/// played again, which must not add half as much.
const LEFT_MAX: u64 = 48 * MIB;

/// What holds for all attacks of a run.
pub struct Options {
    pub duration: Duration,
    pub is_quick: bool,
    /// The gateway's budget for requests in flight, in bytes.
    pub budget: u64,
    /// A longer recovery is a failure.
    pub recovery_max: Duration,
    /// A gateway that takes more is killed.
    pub bounds: Bounds,
}

/// Plays an attack on a fresh gateway.
pub fn play(attack: &Attack, command: &GatewayCommand, options: &Options) -> Outcome {
    let is_sluicegate = command.is_sluicegate();
    if let (false, Some(reason)) = (is_sluicegate, attack.sluicegate_only) {
        return Outcome::Skipped(reason.to_owned());
    }
    match measure(attack, command, is_sluicegate, options) {
        Ok(figures) => Outcome::Played(Box::new(figures)),
        Err(error) => Outcome::Skipped(format!("{error:#}")),
    }
}

fn measure(
    attack: &Attack,
    command: &GatewayCommand,
    is_sluicegate: bool,
    options: &Options,
) -> Result<Figures> {
    let mut gateway = Gateway::start(command, attack, is_sluicegate)?;
    let watch = Watch::new(gateway.id(), options.bounds)?;
    let mut figures = Figures::default();
    let measured = std::thread::scope(|scope| {
        scope.spawn(|| watch.run());
        let measured = measure_running(attack, &mut gateway, is_sluicegate, options, &mut figures);
        watch.end();
        measured
    });
    match watch.reason() {
        Some(reason) => figures.end = Some(reason.to_owned()),
        None => measured?,
    }
    if let Some(end) = &figures.end {
        figures.failures.insert(0, format!("the gateway ended: {end}"));
    } else if is_sluicegate {
        match gateway.stop() {
            Ok(duration) => figures.stop_seconds = duration.as_secs_f64(),
            Err(problem) => figures.failures.push(problem),
        }
    }
    if !is_sluicegate {
        // Other programs are measured, not judged.
        figures.notes = std::mem::take(&mut figures.failures);
        figures.is_judged = false;
    }
    Ok(figures)
}

fn measure_running(
    attack: &Attack,
    gateway: &mut Gateway,
    is_sluicegate: bool,
    options: &Options,
    figures: &mut Figures,
) -> Result<()> {
    let scene = Scene::new(gateway.target.clone(), options.is_quick);
    let run = (attack.prepare)(&scene)?;
    let scrape_every = Duration::from_millis(if options.is_quick { 250 } else { 1000 });
    let victims = Victims::new(gateway.target.clone(), scrape_every, attack.may_delete);

    std::thread::scope(|scope| -> Result<()> {
        let small = || std::thread::Builder::new().stack_size(256 * 1024);
        for number in 0..CLIENTS {
            let victims = &victims;
            small().spawn_scoped(scope, move || victims.push(number))?;
        }
        small().spawn_scoped(scope, || victims.scrape())?;
        let result = (|| {
            std::thread::sleep(WARM_UP);
            gateway.reset_peak()?;
            let before = gateway.memory();
            let (cpu, own_cpu) = (gateway.cpu_seconds(), cpu_seconds(std::process::id()));

            victims.record(true);
            let begin = Instant::now();
            let attackers = small().spawn_scoped(scope, || attack_with(run, &scene))?;
            std::thread::sleep(options.duration);
            scene.end();
            let percent = |seconds: f64| seconds / begin.elapsed().as_secs_f64() * 100.0;
            figures.cpu_percent = percent(gateway.cpu_seconds() - cpu);
            figures.program_cpu_percent = percent(cpu_seconds(std::process::id()) - own_cpu);
            attackers.join().map_err(|_| anyhow!("the attack panicked"))?;

            let ended = Instant::now();
            figures.is_normal = recover(&scene, gateway, options);
            figures.recovery_seconds = ended.elapsed().as_secs_f64();
            victims.record(false);
            if let Some(status) = gateway.exit_status() {
                figures.peak_mib = f64::NAN;
                figures.end = Some(status);
                figures.failures.push(gateway.log());
                return Ok(());
            }
            if !figures.is_normal {
                figures.failures.push(format!("not back to normal after {:?}", options.recovery_max));
            }
            wipe(&scene, figures, options);
            let ended = Instant::now();
            let left = freed(gateway, before, is_sluicegate);
            figures.freed_seconds = ended.elapsed().as_secs_f64();
            // Requests of the attack may have been in progress until now.
            let peak = gateway.memory_peak();
            let stored = attack.stores_mib * MIB;
            if peak > before + stored + options.budget + ALLOWANCE {
                figures.failures.push(format!(
                    "{} MiB at peak: {} before, {} for stored groups, {} of budget",
                    peak / MIB,
                    before / MIB,
                    stored / MIB,
                    options.budget / MIB
                ));
            }
            (figures.before_mib, figures.peak_mib, figures.left_mib) = (mib(before), mib(peak), mib(left));
            if is_sluicegate && left > before + LEFT_MAX {
                // Whether the allocator keeps this memory for the next time, or it is lost.
                scene.restart();
                let again = (attack.prepare)(&scene)?;
                let attackers = small().spawn_scoped(scope, || attack_with(again, &scene))?;
                std::thread::sleep(options.duration);
                scene.end();
                attackers.join().map_err(|_| anyhow!("the attack panicked"))?;
                recover(&scene, gateway, options);
                wipe(&scene, figures, options);
                let left_again = freed(gateway, before, is_sluicegate);
                if left_again > left + LEFT_MAX / 2 {
                    figures.failures.push(format!(
                        "{} MiB remain, {} before, {} after a second attack",
                        left / MIB,
                        before / MIB,
                        left_again / MIB
                    ));
                }
            }
            Ok(())
        })();
        scene.end();
        victims.end();
        if !is_sluicegate {
            // Its clients need not wait for responses that never come.
            gateway.kill();
        }
        result
    })?;
    figures.add(victims.seen());
    Ok(())
}

/// Plays the part of the attackers.
fn attack_with(play: Play, scene: &Scene) {
    lower_priority();
    play(scene);
}

/// Waits until a push and a scrape on new connections work as always; `false` if they do not.
fn recover(scene: &Scene, gateway: &mut Gateway, options: &Options) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < options.recovery_max && gateway.exit_status().is_none() {
        let is_ok = |request: &[u8]| {
            exchange_once(&scene.target, request, NORMAL_MAX).is_ok_and(|status| status / 100 == 2)
        };
        if is_ok(&push_of(CLIENTS, 1)) && is_ok(&get("/metrics")) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Deletes everything.
fn wipe(scene: &Scene, figures: &mut Figures, options: &Options) {
    let wipe = request("PUT", "/api/v1/admin/wipe", &[], b"");
    match exchange_once(&scene.target, &wipe, options.recovery_max) {
        Ok(202) => {}
        Ok(status) => figures.failures.push(format!("deleting everything: {status}")),
        Err(error) => figures.failures.push(format!("deleting everything: {error}")),
    }
}

/// The memory that remains after a moment. Other programs get only a short one.
fn freed(gateway: &Gateway, before: u64, is_sluicegate: bool) -> u64 {
    let begin = Instant::now();
    let free_max = if is_sluicegate { FREE_MAX } else { UNCHANGED };
    let mut last = (gateway.memory(), begin);
    loop {
        let left = gateway.memory();
        if left.abs_diff(last.0) > MIB {
            last = (left, Instant::now());
        }
        if left > before + LEFT_MAX && last.1.elapsed() > UNCHANGED {
            return left;
        }
        let patience = if left <= before + LEFT_MAX { SETTLE } else { free_max };
        if left <= before + LEFT_MAX / 4 || begin.elapsed() > patience {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

impl Figures {
    fn add(&mut self, mut seen: Seen) {
        seen.push_micros.sort_unstable();
        seen.scrape_micros.sort_unstable();
        let quantile = |sorted: &[u32], quantile: f64| {
            let at = (sorted.len() as f64 * quantile) as usize;
            sorted
                .get(at.min(sorted.len().saturating_sub(1)))
                .map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
        };
        self.pushes = seen.push_micros.len();
        self.push_p50_ms = quantile(&seen.push_micros, 0.5);
        self.push_p99_ms = quantile(&seen.push_micros, 0.99);
        self.push_max_ms = quantile(&seen.push_micros, 1.0);
        self.scrapes = seen.scrape_micros.len();
        self.scrape_p99_ms = quantile(&seen.scrape_micros, 0.99);
        self.push_failures = seen.push_failures;
        self.scrape_failures = seen.scrape_failures;
        self.failures
            .extend(seen.wrong_scrapes.into_iter().take(3).map(|problem| format!("wrong scrape: {problem}")));
    }
}
