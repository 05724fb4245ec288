//! Duplicates: equal series in two groups.
//!
//! The labels of a new series, projected onto another set of label names, give the only grouping key whose group could have a
//! duplicate of it. One look at that group replaces an index of all series.

use std::borrow::Cow;
use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;
use crate::exposition::labels::{read_label_name, read_labels};

use super::Shard;
use super::key::GroupingKey;
use super::push::Push;
use super::registry::Epoch;
use super::segments::GroupLines;
use super::series::{contains_series, labels_of, series_of};

/// A question to the home core of a group: does the group have this series?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesLookup {
    /// The only group that can have it.
    pub key: GroupingKey,
    /// The family.
    pub family: Arc<str>,
    /// `name{labels}` as rendered.
    pub series: Vec<u8>,
}

/// The result of looking up some series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DuplicateCheck {
    /// No group has any of the series.
    Free,
    /// A group has one of them, so the push is inconsistent.
    Found(Inconsistency),
    /// One of them is retired. The caller looks again when the epoch is past.
    Retired(Epoch),
}

impl Shard {
    /// The series to look up for a push in these families. The caller holds their leases, so a push that announces a set of
    /// label names later finds this push applied.
    pub fn duplicate_lookups(&mut self, push: &Push, families: &[Arc<str>]) -> Vec<SeriesLookup> {
        let own = self.set_id(&push.key.names());
        let mut lookups = Vec::new();
        for pushed in push.families() {
            let name = push.name(pushed);
            let Some(family) = families.iter().find(|family| ***family == *name) else { continue };
            let sets = self.registry.other_sets(name, own);
            for series in series_of(name, pushed.kind, push.text(pushed)) {
                let keys = sets.iter().filter_map(|set| project(series, set));
                lookups.extend(keys.map(|key| SeriesLookup {
                    key,
                    family: family.clone(),
                    series: series.to_vec(),
                }));
            }
        }
        lookups
    }

    /// Looks up series in groups of this core.
    pub fn find_duplicates(&mut self, lookups: &[SeriesLookup]) -> DuplicateCheck {
        let mut found = DuplicateCheck::Free;
        for lookup in lookups {
            if self.has_series(lookup) {
                return DuplicateCheck::Found(Inconsistency::DuplicateSeries {
                    metric: lookup.family.to_string(),
                    labels: labels_of(&lookup.series).to_owned(),
                });
            }
            let oldest = self.registry.oldest_epoch();
            let contains = |text: &[u8]| contains_series(text, &lookup.series);
            let retired = self.retired_series.of(lookup).find(|retired| {
                retired.epoch >= oldest
                    && match &retired.lines {
                        GroupLines::Copied(text) => contains(text),
                        GroupLines::Segments(segments) => {
                            segments.iter().any(|segment| contains(segment.text()))
                        }
                    }
            });
            if let Some(retired) = retired {
                found = DuplicateCheck::Retired(retired.epoch);
            }
        }
        found
    }

    /// The epoch after which the next retired series can be freed. `None` if none are retired.
    pub fn oldest_retired_series(&self) -> Option<Epoch> {
        self.retired_series.oldest_epoch()
    }

    /// Frees retired series whose epochs are past, until about `bytes_max` bytes are freed. Returns whether some are left.
    pub fn free_retired_series(&mut self, bytes_max: usize) -> bool {
        self.retired_series.free(self.registry.oldest_epoch(), bytes_max)
    }

    fn has_series(&self, lookup: &SeriesLookup) -> bool {
        let Some(group) = self.groups_by_key.get(lookup.key.text()) else { return false };
        let Some(family) = self.families_by_name.get(&lookup.family) else { return false };
        // A line is never split, so each piece of a run can be searched separately.
        self.families[*family].text.run(*group).any(|piece| contains_series(piece, &lookup.series))
    }
}

/// The grouping key with these label names whose group can have the series. `None` if the series lacks one of the labels.
fn project(series: &[u8], names: &str) -> Option<GroupingKey> {
    let labels = read_labels(labels_of(series));
    let names: Vec<Cow<'_, str>> =
        names.split('\n').filter_map(|name| Some(read_label_name(name)?.0)).collect();
    let pairs: Option<Vec<(&str, &str)>> = names
        .iter()
        .map(|name| labels.iter().find(|(known, _)| known == name).map(|(_, value)| (&**name, &**value)))
        .collect();
    Some(GroupingKey::of_sorted(pairs?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_projects_onto_the_only_key_that_can_have_a_duplicate() {
        let series = br#"m{instance="",job="a",zone="x\"y"}"#;
        let key = project(series, "job\nzone").expect("has both labels");
        assert_eq!(&**key.text(), r#"job="a",zone="x\"y""#);
        assert_eq!(project(series, "job\nrack"), None);
        let series = br#"{"my \"metric\"_count",job="a","zone.x"="y"}"#;
        let key = project(series, "job\n\"zone.x\"").expect("has both labels");
        assert_eq!(&**key.text(), r#"job="a","zone.x"="y""#);
    }
}
