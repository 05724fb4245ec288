//! What happened in a run: every request with its times and its answer, every scrape with what it showed.
//!
//! Times are nanoseconds since the run began, from one monotonic clock. A state that a scraper sees again unchanged is
//! kept once, with the first and the last scrape that showed it: its push time is part of it, and no other push has the
//! same one, so it stood there all the time between.

use std::collections::HashMap;

use crate::schema::{Group, Kind, Version};

/// Later than everything.
pub const NEVER: u64 = u64::MAX;
/// A slot without a family.
pub const ABSENT: u64 = 0;
const KIND_SHIFT: u32 = 60;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Replace the group.
    Put,
    /// Replace the families named.
    Post,
    /// Forget the group.
    Delete,
    /// PUT or POST of what cannot be parsed: must be refused and touch nothing.
    Garbage,
    /// PUT or POST of what contradicts itself: must be refused, set the failure time, keep the content.
    Inconsistent,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 2xx.
    Done,
    /// 400, inconsistent: the failure time is set.
    Refused,
    /// Any other 4xx: nothing happened.
    Rejected,
    /// An answer that leaves open what happened: 5xx.
    Unknown(u16),
    /// No answer: the connection broke, or time was up.
    Lost,
    /// It was never sent.
    NotSent,
}

/// One request. Its writer and sequence number are its place in [`History::requests`].
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// When its first byte was handed to the kernel.
    pub start: u64,
    /// When its answer was there; [`NEVER`] without one.
    pub end: u64,
    /// The group.
    pub group: Group,
    /// The shape of its body.
    pub shape: u16,
    /// What it asks for.
    pub ask: Ask,
    /// What came back.
    pub answer: Answer,
}

/// A scrape that was answered whole.
#[derive(Debug, Clone, Copy)]
pub struct Scrape {
    /// When it was asked for.
    pub start: u64,
    /// When its last byte was there.
    pub end: u64,
}

/// A group as a scraper saw it, in all its scrapes from `first` to `last`.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    /// The group.
    pub group: Group,
    /// Index of a scrape.
    pub first: u32,
    /// Index of a scrape, the same or later.
    pub last: u32,
    /// Bits of `push_time_seconds`.
    pub pushed: u64,
    /// Bits of `push_failure_time_seconds`.
    pub failed: u64,
    /// Where its slots begin in [`Scrapes::slots`].
    at: u32,
}

/// Something wrong that one scrape shows by itself.
#[derive(Debug, Clone)]
pub struct Flaw {
    /// Which kind of violation.
    pub kind: &'static str,
    /// When the scrape was.
    pub scrape: Scrape,
    /// What is wrong, for a person.
    pub text: String,
}

/// All that one scraper saw.
#[derive(Debug, Default)]
pub struct Scrapes {
    /// In the order of time.
    pub times: Vec<Scrape>,
    /// What it saw.
    pub sights: Vec<Sight>,
    /// What was wrong at sight.
    pub flaws: Vec<Flaw>,
    /// Flaws beyond those kept.
    pub flaws_dropped: usize,
    slots: Vec<u64>,
    latest: HashMap<Group, usize>,
}

/// A run.
#[derive(Debug, Default)]
pub struct History {
    /// By writer, then in the order of sending.
    pub requests: Vec<Vec<Request>>,
    /// By scraper.
    pub scrapes: Vec<Scrapes>,
    /// Between the end of one process and the start of the next; nothing was under way then.
    pub crashes: Vec<u64>,
    /// A DELETE may take effect after its answer, as long as no later push has.
    pub late_deletes: bool,
}

/// What a slot showed: a version, and the type its family had.
pub fn shown(version: Version, kind: Kind) -> u64 {
    let number = Kind::ALL.iter().position(|other| *other == kind).unwrap_or(0) as u64;
    version.0 | (number << KIND_SHIFT)
}

/// The parts of what [`shown`] packed; `None` if the slot was absent.
pub fn read_shown(shown: u64) -> Option<(Version, Kind)> {
    let version = shown & ((1 << KIND_SHIFT) - 1);
    (shown != ABSENT).then(|| (Version(version), Kind::ALL[(shown >> KIND_SHIFT) as usize % 4]))
}

const FLAWS_KEPT: usize = 100;

impl Scrapes {
    /// Begins the next scrape; what it shows follows.
    pub fn begin(&mut self, scrape: Scrape) {
        self.times.push(scrape);
    }

    /// A group in the scrape begun last.
    pub fn sight(&mut self, group: Group, pushed: u64, failed: u64, slots: &[u64]) {
        let now = self.times.len() as u32 - 1;
        if let Some(latest) = self.latest.get(&group) {
            let known = self.sights[*latest];
            let same =
                known.pushed == pushed && known.failed == failed && self.slots(&known, slots.len()) == slots;
            if known.last + 1 == now && same {
                self.sights[*latest].last = now;
                return;
            }
        }
        let at = self.slots.len() as u32;
        self.slots.extend_from_slice(slots);
        self.latest.insert(group, self.sights.len());
        self.sights.push(Sight { group, first: now, last: now, pushed, failed, at });
    }

    /// Notes a flaw of the scrape begun last; beyond some hundred they are only counted.
    pub fn flaw(&mut self, kind: &'static str, text: String) {
        if self.flaws.len() < FLAWS_KEPT {
            let scrape = *self.times.last().expect("a scrape was begun");
            self.flaws.push(Flaw { kind, scrape, text });
        } else {
            self.flaws_dropped += 1;
        }
    }

    /// What a sight's slots showed; see [`read_shown`].
    pub fn slots(&self, sight: &Sight, slots: usize) -> &[u64] {
        &self.slots[sight.at as usize..sight.at as usize + slots]
    }
}

impl History {
    /// The request that a version names.
    pub fn request(&self, version: Version) -> Option<&Request> {
        self.requests.get(version.writer())?.get(version.sequence()?)
    }
}
