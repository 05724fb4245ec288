//! Pages of groups for people: the groups that match a query, in the order of their pushes.
//!
//! A core scans its groups in slices and returns from each slice only the groups that can be on the page. A page therefore costs
//! one look at each group, but never blocks the core for long.

// A value; there is no IO in `core`.
use core::net::SocketAddr;
use std::cmp::Ordering;
use std::sync::Arc;

use super::tables::Group;
use super::{LargeGroup, Shard};
use crate::exposition::labels::read_labels;
use crate::exposition::selector::Selector;

/// The maximum cost of a slice, in units of selectors; about half a millisecond. A group that costs more is decided elsewhere.
const SLICE_COST: u64 = 64 * 1024;
/// The cost of a group beside its key and names.
const GROUP_COST: u64 = 64;
/// The maximum bytes of the keys and reasons on a page, unless it has only one group.
const PAGE_BYTES_MAX: usize = 1 << 20;

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
    /// Whether groups were left out because the page had too many bytes.
    pub is_cut: bool,
    /// Groups whose matching would hold the core for too long.
    pub undecided: Vec<(ListedGroup, LargeGroup)>,
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
            cost += GROUP_COST + group.key.len() as u64;
            let matches = self.matches(group, &query.selectors, &mut cost);
            if matches == Some(false) {
                continue;
            }
            let group_listed = ListedGroup {
                position: Position::of(group),
                key: group.key.clone(),
                failure_seconds: group.failure_seconds,
                created_seconds: group.created_seconds,
                families: group.families.len(),
                last_failure: group.last_failure.clone(),
            };
            if matches.is_none() {
                cost += SLICE_COST;
                listed.undecided.push((group_listed, self.large_group(number)));
                continue;
            }
            listed.matching += 1;
            if query.is_after(&group_listed) {
                listed.groups.push(group_listed);
            }
        }
        (listed.groups, listed.is_cut) = query.page(std::mem::take(&mut listed.groups));
        listed
    }

    /// Whether one of the selectors matches the group; `None` if that could cost more than a slice. Adds the cost to `cost`.
    fn matches(&self, group: &Group, selectors: &[Selector], cost: &mut u64) -> Option<bool> {
        if selectors.is_empty() {
            return Some(true);
        }
        let labels = read_labels(&group.key);
        let mut left = SLICE_COST;
        for selector in selectors {
            left = left.checked_sub(selector.labels_cost(&labels).total)?;
            if selector.matches_labels(&labels) {
                if !selector.has_name_matchers() {
                    *cost += SLICE_COST - left;
                    return Some(true);
                }
                for family in group.families.iter() {
                    let name = &self.families[family.number].shared.name;
                    left = left.checked_sub(selector.name_cost(name).total + GROUP_COST)?;
                    if selector.matches_name(name) {
                        *cost += SLICE_COST - left;
                        return Some(true);
                    }
                }
            }
        }
        *cost += SLICE_COST - left;
        Some(false)
    }
}

impl GroupQuery {
    /// Whether a group comes after those of the previous page.
    pub fn is_after(&self, group: &ListedGroup) -> bool {
        self.after.is_none_or(|after| group.position.compare(&after, self.order) == Ordering::Greater)
    }

    /// Sorts groups in the order of the page and keeps as many as fit on it. Also returns whether there are too many bytes for a page.
    pub fn page(&self, mut groups: Vec<ListedGroup>) -> (Vec<ListedGroup>, bool) {
        groups.sort_unstable_by(|a, b| a.position.compare(&b.position, self.order));
        groups.truncate(self.limit);
        let mut bytes = 0;
        let cut = groups.iter().position(|group| {
            bytes += group.key.len() + group.last_failure.as_ref().map_or(0, |failure| failure.reason.len());
            bytes > PAGE_BYTES_MAX
        });
        groups.truncate(cut.map_or(self.limit, |cut| cut.max(1)));
        (groups, cut.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(push_seconds: f64, key_bytes: usize) -> ListedGroup {
        ListedGroup {
            position: Position { push_seconds, hash: 0 },
            key: "k".repeat(key_bytes).into(),
            failure_seconds: 0.0,
            created_seconds: 0.0,
            families: 0,
            last_failure: None,
        }
    }

    #[test]
    fn a_page_is_limited_in_groups_and_in_bytes() {
        let query = GroupQuery { limit: 3, ..GroupQuery::default() };
        let shown = |groups: &[ListedGroup]| {
            let (page, is_cut) = query.page(groups.to_vec());
            (page.iter().map(|group| group.position.push_seconds).collect::<Vec<_>>(), is_cut)
        };
        let small = [1.0, 2.0, 3.0, 4.0].map(|seconds| listed(seconds, 10));
        assert_eq!(shown(&small), (vec![4.0, 3.0, 2.0], false));
        let large = [1.0, 2.0, 3.0].map(|seconds| listed(seconds, PAGE_BYTES_MAX / 2));
        assert_eq!(shown(&large), (vec![3.0, 2.0], true));
        let huge = [1.0, 2.0].map(|seconds| listed(seconds, 2 * PAGE_BYTES_MAX));
        assert_eq!(shown(&huge), (vec![2.0], true));
    }
}
