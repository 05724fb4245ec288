//! Scenarios: the plan made from the flags, and the generator that decides which request comes next.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::flags::{LoadFlags, Scenario};
use crate::history::Operation;
use crate::schema::{GroupClass, GroupId, Schema};

/// Groups of the contested class and of the class with large bodies in `mixed`.
const MIXED_SIDE_GROUPS: u32 = 8;

/// A scenario with all its numbers.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenario.
    pub scenario: Scenario,
    /// Requests in flight at a time.
    pub connections: usize,
    /// Requests per second in an open loop; `None` in a closed loop.
    pub rate: Option<f64>,
    /// Number of groups in the first class.
    pub groups: u32,
    /// Families per push.
    pub families: usize,
    /// Series per family.
    pub series: usize,
    /// Exponent of the Zipf distribution of groups; 0 is uniform.
    pub zipf: f64,
    /// Number of scrapers.
    pub scrapers: usize,
    /// Time between the scrapes of one scraper.
    pub scrape_interval: Duration,
}

/// A request that the generator chose.
#[derive(Debug, Clone, Copy)]
pub struct PlannedRequest {
    /// The group.
    pub group: GroupId,
    /// The shape of the body.
    pub shape: usize,
    /// What the request does.
    pub operation: Operation,
    /// It uses a connection of its own, as a short-lived job does.
    pub new_connection: bool,
}

impl Plan {
    /// The defaults of a scenario with the flags applied.
    pub fn new(scenario: Scenario, load: &LoadFlags) -> Self {
        let defaults = Self::defaults(scenario);
        let rate = load.rate.or(defaults.rate).filter(|rate| *rate > 0.0);
        Self {
            scenario,
            connections: load.connections.unwrap_or(defaults.connections).clamp(1, 1 << 16),
            rate,
            groups: load.groups.unwrap_or(defaults.groups).clamp(1, 1_000_000),
            families: load.families.unwrap_or(defaults.families).clamp(1, 10_000),
            series: load.series.unwrap_or(defaults.series).clamp(2, 10_000),
            zipf: load.zipf.unwrap_or(defaults.zipf).max(0.0),
            scrapers: load.scrapers.unwrap_or(defaults.scrapers).min(64),
            scrape_interval: load.scrape_interval.unwrap_or(defaults.scrape_interval),
        }
    }

    fn defaults(scenario: Scenario) -> Self {
        let steady = Self {
            scenario,
            connections: 64,
            rate: None,
            groups: 1000,
            families: 4,
            series: 5,
            zipf: 0.0,
            scrapers: 1,
            scrape_interval: Duration::from_secs(1),
        };
        let every = Duration::from_millis;
        match scenario {
            Scenario::Fleet => Self { rate: Some(1000.0), zipf: 1.0, ..steady },
            Scenario::Steady => steady,
            Scenario::Scrape => {
                Self { connections: 8, rate: Some(200.0), scrapers: 4, scrape_interval: every(250), ..steady }
            }
            Scenario::Mixed => Self {
                rate: Some(2000.0),
                groups: 500,
                zipf: 1.0,
                scrapers: 2,
                scrape_interval: every(500),
                ..steady
            },
            Scenario::Contention => Self {
                connections: 16,
                groups: 4,
                series: 4,
                scrapers: 2,
                scrape_interval: every(20),
                ..steady
            },
            Scenario::Churn => {
                Self { connections: 32, groups: 500, scrapers: 2, scrape_interval: every(200), ..steady }
            }
            Scenario::Big => Self {
                connections: 4,
                groups: 8,
                families: 200,
                series: 25,
                scrape_interval: every(500),
                ..steady
            },
        }
    }

    /// The groups and families of a run.
    pub fn schema(&self, run: String) -> Schema {
        let (families, series) = (self.families, self.series);
        let classes = match self.scenario {
            Scenario::Contention => vec![GroupClass::with_contested_family("c", families, series)],
            Scenario::Mixed => vec![
                GroupClass::with_subsets("m", families, series),
                GroupClass::with_contested_family("c", families, series),
                GroupClass::new("big", 40, 12),
            ],
            Scenario::Fleet | Scenario::Steady | Scenario::Scrape | Scenario::Churn => {
                vec![GroupClass::with_subsets("m", families, series)]
            }
            Scenario::Big => vec![GroupClass::new("b", families, series)],
        };
        Schema { classes, run }
    }

    /// Length of the body of an ordinary push.
    pub fn body_bytes(&self, schema: &Schema) -> usize {
        schema.body_bytes(GroupId::new(0, 0), 0)
    }
}

/// The writers of one thread: `count` writers from number `first`, on thread `thread` of `threads`.
#[derive(Debug, Clone, Copy)]
pub struct WriterRange {
    /// Number of the thread.
    pub thread: usize,
    /// Number of threads.
    pub threads: usize,
    /// Number of the first writer in the run.
    pub first: usize,
    /// Number of writers on this thread.
    pub count: usize,
}

/// Chooses the requests of the writers of one thread.
pub struct RequestGenerator {
    plan: Plan,
    random: SmallRng,
    zipf: Option<Zipf<f64>>,
    /// Number of shapes of each class.
    shapes: Vec<usize>,
    /// Number of requests of each writer.
    turns: Vec<u32>,
    first_writer: usize,
    /// The newest group of this thread (`churn`). Threads use interleaved numbers, `stride` apart.
    newest: u32,
    stride: u32,
}

impl RequestGenerator {
    /// A generator for the writers of one thread; the same seed gives the same requests.
    pub fn new(plan: &Plan, schema: &Schema, seed: u64, writers: WriterRange) -> Self {
        let random =
            SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(writers.thread as u64));
        let zipf = (plan.zipf > 0.0).then(|| Zipf::new(f64::from(plan.groups), plan.zipf).ok()).flatten();
        Self {
            plan: plan.clone(),
            random,
            zipf,
            shapes: schema.classes.iter().map(|class| class.shapes.len()).collect(),
            turns: vec![0; writers.count],
            first_writer: writers.first,
            newest: writers.thread as u32,
            stride: writers.threads as u32,
        }
    }

    /// A random number from 0 up to, but not including, 1.
    pub fn fraction(&mut self) -> f64 {
        self.random.random::<f64>()
    }

    /// The next request of a writer; `writer` counts within the thread.
    pub fn next(&mut self, writer: usize) -> PlannedRequest {
        let on_new_connection =
            |operation, group| PlannedRequest { group, shape: 0, operation, new_connection: true };
        let on_kept_connection =
            |operation, group| PlannedRequest { group, shape: 0, operation, new_connection: false };
        match self.plan.scenario {
            Scenario::Fleet => {
                let group = self.group();
                let operation = if self.random.random_bool(0.9) { Operation::Put } else { Operation::Post };
                on_new_connection(operation, group)
            }
            Scenario::Steady | Scenario::Scrape | Scenario::Big => {
                let turn = self.turns[writer];
                self.turns[writer] = turn.wrapping_add(1);
                let connections = self.plan.connections as u32;
                let per_writer = (self.plan.groups / connections).max(1);
                let number = ((self.first_writer + writer) as u32 + (turn % per_writer) * connections)
                    % self.plan.groups;
                on_kept_connection(Operation::Put, GroupId::new(0, number))
            }
            Scenario::Contention => {
                let number = self.random.random_range(0..self.plan.groups);
                self.contended_request(GroupId::new(0, number))
            }
            Scenario::Churn => self.churn(),
            Scenario::Mixed => match self.random.random_range(0..100) {
                0..40 => {
                    let group = self.group();
                    on_new_connection(Operation::Put, group)
                }
                40..75 => {
                    let group = self.group();
                    self.push_of_any_shape(group)
                }
                75..94 => {
                    let number = self.random.random_range(0..MIXED_SIDE_GROUPS);
                    let request = self.contended_request(GroupId::new(1, number));
                    PlannedRequest { new_connection: true, ..request }
                }
                94..98 => {
                    let group = self.group();
                    on_kept_connection(Operation::Delete, group)
                }
                _ => {
                    let number = self.random.random_range(0..MIXED_SIDE_GROUPS);
                    on_kept_connection(Operation::Put, GroupId::new(2, number))
                }
            },
        }
    }

    /// A group of the first class.
    fn group(&mut self) -> GroupId {
        let number = match &self.zipf {
            Some(zipf) => zipf.sample(&mut self.random) as u32 - 1,
            None => self.random.random_range(0..self.plan.groups),
        };
        GroupId::new(0, number.min(self.plan.groups - 1))
    }

    /// PUT or POST; half of the pushes carry all families, the others any shape.
    fn push_of_any_shape(&mut self, group: GroupId) -> PlannedRequest {
        let operation = if self.random.random_bool(0.5) { Operation::Put } else { Operation::Post };
        let shape = if self.random.random_bool(0.5) {
            0
        } else {
            self.random.random_range(0..self.shapes[group.class()])
        };
        PlannedRequest { group, shape, operation, new_connection: false }
    }

    /// PUT, POST, DELETE or an invalid push.
    fn contended_request(&mut self, group: GroupId) -> PlannedRequest {
        let mut request = self.push_of_any_shape(group);
        match self.random.random_range(0..100) {
            0..8 => (request.operation, request.shape) = (Operation::Delete, 0),
            8..14 => request.operation = Operation::Malformed,
            14..22 => request.operation = Operation::Inconsistent,
            _ => {}
        }
        request
    }

    /// Keeps a fixed number of groups alive: new groups replace the oldest.
    fn churn(&mut self) -> PlannedRequest {
        let alive = self.plan.groups * self.stride;
        let oldest = self.newest.saturating_sub(alive);
        let request = |operation, group| PlannedRequest { group, shape: 0, operation, new_connection: false };
        match self.random.random_range(0..4) {
            0 => {
                self.newest += self.stride;
                request(Operation::Put, GroupId::new(0, self.newest))
            }
            1 if self.newest >= alive => {
                let number = oldest.saturating_sub(self.random.random_range(0..3) * self.stride);
                request(Operation::Delete, GroupId::new(0, number))
            }
            _ => {
                let number = self.random.random_range(oldest..=self.newest);
                self.push_of_any_shape(GroupId::new(0, number))
            }
        }
    }
}
