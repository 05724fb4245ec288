//! The record of a run: every request with its times and its outcome, and every scrape with what it showed.
//!
//! Times are nanoseconds since the run began, from one monotonic clock. A state that a scraper sees repeatedly without a
//! change is recorded once, with the first and the last scrape that showed it. The state includes its push time, which no
//! other push has, so the group had this state during the whole interval.

use std::collections::HashMap;

use crate::schema::{GroupId, MetricType, PushId};
use crate::violation::ViolationKind;

/// Later than every other time.
pub const NEVER: u64 = u64::MAX;
/// Value of a slot that has no family.
pub const ABSENT: u64 = 0;
/// The type of a slot value is above this bit, the push identifier below.
const TYPE_SHIFT: u32 = 60;
/// Flaws recorded per scraper; further ones are only counted.
const FLAWS_MAX: usize = 100;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Replaces the group.
    Put,
    /// Replaces the families in the body.
    Post,
    /// Deletes the group.
    Delete,
    /// PUT or POST of a body that cannot be parsed. The gateway must reject it without any effect.
    Malformed,
    /// PUT or POST of a body that contradicts itself. The gateway must reject it, set the failure time and keep the content.
    Inconsistent,
}

impl Operation {
    /// Whether the gateway must reject the request.
    pub fn is_invalid(self) -> bool {
        matches!(self, Self::Malformed | Self::Inconsistent)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Accepted,
    /// 400 from the consistency check, which sets the failure time.
    Inconsistent,
    /// Any other 4xx: no effect.
    Rejected,
    /// 5xx or another status: the effect is unknown.
    Unknown(u16),
    /// No response: the connection broke, or the request timed out.
    Lost,
    /// The request was never sent.
    NotSent,
}

/// One request. Its position in [`History::requests`] gives its [`PushId`].
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// When the first byte was passed to the kernel.
    pub start: u64,
    /// When the response was complete; [`NEVER`] without a response.
    pub end: u64,
    /// The group.
    pub group: GroupId,
    /// The shape of the body, an index into [`crate::schema::GroupClass::shapes`].
    pub shape: u16,
    /// What it does.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
}

/// A scrape with a complete response.
#[derive(Debug, Clone, Copy)]
pub struct Scrape {
    /// When it was requested.
    pub start: u64,
    /// When the last byte arrived.
    pub end: u64,
}

/// A group as one scraper saw it, in all its scrapes from `first` to `last`.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// The group.
    pub group: GroupId,
    /// Index of the first scrape in [`ScrapeLog::scrapes`].
    pub first: u32,
    /// Index of the last scrape.
    pub last: u32,
    /// Bits of `push_time_seconds`.
    pub pushed: u64,
    /// Bits of `push_failure_time_seconds`.
    pub failed: u64,
    /// Where its slots begin in [`ScrapeLog::slots`].
    slots_at: u32,
}

/// An error that one scrape proves by itself.
#[derive(Debug, Clone)]
pub struct Flaw {
    /// Kind of violation.
    pub kind: ViolationKind,
    /// The scrape.
    pub scrape: Scrape,
    /// Description for people.
    pub text: String,
}

/// Everything that one scraper saw.
#[derive(Debug, Default)]
pub struct ScrapeLog {
    /// In order of time.
    pub scrapes: Vec<Scrape>,
    /// The groups in these scrapes.
    pub observations: Vec<Observation>,
    /// Errors found while reading a scrape.
    pub flaws: Vec<Flaw>,
    /// Number of flaws beyond [`FLAWS_MAX`].
    pub flaws_dropped: usize,
    slots: Vec<u64>,
    latest: HashMap<GroupId, usize>,
}

/// The record of a run.
#[derive(Debug, Default)]
pub struct History {
    /// By writer, then in the order of sending.
    pub requests: Vec<Vec<Request>>,
    /// By scraper.
    pub scrape_logs: Vec<ScrapeLog>,
    /// Times between the end of a killed process and the start of the next. No request was in flight then.
    pub kills: Vec<u64>,
    /// A DELETE may take effect after its response, but before later pushes do.
    pub late_deletes: bool,
}

/// Packs what a scrape showed of a family: the push and the type.
pub fn pack_slot(push: PushId, metric_type: MetricType) -> u64 {
    let number = MetricType::ALL.iter().position(|other| *other == metric_type).unwrap_or(0) as u64;
    push.0 | (number << TYPE_SHIFT)
}

/// Inverse of [`pack_slot`]; `None` if the family was absent.
pub fn unpack_slot(slot: u64) -> Option<(PushId, MetricType)> {
    let push = slot & ((1 << TYPE_SHIFT) - 1);
    (slot != ABSENT).then(|| (PushId(push), MetricType::ALL[(slot >> TYPE_SHIFT) as usize % 4]))
}

impl ScrapeLog {
    /// Starts the next scrape; observations and flaws that follow belong to it.
    pub fn begin(&mut self, scrape: Scrape) {
        self.scrapes.push(scrape);
    }

    /// Records a group in the current scrape.
    pub fn observe(&mut self, group: GroupId, pushed: u64, failed: u64, slots: &[u64]) {
        let now = self.scrapes.len() as u32 - 1;
        if let Some(latest) = self.latest.get(&group) {
            let known = self.observations[*latest];
            let same =
                known.pushed == pushed && known.failed == failed && self.slots(&known, slots.len()) == slots;
            if known.last + 1 == now && same {
                self.observations[*latest].last = now;
                return;
            }
        }
        let slots_at = self.slots.len() as u32;
        self.slots.extend_from_slice(slots);
        self.latest.insert(group, self.observations.len());
        self.observations.push(Observation { group, first: now, last: now, pushed, failed, slots_at });
    }

    /// Records a flaw of the current scrape.
    pub fn record_flaw(&mut self, kind: ViolationKind, text: String) {
        if self.flaws.len() < FLAWS_MAX {
            let scrape = *self.scrapes.last().expect("a scrape was begun");
            self.flaws.push(Flaw { kind, scrape, text });
        } else {
            self.flaws_dropped += 1;
        }
    }

    /// The slots of an observation; see [`unpack_slot`].
    pub fn slots(&self, observation: &Observation, slot_count: usize) -> &[u64] {
        let begin = observation.slots_at as usize;
        &self.slots[begin..begin + slot_count]
    }
}

impl History {
    /// The request with this identifier.
    pub fn request(&self, push: PushId) -> Option<&Request> {
        self.requests.get(push.writer())?.get(push.sequence()?)
    }
}
