//! Pages of groups for people: the groups that match a query, in the order of their pushes or of their labels.
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

/// The longest labels that are compared where groups are sorted by them, in bytes.
const SORTED_BYTES_MAX: usize = 256;

/// A query for a page of groups.
#[derive(Debug, Clone, Default)]
pub struct GroupQuery {
    /// A group matches if one of these does, or if there are none.
    pub selectors: Vec<Selector>,
    /// Only groups whose last push failed, or only the others.
    pub failing: Option<bool>,
    /// Only groups that were last pushed before this time, in Unix seconds. If no push has succeeded, the first failed one counts.
    pub pushed_before: Option<f64>,
    /// The order of the groups.
    pub order: GroupOrder,
    /// The page begins after this position.
    pub after: Option<Position>,
    /// The maximum number of groups on the page.
    pub limit: usize,
}

/// In which order groups are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupOrder {
    /// By the time of the last successful push, the latest first.
    #[default]
    LatestFirst,
    /// The same, the oldest first.
    OldestFirst,
    /// By job, then by the other labels.
    Labels,
}

/// A group's position in an order. Groups that are equal in it are in the order of a hash of their keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Position {
    /// In the order of pushes.
    Pushed {
        /// Unix seconds of the last successful push, 0 if there was none.
        seconds: f64,
        /// The hash of the key's text.
        hash: u64,
    },
    /// In the order of labels.
    Labels {
        /// The value of the job, then the names and values of the other labels; what is too long is cut.
        labels: Box<str>,
        /// The hash of the key's text.
        hash: u64,
    },
}

impl Position {
    fn of(group: &Group, order: GroupOrder) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(group.key.as_bytes());
        match order {
            GroupOrder::LatestFirst | GroupOrder::OldestFirst => {
                Self::Pushed { seconds: group.push_seconds, hash }
            }
            GroupOrder::Labels => Self::Labels { labels: sorted_labels(&group.key), hash },
        }
    }

    /// Whether it is a position in this order.
    pub fn is_in(&self, order: GroupOrder) -> bool {
        matches!(self, Self::Labels { .. }) == (order == GroupOrder::Labels)
    }

    /// Compares two positions in the order of a page.
    fn compare(&self, other: &Self, order: GroupOrder) -> Ordering {
        match (self, other) {
            (Self::Pushed { seconds, hash }, Self::Pushed { seconds: other_seconds, hash: other_hash }) => {
                let by_time = seconds.total_cmp(other_seconds);
                let by_time = if order == GroupOrder::LatestFirst { by_time.reverse() } else { by_time };
                by_time.then(hash.cmp(other_hash))
            }
            (Self::Labels { labels, hash }, Self::Labels { labels: other_labels, hash: other_hash }) => {
                labels.cmp(other_labels).then(hash.cmp(other_hash))
            }
            // A page has positions of one order.
            (Self::Pushed { .. }, Self::Labels { .. }) => Ordering::Less,
            (Self::Labels { .. }, Self::Pushed { .. }) => Ordering::Greater,
        }
    }
}

/// What groups are sorted by in [`GroupOrder::Labels`].
fn sorted_labels(key: &str) -> Box<str> {
    let labels = read_labels(key);
    let (job, others): (Vec<_>, Vec<_>) = labels.iter().partition(|(name, _)| name == "job");
    let mut sorted = String::with_capacity(key.len());
    for (_, value) in job {
        sorted.push_str(value);
    }
    for (name, value) in others {
        for part in [name, value] {
            sorted.push('\0');
            sorted.push_str(part);
        }
    }
    start_of(&sorted, SORTED_BYTES_MAX).into()
}

/// The first characters of a text, with at most so many bytes.
fn start_of(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// A group on a page.
#[derive(Debug, Clone)]
pub struct ListedGroup {
    /// Its position.
    pub position: Position,
    /// The grouping key's text, see [`super::key::GroupingKey::text`].
    pub key: Arc<str>,
    /// Unix seconds of the last successful push, 0 if there was none.
    pub push_seconds: f64,
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
        Arc::new(Self { reason: start_of(reason, Self::REASON_BYTES_MAX).into(), source })
    }
}

/// Whether the last push of a group failed, by its times in Unix seconds.
pub fn last_push_failed(push_seconds: f64, failure_seconds: f64) -> bool {
    failure_seconds > 0.0 && failure_seconds >= push_seconds
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
            if !query.has_time_of(group) {
                continue;
            }
            let matches = self.matches(group, &query.selectors, &mut cost);
            if matches == Some(false) {
                continue;
            }
            let group_listed = ListedGroup {
                position: Position::of(group, query.order),
                key: group.key.clone(),
                push_seconds: group.push_seconds,
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
    /// Whether the times of a group are those that the query asks for.
    fn has_time_of(&self, group: &Group) -> bool {
        let Group { push_seconds, failure_seconds, created_seconds, .. } = *group;
        let last = if push_seconds > 0.0 { push_seconds } else { created_seconds };
        self.failing.is_none_or(|failing| failing == last_push_failed(push_seconds, failure_seconds))
            && self.pushed_before.is_none_or(|time| last < time)
    }

    /// Whether a group comes after those of the previous page.
    pub fn is_after(&self, group: &ListedGroup) -> bool {
        let comes_after = |after: &Position| group.position.compare(after, self.order) == Ordering::Greater;
        self.after.as_ref().is_none_or(comes_after)
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
            position: Position::Pushed { seconds: push_seconds, hash: 0 },
            key: "k".repeat(key_bytes).into(),
            push_seconds,
            failure_seconds: 0.0,
            created_seconds: 0.0,
            families: 0,
            last_failure: None,
        }
    }

    #[test]
    fn labels_are_sorted_by_job_first() {
        let sorted = |key: &str| sorted_labels(key);
        assert_eq!(&*sorted(r#"instance="h1",job="backup",zone="x""#), "backup\0instance\0h1\0zone\0x");
        assert!(sorted(r#"job="a",zone="x""#) < sorted(r#"instance="h1",job="b""#));
        assert!(sorted(r#"job="a""#) < sorted(r#"a="",job="a""#));
        let long = format!("job=\"{}\"", "é".repeat(SORTED_BYTES_MAX));
        assert_eq!(sorted(&long).len(), SORTED_BYTES_MAX);
    }

    #[test]
    fn a_page_is_limited_in_groups_and_in_bytes() {
        let query = GroupQuery { limit: 3, ..GroupQuery::default() };
        let shown = |groups: &[ListedGroup]| {
            let (page, is_cut) = query.page(groups.to_vec());
            (page.iter().map(|group| group.push_seconds).collect::<Vec<_>>(), is_cut)
        };
        let small = [1.0, 2.0, 3.0, 4.0].map(|seconds| listed(seconds, 10));
        assert_eq!(shown(&small), (vec![4.0, 3.0, 2.0], false));
        let large = [1.0, 2.0, 3.0].map(|seconds| listed(seconds, PAGE_BYTES_MAX / 2));
        assert_eq!(shown(&large), (vec![3.0, 2.0], true));
        let huge = [1.0, 2.0].map(|seconds| listed(seconds, 2 * PAGE_BYTES_MAX));
        assert_eq!(shown(&huge), (vec![2.0], true));
    }
}
