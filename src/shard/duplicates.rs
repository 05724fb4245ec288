//! Twins: equal series in two groups.
//!
//! The labels of a new series, projected onto the label names of another set of groups, give the only grouping key that could
//! hold its twin. So one look at one group answers what an index over all series would.

use std::borrow::Cow;
use std::sync::Arc;

use crate::exposition::labels::{read_label_name, read_labels};

use super::Shard;
use super::key::GroupingKey;
use super::push::Push;
use super::registry::Epoch;
use super::series::{labels_of, names_series, series_of};
use super::tables::Number;

/// A question to the home core of a group: does it hold this series?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesLookup {
    /// The only group that could.
    pub key: GroupingKey,
    /// The family.
    pub family: Arc<str>,
    /// `name{labels}` as rendered.
    pub series: Vec<u8>,
}

/// The answer to [`SeriesLookup`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DuplicateCheck {
    /// None of the series is held.
    Free,
    /// One is held: the push is inconsistent, for this reason.
    Found(String),
    /// One was given up while scrapes collect: ask again when the epoch is past.
    Retired(Epoch),
}

/// Lines that a group gave up while scrapes were collecting, in a family where twins are possible.
#[derive(Debug)]
pub(super) struct RetiredSeries {
    pub at: Epoch,
    pub family: Arc<str>,
    pub key: Arc<str>,
    pub text: Vec<u8>,
}

impl Shard {
    /// Where to look for twins of a push's series in these families. The caller holds their leases, so that the sets of label
    /// names which are announced later find the push applied.
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

    /// Answers lookups about groups of this core.
    pub fn find_duplicates(&mut self, lookups: &[SeriesLookup]) -> DuplicateCheck {
        let registry = &self.registry;
        self.retired_series.retain(|retired| !registry.is_past(retired.at));
        let mut found = DuplicateCheck::Free;
        for lookup in lookups {
            if self.holds(lookup) {
                return DuplicateCheck::Found(format!(
                    "collected metric {:?} {{ {} }} was collected before with the same name and label values",
                    lookup.family,
                    labels_of(&lookup.series)
                ));
            }
            let retired = self.retired_series.iter().rfind(|retired| {
                retired.family == lookup.family
                    && retired.key == *lookup.key.text()
                    && names_series(&retired.text, &lookup.series)
            });
            if let Some(retired) = retired {
                found = DuplicateCheck::Retired(retired.at);
            }
        }
        found
    }

    fn holds(&self, lookup: &SeriesLookup) -> bool {
        let Some(group) = self.groups_by_key.get(lookup.key.text()) else { return false };
        let Some(family) = self.families_by_name.get(&lookup.family) else { return false };
        self.run_names(*group, *family, &lookup.series)
    }

    /// Lines are never cut, so each piece of a run can be searched alone.
    fn run_names(&self, group: Number, family: Number, series: &[u8]) -> bool {
        self.families[family].text.run(group).any(|piece| names_series(piece, series))
    }
}

/// The grouping key with these label names under which the series could stand; `None` if it lacks one of them.
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
    fn a_series_projects_onto_the_only_key_that_could_hold_its_twin() {
        let series = br#"m{instance="",job="a",zone="x\"y"}"#;
        let key = project(series, "job\nzone").expect("has both labels");
        assert_eq!(&**key.text(), r#"job="a",zone="x\"y""#);
        assert_eq!(project(series, "job\nrack"), None);
        let series = br#"{"my \"metric\"_count",job="a","zone.x"="y"}"#;
        let key = project(series, "job\n\"zone.x\"").expect("has both labels");
        assert_eq!(&**key.text(), r#"job="a","zone.x"="y""#);
    }
}
