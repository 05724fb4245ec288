//! Groups taken back from a store at a start, see [`super::stored`].
//!
//! Groups of one kind of job are alike, so each family is looked for first where the group before had it. And the lines of a
//! family are gathered until they fill a segment, so that the many groups of a large store cost little more than copying them.

use std::sync::Arc;

use sluicegate_engine::record::{Family, Kind, Record};
use smallvec::SmallVec;

use crate::exposition::model::MetricType;

use super::apply::{measure, write_time};
use super::key::{GroupingKey, KeyParts};
use super::registry::{FamilyChange, NotNow, Presence, SharedFamily, type_conflict};
use super::segments::GatheredRuns;
use super::series::series_of;
use super::tables::{GroupFamily, NO_HELP, Number};
use super::{FAILURE_TIME_NUMBER, PUSH_TIME_NUMBER, Shard};

/// A group as it was read, before its shard is asked.
#[derive(Debug, Clone)]
pub struct StoredGroup<'a> {
    key: GroupingKey,
    parts: KeyParts,
    record: Record<'a>,
}

impl<'a> StoredGroup<'a> {
    /// A group that was kept under the text of a grouping key.
    pub fn new(key: &str, record: Record<'a>) -> Self {
        let key = GroupingKey::from_text(key.into());
        Self { parts: key.parts(), key, record }
    }

    /// The core it lives on.
    pub fn home(&self, cores: usize) -> usize {
        self.key.home(cores)
    }

    /// What was kept.
    pub fn record(&self) -> &Record<'a> {
        &self.record
    }

    /// Only the push times of the group.
    pub fn times(&self) -> Self {
        let record = Record { families: Vec::new(), ..self.record };
        Self { record, ..self.clone() }
    }
}

/// What is on its way back.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    /// What the last group holds, in the order of its record.
    last: Vec<GroupFamily>,
    /// Lines that are not in the text of their families yet, by the families' numbers.
    gathered: Vec<GatheredRuns>,
}

impl Shard {
    /// Takes a group back that a store has kept. The caller gives each group once, and then ends the restoring, see
    /// [`Shard::end_restoring`], and looks for twins, see [`Shard::series_hashes`].
    ///
    /// # Errors
    /// It contradicts a group that was taken back before, for this reason; nothing is changed then.
    pub fn restore(&mut self, stored: &StoredGroup<'_>) -> Result<(), String> {
        let StoredGroup { key, parts, record } = stored;
        if let Some(twin) =
            parts.empty_instance_variant.as_ref().filter(|twin| self.groups_by_key.contains_key(twin.text()))
        {
            return Err(format!("the group {{{}}} has the same push times", twin.text()));
        }
        let set = self.set_id(&parts.names);
        let mut changes = Vec::new();
        let mut places: SmallVec<[_; 16]> = SmallVec::with_capacity(record.families.len());
        for (index, family) in record.families.iter().enumerate() {
            let kind = type_of(family.kind);
            let (number, help) = self.places_of(family, self.restoring.last.get(index));
            let local = number.map(|number| &self.families[number]);
            if let Some(other) = local.map(|local| local.kind).filter(|other| *other != kind) {
                return Err(type_conflict(family.name, other, kind));
            }
            let change = FamilyChange {
                name: family.name,
                presence: if local.is_some() { Presence::Unchanged } else { Presence::Claimed(kind) },
                set_added: local.is_none_or(|local| local.groups_of_set(set) == 0).then_some(set),
                help_added: family.help.filter(|_| help.is_none()).map(Arc::from),
                ..FamilyChange::default()
            };
            if change.set_added.is_some() || change.help_added.is_some() {
                changes.push(change);
            }
            places.push((number, help));
        }
        let shared = match changes.as_slice() {
            [] => Vec::new(),
            changes => self.take_at_registry(changes)?,
        };
        // New families in the order of their changes, which is that of the record.
        let mut shared = shared.into_iter().flatten();
        let group = self.add_group(key, set, record.created_seconds);
        let mut held = Vec::with_capacity(record.families.len());
        let mut bytes_bound = 0;
        for (family, (number, help)) in record.families.iter().zip(places) {
            bytes_bound +=
                family.text.len() + family.help.map_or(0, str::len) + family.exact.map_or(0, <[u8]>::len);
            let number = number.unwrap_or_else(|| {
                let shared = shared.next().expect("a family new to the core was taken at the registry");
                self.add_family(shared, type_of(family.kind))
            });
            let local = &mut self.families[number];
            local.take(set);
            let help = match help {
                Some(place) => {
                    local.take_help_at(place);
                    place
                }
                None => local.take_help(family.help),
            };
            held.push(GroupFamily { family: number, help, push_seconds: family.push_seconds });
            self.restore_lines(group, number, family.text, family.exact);
        }
        self.restoring.last.clone_from(&held);
        held.sort_unstable_by_key(|held| held.family);
        let entry = &mut self.groups[group];
        entry.held = held;
        entry.bytes_bound = bytes_bound as u64;
        entry.push_seconds = record.push_seconds;
        entry.failure_seconds = record.failure_seconds;
        self.latest_seconds = self.latest_seconds.max(record.push_seconds).max(record.failure_seconds);
        let mut line = Vec::new();
        for (number, seconds) in
            [(PUSH_TIME_NUMBER, record.push_seconds), (FAILURE_TIME_NUMBER, record.failure_seconds)]
        {
            line.clear();
            write_time(&mut line, &self.families[number].shared.name, &parts.series_labels, seconds);
            self.restore_lines(group, number, &line, None);
        }
        Ok(())
    }

    /// Adds the lines of a group that is new in a family.
    fn restore_lines(&mut self, group: Number, family: Number, lines: &[u8], exact: Option<&[u8]>) {
        let all = &mut self.restoring.gathered;
        if all.len() <= family as usize {
            all.resize_with(family as usize + 1, GatheredRuns::default);
        }
        let push = |shard: &mut Self| {
            let gathered = &mut shard.restoring.gathered[family as usize];
            gathered.push(&shard.families[family].text, group, lines, exact)
        };
        if push(self) {
            return;
        }
        self.settle(family);
        if !push(self) {
            self.add_lines(group, family, lines, exact);
        }
    }

    /// Has what was gathered of a family in its place, and counts it.
    fn settle(&mut self, family: Number) {
        let gathered = &mut self.restoring.gathered[family as usize];
        if gathered.is_empty() {
            return;
        }
        let (bytes, lines) = measure([gathered.text()]);
        self.counts.bytes += bytes;
        self.counts.series += lines;
        self.counts.segments += 1;
        Arc::make_mut(&mut self.families[family].text).append(gathered);
    }

    /// Ends the restoring. Before this, the shard must be asked for nothing else.
    pub fn end_restoring(&mut self) {
        for family in 0..self.restoring.gathered.len() {
            self.settle(family as Number);
        }
        self.restoring = Restoring::default();
    }

    /// Whether groups are being restored.
    pub(super) fn is_restoring(&self) -> bool {
        !self.restoring.gathered.is_empty()
    }

    /// Where a family and its help text stand on this core, if they do. `like` is where they may well be.
    fn places_of(&self, family: &Family<'_>, like: Option<&GroupFamily>) -> (Option<Number>, Option<u32>) {
        let named = |number| self.families.get(number).filter(|local| *local.shared.name == *family.name);
        let number = match like.filter(|like| named(like.family).is_some()) {
            Some(like) => Some(like.family),
            None => self.families_by_name.get(family.name).copied(),
        };
        let Some(help) = family.help else { return (number, Some(NO_HELP)) };
        let Some(local) = number.and_then(|number| self.families.get(number)) else { return (None, None) };
        let is_there = |place: &u32| {
            local.groups_of_help(*place) > 0 && local.help(*place).is_some_and(|known| **known == *help)
        };
        (number, like.map(|like| like.help).filter(is_there).or_else(|| local.find_help(help)))
    }

    /// Takes names, sets of label names and help texts. Nothing collects yet, so nothing has to be waited for.
    fn take_at_registry(
        &self,
        changes: &[FamilyChange<'_>],
    ) -> Result<Vec<Option<Arc<SharedFamily>>>, String> {
        let mut announced = Vec::new();
        let taken = loop {
            match self.registry.change(self.core, changes, &announced) {
                Ok(taken) => break Ok(taken),
                Err(NotNow::Announced(_, sets)) => announced.extend(sets),
                Err(NotNow::Conflict(reason)) => break Err(reason),
                Err(NotNow::Retired(_)) => break Err("groups change while others are restored".to_owned()),
            }
        };
        self.registry.withdraw(&announced);
        taken
    }

    /// A hash of each series in the families in which groups can hold the same ones. Equal hashes, of one core or of two, are
    /// equal series (or, once in a very long while, are not).
    pub fn series_hashes(&self) -> Vec<u64> {
        let mut hashes = Vec::new();
        for (_, family) in
            self.families.from(FAILURE_TIME_NUMBER + 1).filter(|(_, family)| family.shared.has_several_sets())
        {
            for segment in family.text.segments() {
                let series = series_of(&family.shared.name, family.kind, segment.text());
                hashes.extend(series.map(xxhash_rust::xxh3::xxh3_64));
            }
        }
        hashes
    }
}

fn type_of(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Summary => MetricType::Summary,
        Kind::Untyped => MetricType::Untyped,
        Kind::Histogram => MetricType::Histogram,
        Kind::GaugeHistogram => MetricType::GaugeHistogram,
    }
}
