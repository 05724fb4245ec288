//! Pages of groups for people: those that match, in the order of their pushes.
//!
//! A core goes through its groups in slices, and of each slice only those are handed out that may be on the page: so a page
//! costs one look at each group, but never holds the core for long.

// A value; there is no IO in `core`.
use core::net::SocketAddr;
use std::cmp::Ordering;
use std::sync::Arc;

use super::Shard;
use super::tables::Group;
use crate::exposition::labels::read_labels;
use crate::exposition::selector::Selector;

/// What a slice may cost, in bytes of keys and names looked at; about half a millisecond.
const SLICE_COST: usize = 64 * 1024;
/// What a group costs besides.
const GROUP_COST: usize = 64;
/// An expression costs so much more than a comparison.
const SELECTOR_FACTOR: usize = 4;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct GroupQuery {
    /// One of these must match; none means all groups.
    pub selectors: Vec<Selector>,
    /// Whether the oldest push comes first.
    pub oldest_first: bool,
    /// The page begins behind this place.
    pub after: Option<Position>,
    /// Groups on a page.
    pub limit: usize,
}

/// A group's place in the order: the time of its last successful push, and among equal ones a hash of its key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Unix seconds, 0 when there was none.
    pub push_seconds: f64,
    /// Of the key's text.
    pub hash: u64,
}

impl Position {
    fn of(group: &Group) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(group.key.as_bytes());
        Self { push_seconds: group.push_seconds, hash }
    }

    /// The order of a page.
    pub fn compare(&self, other: &Self, oldest_first: bool) -> Ordering {
        let (first, second) = if oldest_first { (self, other) } else { (other, self) };
        first.push_seconds.total_cmp(&second.push_seconds).then(self.hash.cmp(&other.hash))
    }
}

/// A group on a page.
#[derive(Debug, Clone)]
pub struct ListedGroup {
    /// Its place.
    pub position: Position,
    /// The grouping key's text, see [`super::key::GroupingKey::text`].
    pub key: Arc<str>,
    /// Unix seconds of the last refused push, 0 when there was none.
    pub failure_seconds: f64,
    /// Unix seconds of its first push, successful or not.
    pub created_seconds: f64,
    /// How many families it holds, without both push times.
    pub families: usize,
    /// The last refusal.
    pub refusal: Option<Arc<Refusal>>,
}

/// A refused push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, as the client was told; long reasons are cut.
    pub reason: Box<str>,
    /// Where it came from.
    pub source: Option<SocketAddr>,
}

impl Refusal {
    /// A group keeps so much of a reason.
    const REASON_BYTES_MAX: usize = 512;

    pub(super) fn new(reason: &str, source: Option<SocketAddr>) -> Arc<Self> {
        let end =
            (0..=reason.len().min(Self::REASON_BYTES_MAX)).rev().find(|at| reason.is_char_boundary(*at));
        Arc::new(Self { reason: reason[..end.unwrap_or(0)].into(), source })
    }
}

/// What a slice of groups brought.
#[derive(Debug, Default)]
pub struct Listed {
    /// In the order of the page, no more than fit on it.
    pub groups: Vec<ListedGroup>,
    /// How many match, on whatever page.
    pub matching: usize,
    /// Where the next slice begins, `None` at the end.
    pub next: Option<u32>,
}

impl Shard {
    /// Goes through some groups from a place in the shard's own order on.
    pub fn list(&self, query: &GroupQuery, from: u32) -> Listed {
        let mut listed = Listed::default();
        let mut cost = 0;
        for (number, group) in self.groups.from(from) {
            if cost >= SLICE_COST {
                listed.next = Some(number);
                break;
            }
            cost += GROUP_COST + group.key.len();
            if !self.matches(group, &query.selectors, &mut cost) {
                continue;
            }
            listed.matching += 1;
            let position = Position::of(group);
            let is_behind =
                |after: Position| position.compare(&after, query.oldest_first) == Ordering::Greater;
            if query.after.is_none_or(is_behind) {
                listed.groups.push(ListedGroup {
                    position,
                    key: group.key.clone(),
                    failure_seconds: group.failure_seconds,
                    created_seconds: group.created_seconds,
                    families: group.held.len(),
                    refusal: group.refusal.clone(),
                });
            }
        }
        listed.groups = query.page(std::mem::take(&mut listed.groups));
        listed
    }

    /// Whether a group has these labels and holds a metric of such a name. Adds what it costs to find out.
    fn matches(&self, group: &Group, selectors: &[Selector], cost: &mut usize) -> bool {
        if selectors.is_empty() {
            return true;
        }
        let labels = read_labels(&group.key);
        selectors.iter().any(|selector| {
            *cost += SELECTOR_FACTOR * group.key.len();
            if !selector.matches_labels(&labels) {
                return false;
            }
            !selector.asks_for_name()
                || group.held.iter().any(|held| {
                    let name = &self.families[held.family].shared.name;
                    *cost += SELECTOR_FACTOR * name.len();
                    selector.matches_name(name)
                })
        })
    }
}

impl GroupQuery {
    /// The first groups of some, in the order asked for: as many as fit on a page.
    pub fn page(&self, mut groups: Vec<ListedGroup>) -> Vec<ListedGroup> {
        groups.sort_unstable_by(|a, b| a.position.compare(&b.position, self.oldest_first));
        groups.truncate(self.limit);
        groups
    }
}
