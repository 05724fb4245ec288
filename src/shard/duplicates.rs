//! Duplicates: equal series in two groups.
//!
//! The labels of a new series, projected onto another set of label names, give the only grouping key whose group could have a
//! duplicate of it. One look at that group replaces an index of all series. Only long runs that are looked at get an index.

use std::sync::{Arc, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::exposition::consistency::Inconsistency;
use crate::exposition::model::MetricType;

use super::Shard;
use super::hash::hash_64;
use super::key::GroupingKey;
use super::large_map::LargeMap;
use super::pace::Pace;
use super::registry::Epoch;
use super::retired::{RetiredLines, RetiredSeries};
use super::segments::{GroupLines, Segment};
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
#[derive(Debug, Clone)]
pub enum DuplicateCheck {
    /// No group has any of the series.
    Free,
    /// A group has one of them, so the push is inconsistent.
    Found(Inconsistency),
    /// One of them is retired. The caller looks again when the epoch is past.
    Retired(Epoch),
    /// A group has many series, which have no index. The caller calls [`LongRun::index`] and looks again.
    NotIndexed(LongRun),
}

/// The cost of a lookup beside the text that is searched.
const LOOKUP: usize = 512;

impl Shard {
    /// Looks up series in groups of this core.
    pub async fn find_duplicates(&self, lookups: &[SeriesLookup], pace: &Pace) -> DuplicateCheck {
        let oldest = self.registry.oldest_epoch();
        let mut found = DuplicateCheck::Free;
        for lookup in lookups {
            pace.spend(LOOKUP).await;
            match self.find_in_group(lookup, pace).await {
                Ok(false) => {}
                Ok(true) => {
                    return DuplicateCheck::Found(Inconsistency::DuplicateSeries {
                        metric: lookup.family.to_string(),
                        labels: labels_of(&lookup.series).to_owned(),
                    });
                }
                Err(run) => return DuplicateCheck::NotIndexed(run),
            }
            for retired in self.retired_since(oldest, lookup) {
                match find_in_retired(&retired, lookup, pace).await {
                    Ok(false) => {}
                    Ok(true) => {
                        found = DuplicateCheck::Retired(retired.epoch);
                        break;
                    }
                    Err(run) => return DuplicateCheck::NotIndexed(run),
                }
            }
        }
        found
    }

    async fn find_in_group(&self, lookup: &SeriesLookup, pace: &Pace) -> Result<bool, LongRun> {
        let Some(group) = self.groups.number_of(lookup.key.text()) else { return Ok(false) };
        let Some(family) = self.families_by_name.get(&lookup.family) else { return Ok(false) };
        let local = &self.families[*family];
        // The text may still have the series of another shape.
        if let Some(numbers) = self.numbers_of(group) {
            pace.spend(numbers.shape.bytes_max(lookup.key.text())).await;
            return Ok(numbers.has_series(*family, lookup.key.text(), &lookup.series));
        }
        if let Some(first) = local.text.first_of_long(group) {
            let lines = || local.text.lines(group);
            return find_in_long(first, lookup, local.kind, lines);
        }
        for lines in local.text.run(group) {
            pace.spend(lines.len()).await;
            if contains_series(lines, &lookup.series) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The epoch after which the next retired series can be freed. `None` if none are retired.
    pub fn oldest_retired_series(&self) -> Option<Epoch> {
        self.retired_series().oldest_epoch()
    }

    /// Frees retired series whose epochs are past, until about `bytes_max` bytes are freed. Returns whether some are left.
    pub fn free_retired_series(&mut self, bytes_max: usize) -> bool {
        self.retired_series().free(self.registry.oldest_epoch(), bytes_max)
    }

    /// What the looked-up group released in epochs that may not be past, latest first.
    fn retired_since(&self, oldest: Epoch, lookup: &SeriesLookup) -> SmallVec<[Arc<RetiredLines>; 4]> {
        let retired = self.retired_series();
        retired.of(lookup).take_while(|retired| retired.epoch >= oldest).cloned().collect()
    }

    /// What this shard and the other shards of its core have retired.
    pub(super) fn retired_series(&self) -> MutexGuard<'_, RetiredSeries> {
        self.retired_series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn find_in_retired(
    retired: &RetiredLines,
    lookup: &SeriesLookup,
    pace: &Pace,
) -> Result<bool, LongRun> {
    match &retired.lines {
        GroupLines::Copied(text) => {
            pace.spend(text.len()).await;
            Ok(contains_series(text, &lookup.series))
        }
        GroupLines::Segments(segments) => {
            let Some(first) = segments.first() else { return Ok(false) };
            find_in_long(first, lookup, retired.kind, || retired.lines.clone())
        }
    }
}

/// Looks for a series in long lines. `first` is their first segment; copying all of them for each series would take longer than the search.
fn find_in_long(
    first: &Segment,
    lookup: &SeriesLookup,
    kind: MetricType,
    lines: impl FnOnce() -> GroupLines,
) -> Result<bool, LongRun> {
    match first.series_index() {
        Some(index) => Ok(index.contains(&lookup.series)),
        None => {
            let segments = match lines() {
                GroupLines::Segments(segments) => segments.into(),
                GroupLines::Copied(_) => Arc::default(),
            };
            Err(LongRun { family: lookup.family.clone(), kind, segments })
        }
    }
}

/// The lines of a group in a family that are too long to be searched for each series.
#[derive(Debug, Clone)]
pub struct LongRun {
    family: Arc<str>,
    kind: MetricType,
    segments: Arc<[Arc<Segment>]>,
}

impl LongRun {
    /// Makes the index of the lines and caches it with them. Needs no shard.
    pub async fn index(&self, pace: &Pace) {
        let mut index = SeriesIndex::default();
        for segment in self.segments.iter() {
            for series in series_of(&self.family, self.kind, segment.text()) {
                pace.spend(LOOKUP / 4 + series.len()).await;
                index.hashes.insert(hash_64(series), ());
            }
        }
        if let Some(first) = self.segments.first() {
            first.cache_series_index(index);
        }
    }
}

/// The hashes of the series in a run. Clients cannot predict the hashes, so two series have equal ones by a chance of about one in
/// 2^64.
#[derive(Debug, Default)]
pub(super) struct SeriesIndex {
    hashes: LargeMap<u64, ()>,
}

impl SeriesIndex {
    fn contains(&self, series: &[u8]) -> bool {
        self.hashes.contains_key(&hash_64(series))
    }
}
