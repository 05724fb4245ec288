//! Series that groups of a core released while a collection or commit was running, in families in which duplicates are possible.
//!
//! A group on another core must not add such a series before the epoch is past. They are freed then, at the latest when the caller
//! of [`super::Shard::free_retired_series`] reports that it is.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::exposition::model::MetricType;

use super::duplicates::SeriesLookup;
use super::hash::hash_64;
use super::large_map::LargeMap;
use super::registry::Epoch;
use super::segments::GroupLines;

/// Lines that a group released in a family.
#[derive(Debug)]
pub(super) struct RetiredLines {
    pub epoch: Epoch,
    pub family: Arc<str>,
    pub kind: MetricType,
    pub key: Arc<str>,
    pub lines: GroupLines,
}

/// Retired lines in the order of their epochs.
#[derive(Debug, Default)]
pub(super) struct RetiredSeries {
    /// Shared with look-ups that are searching them.
    entries: VecDeque<Arc<RetiredLines>>,
    /// How many entries were freed before the first one.
    freed: u64,
    /// The places of the entries of each group and family in the order of all entries that ever were.
    places: LargeMap<u64, SmallVec<[u64; 1]>>,
}

impl RetiredSeries {
    /// Adds lines whose epoch is not lower than those of the others.
    pub fn push(&mut self, lines: RetiredLines) {
        debug_assert!(self.entries.back().is_none_or(|last| last.epoch <= lines.epoch), "epochs rise");
        let (owner, place) = (owner(&lines.family, &lines.key), self.freed + self.entries.len() as u64);
        match self.places.get_mut(&owner) {
            Some(places) => places.push(place),
            None => self.places.insert(owner, SmallVec::from_iter([place])),
        }
        self.entries.push_back(Arc::new(lines));
    }

    /// The epoch of the lines that were retired first.
    pub fn oldest_epoch(&self) -> Option<Epoch> {
        self.entries.front().map(|lines| lines.epoch)
    }

    /// Frees lines with epochs below this one, until about `bytes_max` bytes are freed. Returns whether some are left.
    pub fn free(&mut self, below: Epoch, bytes_max: usize) -> bool {
        let mut bytes = 0;
        while let Some(oldest) = self.entries.front_mut().filter(|lines| lines.epoch < below) {
            // A look-up does not take long.
            let Some(oldest) = Arc::get_mut(oldest) else { return true };
            // The place in the tables costs something even for short lines.
            bytes += 1024 + oldest.lines.free(bytes_max.saturating_sub(bytes));
            if oldest.lines.is_empty() {
                self.remove_oldest();
            }
            if bytes >= bytes_max {
                return self.oldest_epoch().is_some_and(|oldest| oldest < below);
            }
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        false
    }

    fn remove_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        self.freed += 1;
        let owner = owner(&oldest.family, &oldest.key);
        if let Some(places) = self.places.get_mut(&owner) {
            // It is the owner's oldest, too.
            places.remove(0);
            if places.is_empty() {
                self.places.remove(&owner);
            }
        }
    }

    /// The lines that the looked-up group released in the family, latest first.
    pub fn of(&self, lookup: &SeriesLookup) -> impl Iterator<Item = &Arc<RetiredLines>> {
        let places = self.places.get(&owner(&lookup.family, lookup.key.text())).into_iter().flatten().rev();
        let entries = places.filter_map(|place| self.entries.get((place - self.freed) as usize));
        entries.filter(|lines| lines.family == lookup.family && lines.key == *lookup.key.text())
    }
}

/// A hash of what releases lines.
fn owner(family: &str, key: &str) -> u64 {
    hash_64(family.as_bytes()).rotate_left(1) ^ hash_64(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::key::GroupingKey;
    use super::*;

    fn lines(epoch: Epoch, job: &str, bytes: usize) -> RetiredLines {
        let key = GroupingKey::new([("job".to_owned(), job.to_owned())]).text().clone();
        let lines = GroupLines::Copied(vec![b'x'; bytes]);
        RetiredLines { epoch, family: "m".into(), kind: MetricType::Gauge, key, lines }
    }

    fn epochs_of(retired: &RetiredSeries, job: &str) -> Vec<Epoch> {
        let key = GroupingKey::new([("job".to_owned(), job.to_owned())]);
        let lookup = SeriesLookup { key, family: "m".into(), series: Vec::new() };
        retired.of(&lookup).map(|lines| lines.epoch).collect()
    }

    #[test]
    fn lines_are_freed_when_their_epoch_is_past() {
        let mut retired = RetiredSeries::default();
        for (epoch, job) in [(1, "a"), (1, "b"), (2, "a"), (3, "a")] {
            retired.push(lines(epoch, job, 10));
        }
        assert_eq!(epochs_of(&retired, "a"), [3, 2, 1]);
        assert!(!retired.free(2, usize::MAX));
        assert_eq!((epochs_of(&retired, "a"), epochs_of(&retired, "b")), (vec![3, 2], vec![]));
        retired.push(lines(4, "b", 10));
        assert_eq!(epochs_of(&retired, "b"), [4]);
        assert!(!retired.free(Epoch::MAX, usize::MAX));
        assert_eq!((retired.oldest_epoch(), retired.places.is_empty()), (None, true));
    }

    #[test]
    fn lines_are_freed_in_slices() {
        let mut retired = RetiredSeries::default();
        (0..100).for_each(|_| retired.push(lines(1, "a", 10_000)));
        let slices = std::iter::repeat_with(|| retired.free(2, 50_000)).take_while(|more| *more).count();
        assert!((18..30).contains(&slices), "{slices}");
        assert_eq!(retired.oldest_epoch(), None);
    }
}
