//! Groups as a store keeps them: written after each command, taken back at a start.
//!
//! A record holds the rendered lines as they stand in the segments, so nothing is formatted on the way out and nothing parsed on
//! the way in. `docs/backends.md` draws it.

use std::sync::Arc;

use sluicegate_backend::record::{Family, Kind, Record};
use smallvec::SmallVec;

use crate::exposition::model::MetricType;

use super::apply::write_time;
use super::key::GroupingKey;
use super::registry::{FamilyChange, NotNow, Presence, SharedFamily, type_conflict};
use super::series::series_of;
use super::tables::{Held, Number};
use super::{FAILURE_TIME_NUMBER, PUSH_TIME_NUMBER, Shard};

/// Why a record can always be written: no text of a group comes near to 4 GiB.
const FITS: &str = "groups are smaller than STORED_BYTES_MAX";

/// What a store must hear of a command.
#[derive(Debug)]
pub enum ToStore {
    /// The group is now what [`Shard::write_record`] writes.
    Put(Writing),
    /// The group is gone. Told also of one that was not there: the answer must not come before that to the delete which took
    /// it away.
    Delete,
    /// The command changed nothing.
    Nothing,
}

/// A record that is being written.
#[derive(Debug)]
pub struct Writing {
    group: Number,
    out: Vec<u8>,
    /// The family whose turn it is, by its place in the group.
    family: usize,
    /// How many pieces of its lines are written; none: not even its head.
    pieces: Option<usize>,
}

impl Writing {
    /// The bytes, once all is written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

impl Shard {
    /// Begins to write the record of a group.
    pub(super) fn begin_record(&self, group: Number) -> Writing {
        /// Most groups fit.
        const BYTES: usize = 4096;
        Writing { group, out: Vec::with_capacity(BYTES), family: 0, pieces: None }
    }

    /// Writes about `bytes_max` more of a record. True when it is whole. Nothing may be asked of the shard in between.
    pub fn write_record(&self, writing: &mut Writing, bytes_max: usize) -> bool {
        let group = &self.groups[writing.group];
        let end = writing.out.len().saturating_add(bytes_max);
        if writing.out.is_empty() {
            let head = Record {
                revision: 0,
                push_seconds: group.push_seconds,
                failure_seconds: group.failure_seconds,
                created_seconds: group.created_seconds,
                expires_seconds: None,
                families: Vec::new(),
            };
            head.encode_head(&mut writing.out, group.held.len()).expect(FITS);
        }
        while let Some(held) = group.held.get(writing.family) {
            if writing.out.len() >= end {
                return false;
            }
            self.write_family(writing, held, end);
        }
        true
    }

    fn write_family(&self, writing: &mut Writing, held: &Held, end: usize) {
        let local = &self.families[held.family];
        let exact = local.text.exact(writing.group);
        let family = Family {
            name: &local.shared.name,
            kind: kind_of(local.kind),
            help: local.help(held.help).map(|help| &**help),
            push_seconds: held.push_seconds,
            text: &[],
            exact: exact.as_deref(),
        };
        let out = &mut writing.out;
        let pieces: SmallVec<[&[u8]; 1]> = local.text.run(writing.group).collect();
        let done = match writing.pieces {
            Some(done) => done,
            None => {
                let bytes = pieces.iter().map(|piece| piece.len()).sum();
                family.encode_head(out, bytes).expect(FITS);
                0
            }
        };
        for (index, piece) in pieces.into_iter().enumerate().skip(done) {
            if out.len() >= end {
                writing.pieces = Some(index);
                return;
            }
            out.extend_from_slice(piece);
        }
        family.encode_tail(out);
        (writing.family, writing.pieces) = (writing.family + 1, None);
    }

    /// Takes a group back that a store has kept. The caller gives each group once, and looks for twins afterwards, see
    /// [`Shard::series_hashes`].
    ///
    /// # Errors
    /// It contradicts a group that was taken back before, for this reason; nothing is changed then.
    pub fn restore(&mut self, key: &GroupingKey, record: &Record<'_>) -> Result<(), String> {
        if let Some(twin) = key.twin().filter(|twin| self.groups_by_key.contains_key(twin.text())) {
            return Err(format!("the group {{{}}} has the same push times", twin.text()));
        }
        let set = self.set_id(key);
        let mut changes = Vec::new();
        let mut numbers: Vec<Option<Number>> = Vec::with_capacity(record.families.len());
        for family in &record.families {
            let kind = type_of(family.kind);
            let number = self.families_by_name.get(family.name).copied();
            let local = number.map(|number| &self.families[number]);
            if let Some(other) = local.map(|local| local.kind).filter(|other| *other != kind) {
                return Err(type_conflict(family.name, other, kind));
            }
            let change = FamilyChange {
                name: family.name,
                presence: if local.is_some() { Presence::Stays } else { Presence::Taken(kind) },
                set_added: local.is_none_or(|local| local.groups_of_set(set) == 0).then_some(set),
                help_added: family
                    .help
                    .filter(|help| local.is_none_or(|local| local.find_help(help).is_none()))
                    .map(Arc::from),
                ..FamilyChange::default()
            };
            if change.set_added.is_some() || change.help_added.is_some() {
                changes.push(change);
            }
            numbers.push(number);
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
        for (family, number) in record.families.iter().zip(numbers) {
            bytes_bound +=
                family.text.len() + family.help.map_or(0, str::len) + family.exact.map_or(0, <[u8]>::len);
            let number = number.unwrap_or_else(|| {
                let shared = shared.next().expect("a family new to the core was taken at the registry");
                self.add_family(shared, type_of(family.kind))
            });
            let local = &mut self.families[number];
            local.take(set);
            let help = local.take_help(family.help);
            held.push(Held { family: number, help, push_seconds: family.push_seconds });
            self.add_lines(group, number, family.text, family.exact);
        }
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
            write_time(&mut line, &self.families[number].shared.name, key.text(), seconds);
            self.add_lines(group, number, &line, None);
        }
        Ok(())
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

/// The type of a family as a record has it.
pub fn kind_of(kind: MetricType) -> Kind {
    match kind {
        MetricType::Counter => Kind::Counter,
        MetricType::Gauge => Kind::Gauge,
        MetricType::Summary => Kind::Summary,
        MetricType::Untyped => Kind::Untyped,
        MetricType::Histogram => Kind::Histogram,
        MetricType::GaugeHistogram => Kind::GaugeHistogram,
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
