//! Pages of groups for people: the groups that match a query, in the order of their pushes.
//!
//! A core scans its groups in slices and returns from each slice only the groups that can be on the page. A page therefore costs
//! one look at each group, but never blocks the core for long.

// A value; there is no IO in `core`.
use core::net::SocketAddr;
use std::cmp::Ordering;
use std::sync::Arc;

use super::Shard;
use super::tables::Group;
use crate::exposition::labels::read_labels;
use crate::exposition::selector::Selector;

/// The maximum cost of a slice, in bytes of keys and names; about half a millisecond.
const SLICE_COST: usize = 64 * 1024;
/// The cost of a group beside its key and names.
const GROUP_COST: usize = 64;
/// How much more matching a selector costs than comparing keys.
const SELECTOR_FACTOR: usize = 4;

/// A query for a page of groups.
#[derive(Debug, Clone, Default)]
pub struct GroupQuery {
    /// A group matches if one of these does, or if there are none.
    pub selectors: Vec<Selector>,
    /// The order of the groups.
    pub order: PushOrder,
    /// The page begins after this position.
    pub after: Option<Position>,
    /// The maximum number of groups on the page.
    pub limit: usize,
}

/// In which order groups are listed, by the time of their last successful push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PushOrder {
    /// The latest push first.
    #[default]
    LatestFirst,
    /// The oldest push first.
    OldestFirst,
}

/// A group's position in the order: the time of its last successful push, then a hash of its key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Unix seconds of the last successful push, 0 if there was none.
    pub push_seconds: f64,
    /// The hash of the key's text.
    pub hash: u64,
}

impl Position {
    fn of(group: &Group) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(group.key.as_bytes());
        Self { push_seconds: group.push_seconds, hash }
    }

    /// Compares two positions in the order of a page.
    fn compare(&self, other: &Self, order: PushOrder) -> Ordering {
        let (first, second) = match order {
            PushOrder::LatestFirst => (other, self),
            PushOrder::OldestFirst => (self, other),
        };
        first.push_seconds.total_cmp(&second.push_seconds).then(self.hash.cmp(&other.hash))
    }
}

/// A group on a page.
#[derive(Debug, Clone)]
pub struct ListedGroup {
    /// Its position.
    pub position: Position,
    /// The grouping key's text, see [`super::key::GroupingKey::text`].
    pub key: Arc<str>,
    /// Unix seconds of the last failed push, 0 if there was none.
    pub failure_seconds: f64,
    /// Unix seconds of its first push, successful or not.
    pub created_seconds: f64,
    /// The number of its families, without both push times.
    pub families: usize,
    /// The last failed push since the gateway started.
    pub last_failure: Option<Arc<FailedPush>>,
}

/// A push that failed because it was inconsistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedPush {
    /// The reason, as in the response, but a long one is cut.
    pub reason: Box<str>,
    /// The address of the client.
    pub source: Option<SocketAddr>,
}

impl FailedPush {
    /// The longest reason that is kept.
    const REASON_BYTES_MAX: usize = 512;

    pub(super) fn new(reason: &str, source: Option<SocketAddr>) -> Arc<Self> {
        let end =
            (0..=reason.len().min(Self::REASON_BYTES_MAX)).rev().find(|at| reason.is_char_boundary(*at));
        Arc::new(Self { reason: reason[..end.unwrap_or(0)].into(), source })
    }
}

/// The result of scanning a slice of groups.
#[derive(Debug, Default)]
pub struct Listed {
    /// Groups in the order of the page, at most as many as fit on it.
    pub groups: Vec<ListedGroup>,
    /// How many groups match, on this page or another.
    pub matching: usize,
    /// Where the next slice begins; `None` at the end.
    pub next: Option<u32>,
}

impl Shard {
    /// Scans a slice of groups that begins at a group number.
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
            let is_after = |after: Position| position.compare(&after, query.order) == Ordering::Greater;
            if query.after.is_none_or(is_after) {
                listed.groups.push(ListedGroup {
                    position,
                    key: group.key.clone(),
                    failure_seconds: group.failure_seconds,
                    created_seconds: group.created_seconds,
                    families: group.families.len(),
                    last_failure: group.last_failure.clone(),
                });
            }
        }
        listed.groups = query.page(std::mem::take(&mut listed.groups));
        listed
    }

    /// Whether one of the selectors matches the group. Adds the cost of that to `cost`.
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
            !selector.has_name_matchers()
                || group.families.iter().any(|family| {
                    let name = &self.families[family.number].shared.name;
                    *cost += SELECTOR_FACTOR * name.len();
                    selector.matches_name(name)
                })
        })
    }
}

impl GroupQuery {
    /// Sorts groups in the order of the page and keeps as many as fit on it.
    pub fn page(&self, mut groups: Vec<ListedGroup>) -> Vec<ListedGroup> {
        groups.sort_unstable_by(|a, b| a.position.compare(&b.position, self.order));
        groups.truncate(self.limit);
        groups
    }
}
