//! Kills the gateway at random moments under load, and restarts it.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::shared::RunState;
use crate::gateway::Gateway;

/// How long the writers wait for a scrape after a restart.
const FIRST_SCRAPE_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at the state of the other threads.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Kills the gateway until `is_done`, on average every `interval`. Returns the times between its lives.
pub fn run(
    state: &RunState<'_>,
    gateway: &Mutex<&mut Gateway<'_>>,
    interval: Duration,
    is_done: &dyn Fn() -> bool,
) -> Result<Vec<u64>> {
    let mut random = SmallRng::seed_from_u64(state.load.seed ^ 0x6b69_6c6c);
    let mut kills = Vec::new();
    loop {
        let until = Instant::now() + interval.mul_f64(random.random_range(0.5..1.5));
        while Instant::now() < until {
            if is_done() {
                return Ok(kills);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let mut gateway = super::lock(gateway);
        gateway.kill()?;
        state.writers_paused.store(true, Ordering::SeqCst);
        state.scrapers_paused.store(true, Ordering::SeqCst);
        // All connections are broken. Once all threads have noticed, nothing of the old process is in flight.
        while !state.is_idle() {
            std::thread::sleep(POLL_INTERVAL);
        }
        kills.push(state.now());
        gateway.restart().context("restart after a kill")?;
        drop(gateway);
        wait_for_first_scrape(state);
        state.writers_paused.store(false, Ordering::SeqCst);
    }
}

/// Lets the scrapers continue and waits for a scrape: it must show what survived before new pushes change it.
fn wait_for_first_scrape(state: &RunState<'_>) {
    let scrapes = state.scrapes.load(Ordering::SeqCst);
    state.scrapers_paused.store(false, Ordering::SeqCst);
    let begin = Instant::now();
    while state.plan.scrapers > 0
        && state.scrapes.load(Ordering::SeqCst) == scrapes
        && begin.elapsed() < FIRST_SCRAPE_MAX
    {
        std::thread::sleep(POLL_INTERVAL);
    }
}
