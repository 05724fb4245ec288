//! Which groups could have the series of a push, in batches.
//!
//! A family may have very many sets of label names, and a push very many series. So the sets are indexed by the name that the fewest
//! of them have: a series meets only sets of which it has that name, and most have a name that only their own clients use.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::exposition::labels::{read_label_name, read_labels};

use super::duplicates::SeriesLookup;
use super::key::GroupingKey;
use super::pace::{CHANGE, Pace};
use super::push::{Push, PushedFamily};
use super::registry::Registry;
use super::series::{labels_of, series_of};

/// A batch has at most so many lookups.
const BATCH_LOOKUPS_MAX: usize = 256;
/// A batch ends when its keys and series have so many bytes.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// How many sets are read under one lock of the registry.
const SETS_MAX: usize = 256;
/// The cost of looking at a set, or at a label.
const STEP: usize = 64;

/// The series of a push to look up in other groups.
#[derive(Debug)]
pub struct Lookups {
    registry: Arc<Registry>,
    push: Arc<Push>,
    own_names: String,
    /// The pushed families to look at, in reverse order.
    families: Vec<(Arc<str>, usize)>,
    current: Option<Current>,
}

/// The family that is being looked at.
#[derive(Debug)]
struct Current {
    name: Arc<str>,
    /// The index of the family in the push.
    pushed: usize,
    sets: Sets,
    /// Where the next series is read from.
    offset: usize,
    /// The series that was read last, as a range of the text, and the sets that are left for it.
    series: std::ops::Range<usize>,
    candidates: Vec<usize>,
}

impl Lookups {
    /// The lookups for a push in these families, which are sorted by name. The caller holds their leases, so a push that announces a
    /// set of label names later finds this push applied.
    pub async fn new(registry: Arc<Registry>, push: Arc<Push>, families: &[Arc<str>], pace: &Pace) -> Self {
        let mut found: Vec<(Arc<str>, usize)> = Vec::with_capacity(families.len());
        for (index, pushed) in push.families().iter().enumerate() {
            pace.spend(CHANGE).await;
            if let Ok(at) = families.binary_search_by(|family| (**family).cmp(push.name(pushed))) {
                found.push((families[at].clone(), index));
            }
        }
        found.reverse();
        Self { own_names: push.key.names(), registry, push, families: found, current: None }
    }

    /// Drops the lookups in slices.
    pub async fn free(self, pace: &Pace) {
        pace.drop_all(self.families).await;
    }

    /// The next lookups; none at the end.
    pub async fn next_batch(&mut self, pace: &Pace) -> Vec<SeriesLookup> {
        let push = self.push.clone();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let Some(current) = &mut self.current else {
                let Some((name, pushed)) = self.families.pop() else { return batch };
                self.current = Some(self.begin(name, pushed, pace).await);
                continue;
            };
            let family = &push.families()[current.pushed];
            if current.candidates.is_empty() && !current.next_series(&push, family, pace).await {
                self.current = None;
                continue;
            }
            let series = &push.text(family)[current.series.clone()];
            let labels = sorted_labels(series);
            while let Some(set) = current.candidates.pop() {
                pace.spend(STEP + series.len()).await;
                let Some(key) = project(&labels, &current.sets.names[set]) else { continue };
                bytes += key.text().len() + series.len();
                batch.push(SeriesLookup { key, family: current.name.clone(), series: series.to_vec() });
                if batch.len() >= BATCH_LOOKUPS_MAX || bytes >= BATCH_BYTES_MAX {
                    return batch;
                }
            }
        }
    }

    async fn begin(&self, name: Arc<str>, pushed: usize, pace: &Pace) -> Current {
        let text = self.push.text(&self.push.families()[pushed]);
        let mut longest = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            pace.spend(STEP + line.len() / 8).await;
            longest = longest.max(line.len());
        }
        let (mut sets, mut after) = (Sets::default(), None);
        loop {
            let (names, last) = self.registry.sets_after(&name, after, SETS_MAX);
            for names in names {
                pace.spend(STEP).await;
                // A series with these labels would be longer than its line. Such sets are not worth reading.
                if names.len() < longest && *names != *self.own_names {
                    pace.spend(names.len()).await;
                    sets.add(&names);
                }
            }
            after = last;
            if after.is_none() {
                break;
            }
        }
        sets.build_index(pace).await;
        Current { name, pushed, sets, offset: 0, series: 0..0, candidates: Vec::new() }
    }
}

impl Current {
    /// Reads the next series that may be in another group. Returns whether there is one.
    async fn next_series(&mut self, push: &Push, family: &PushedFamily, pace: &Pace) -> bool {
        let text = push.text(family);
        if self.sets.names.is_empty() {
            return false;
        }
        for series in series_of(push.name(family), family.kind, &text[self.offset..]) {
            pace.spend(STEP + series.len()).await;
            let start = series.as_ptr() as usize - text.as_ptr() as usize;
            self.series = start..start + series.len();
            for (name, _) in &sorted_labels(series) {
                pace.spend(STEP).await;
                self.candidates.extend(self.sets.by_rarest_name.get(&**name).into_iter().flatten());
            }
            if !self.candidates.is_empty() {
                self.offset = memchr::memchr(b'\n', &text[self.series.end..])
                    .map_or(text.len(), |end| self.series.end + end + 1);
                return true;
            }
        }
        false
    }
}

/// The sets of label names of other groups in a family.
#[derive(Debug, Default)]
struct Sets {
    names: Vec<Vec<Box<str>>>,
    /// The sets by one of their names, which no more sets have than each of their other names.
    by_rarest_name: HashMap<Box<str>, Vec<usize>>,
}

impl Sets {
    fn add(&mut self, names: &str) {
        let names = names.split('\n').filter_map(|name| Some(read_label_name(name)?.0.into()));
        self.names.push(names.collect());
    }

    async fn build_index(&mut self, pace: &Pace) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for name in self.names.iter().flatten() {
            pace.spend(STEP).await;
            *counts.entry(name).or_default() += 1;
        }
        let mut index: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (set, names) in self.names.iter().enumerate() {
            pace.spend(STEP * names.len()).await;
            if let Some(rarest) = names.iter().min_by_key(|name| counts.get(&***name)) {
                index.entry(rarest.clone()).or_default().push(set);
            }
        }
        self.by_rarest_name = index;
    }
}

/// The labels of a series, sorted by name.
fn sorted_labels(series: &[u8]) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut labels = read_labels(labels_of(series));
    labels.sort_by(|(name, _), (other, _)| name.cmp(other));
    labels
}

/// The grouping key with these label names whose group can have the series. `None` if the series lacks one of the labels.
fn project(labels: &[(Cow<'_, str>, Cow<'_, str>)], names: &[Box<str>]) -> Option<GroupingKey> {
    let pairs: Option<Vec<(&str, &str)>> = names
        .iter()
        .map(|name| {
            let at = labels.binary_search_by(|(known, _)| (**known).cmp(&**name)).ok()?;
            Some((&*labels[at].0, &*labels[at].1))
        })
        .collect();
    Some(GroupingKey::of_sorted(pairs?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_text(series: &[u8], names: &str) -> Option<String> {
        let mut sets = Sets::default();
        sets.add(names);
        Some(project(&sorted_labels(series), &sets.names[0])?.text().to_string())
    }

    #[test]
    fn a_series_projects_onto_the_only_key_that_can_have_a_duplicate() {
        let series = br#"m{instance="",job="a",zone="x\"y"}"#;
        assert_eq!(key_text(series, "job\nzone").as_deref(), Some(r#"job="a",zone="x\"y""#));
        assert_eq!(key_text(series, "job\nrack"), None);
        let series = br#"{"my \"metric\"_count",job="a","zone.x"="y"}"#;
        assert_eq!(key_text(series, "job\n\"zone.x\"").as_deref(), Some(r#"job="a","zone.x"="y""#));
    }
}
