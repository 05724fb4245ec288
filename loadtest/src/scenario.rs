//! Flags → plan: what groups there are, and which request comes next.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::flags::{Load, Scenario};
use crate::history::Ask;
use crate::schema::{Class, Group, Layout};

/// A scenario with all its numbers.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which one.
    pub scenario: Scenario,
    /// Requests under way at a time.
    pub connections: usize,
    /// Requests a second; `None` in a closed loop.
    pub rate: Option<f64>,
    /// Groups of the first class.
    pub groups: u32,
    /// Families of a push.
    pub families: usize,
    /// Series of a family.
    pub series: usize,
    /// Exponent of Zipf's distribution; 0: all alike.
    pub zipf: f64,
    /// Scrapers.
    pub scrapers: usize,
    /// Time from scrape to scrape.
    pub scrape_interval: Duration,
}

/// One request to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// To which group.
    pub group: Group,
    /// With which families.
    pub shape: usize,
    /// What it asks for.
    pub ask: Ask,
    /// On a connection of its own.
    pub fresh: bool,
}

impl Plan {
    /// Fills in what was not given.
    pub fn new(scenario: Scenario, load: &Load) -> Self {
        // connections, rate, groups, families, series, zipf, scrapers, milliseconds between scrapes
        let (connections, rate, groups, families, series, zipf, scrapers, interval) = match scenario {
            Scenario::Fleet => (64, 1000.0, 1000, 4, 5, 1.0, 1, 1000),
            Scenario::Steady => (64, 0.0, 1000, 4, 5, 0.0, 1, 1000),
            Scenario::Scrape => (8, 200.0, 1000, 4, 5, 0.0, 4, 250),
            Scenario::Mixed => (64, 2000.0, 500, 4, 5, 1.0, 2, 500),
            Scenario::Contention => (16, 0.0, 4, 4, 4, 0.0, 2, 20),
            Scenario::Churn => (32, 0.0, 500, 4, 5, 0.0, 2, 200),
            Scenario::Big => (4, 0.0, 8, 200, 25, 0.0, 1, 500),
        };
        let rate = load.rate.unwrap_or(rate);
        Self {
            scenario,
            connections: load.connections.unwrap_or(connections).clamp(1, 1 << 16),
            rate: (rate > 0.0).then_some(rate),
            groups: load.groups.unwrap_or(groups).clamp(1, 1_000_000),
            families: load.families.unwrap_or(families).clamp(1, 10_000),
            series: load.series.unwrap_or(series).clamp(2, 10_000),
            zipf: load.zipf.unwrap_or(zipf).max(0.0),
            scrapers: load.scrapers.unwrap_or(scrapers).min(64),
            scrape_interval: load.scrape_interval.unwrap_or(Duration::from_millis(interval)),
        }
    }

    /// The groups of a run.
    pub fn layout(&self, run: String) -> Layout {
        let (families, series) = (self.families, self.series);
        let classes = match self.scenario {
            Scenario::Contention => vec![Class::with_contested("c", families, series)],
            Scenario::Mixed => vec![
                Class::new("m", families, series, true),
                Class::with_contested("c", families, series),
                Class::new("big", 40, 12, false),
            ],
            Scenario::Fleet | Scenario::Steady | Scenario::Scrape | Scenario::Churn => {
                vec![Class::new("m", families, series, true)]
            }
            Scenario::Big => vec![Class::new("b", families, series, false)],
        };
        Layout { classes, run }
    }

    /// The bytes of an ordinary push.
    pub fn body_bytes(&self, layout: &Layout) -> usize {
        layout.body_bytes(Group::new(0, 0), 0)
    }
}

/// Decides what comes next, for the writers of one thread.
pub struct Workload {
    plan: Plan,
    random: SmallRng,
    zipf: Option<Zipf<f64>>,
    /// Shapes of each class.
    shapes: Vec<usize>,
    /// How many requests each writer got.
    turns: Vec<u32>,
    /// Groups that came so far (churn), and how far apart those of other threads are.
    newest: u32,
    stride: u32,
}

impl Workload {
    /// For the thread `thread` of `threads`, which has `writers` writers.
    pub fn new(
        plan: &Plan,
        layout: &Layout,
        seed: u64,
        thread: usize,
        threads: usize,
        writers: usize,
    ) -> Self {
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(thread as u64));
        let zipf = (plan.zipf > 0.0).then(|| Zipf::new(f64::from(plan.groups), plan.zipf).ok()).flatten();
        Self {
            plan: plan.clone(),
            random,
            zipf,
            shapes: layout.classes.iter().map(|class| class.shapes.len()).collect(),
            turns: vec![0; writers],
            newest: thread as u32,
            stride: threads as u32,
        }
    }

    /// A number between 0 and 1.
    pub fn chance(&mut self) -> f64 {
        self.random.random::<f64>()
    }

    /// The next request of a writer; `writer` counts within the run, `own` within the thread.
    pub fn next(&mut self, writer: usize, own: usize) -> Job {
        let whole = |ask, group, fresh| Job { group, shape: 0, ask, fresh };
        match self.plan.scenario {
            Scenario::Fleet => {
                let group = self.group(0);
                let ask = if self.random.random_bool(0.9) { Ask::Put } else { Ask::Post };
                whole(ask, group, true)
            }
            Scenario::Steady | Scenario::Scrape | Scenario::Big => {
                let turn = self.turns[own];
                self.turns[own] = turn.wrapping_add(1);
                let connections = self.plan.connections as u32;
                let per_writer = (self.plan.groups / connections).max(1);
                let number = (writer as u32 + (turn % per_writer) * connections) % self.plan.groups;
                whole(Ask::Put, Group::new(0, number), false)
            }
            Scenario::Contention => {
                let number = self.random.random_range(0..self.plan.groups);
                self.contend(Group::new(0, number), false)
            }
            Scenario::Churn => self.churn(0, false),
            Scenario::Mixed => match self.random.random_range(0..100) {
                0..40 => whole(Ask::Put, self.group(0), true),
                40..75 => {
                    let group = self.group(0);
                    self.pushed(group, false)
                }
                75..94 => {
                    let number = self.random.random_range(0..8);
                    self.contend(Group::new(1, number), self.turns[own].is_multiple_of(4))
                }
                94..98 => whole(Ask::Delete, self.group(0), false),
                _ => whole(Ask::Put, Group::new(2, self.random.random_range(0..8)), false),
            },
        }
    }

    fn group(&mut self, class: usize) -> Group {
        let number = match &self.zipf {
            Some(zipf) => zipf.sample(&mut self.random) as u32 - 1,
            None => self.random.random_range(0..self.plan.groups),
        };
        Group::new(class, number.min(self.plan.groups - 1))
    }

    /// PUT or POST of any of the shapes.
    fn pushed(&mut self, group: Group, fresh: bool) -> Job {
        let ask = if self.random.random_bool(0.5) { Ask::Put } else { Ask::Post };
        // Half of them bring everything.
        let shape = if self.random.random_bool(0.5) {
            0
        } else {
            self.random.random_range(0..self.shapes[group.class()])
        };
        Job { group, shape, ask, fresh }
    }

    fn contend(&mut self, group: Group, fresh: bool) -> Job {
        let mut job = self.pushed(group, fresh);
        match self.random.random_range(0..100) {
            0..8 => (job.ask, job.shape) = (Ask::Delete, 0),
            8..14 => job.ask = Ask::Garbage,
            14..22 => job.ask = Ask::Inconsistent,
            _ => {}
        }
        job
    }

    /// Some groups live at a time; a new one takes the place of the oldest.
    fn churn(&mut self, class: usize, fresh: bool) -> Job {
        let alive = self.plan.groups * self.stride;
        let oldest = self.newest.saturating_sub(alive);
        match self.random.random_range(0..4) {
            0 => {
                self.newest += self.stride;
                Job { group: Group::new(class, self.newest), shape: 0, ask: Ask::Put, fresh }
            }
            1 if self.newest >= alive => {
                let number = oldest.saturating_sub(self.random.random_range(0..3) * self.stride);
                Job { group: Group::new(class, number), shape: 0, ask: Ask::Delete, fresh }
            }
            _ => {
                let number = self.random.random_range(oldest..=self.newest);
                self.pushed(Group::new(class, number), fresh)
            }
        }
    }
}
