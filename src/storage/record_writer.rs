//! Writing the record of a group, or a patch of it, in slices.
//!
//! A small change of a large group is written as a patch: a record with the times and the families that changed. The patches of a group
//! are bounded: once they are larger than its record, the next change writes the whole record. So a sequence of changes writes about
//! twice what it changed, however large the group is, and reading a group reads at most about three times its size.
//!
//! If nothing but its numbers has changed since the last whole record, a group of any size is written as a patch of numbers. Such a patch
//! replaces the one before it, so there may be any number of them.
//!
//! A record contains the rendered lines. They are copied from the segments, except those of pending numbers, so writing a record formats
//! hardly anything, and restoring it parses nothing; see [`super::stored_group`]. `docs/storage.md` has the format.

use std::ops::{ControlFlow, DerefMut};

use sluicegate_engine::record::{Family, Kind, Numbers, Record};

use super::store::GroupChange;
use crate::exposition::model::MetricType;
use crate::shard::view::{FamilyRef, GroupRef};
use crate::shard::{ChangedPart, NO_SHAPE_ID, Shard, StoredBytes};

/// Why encoding cannot fail: a shard rejects a push that would make a group too large for a record.
const FITS: &str = "a group is smaller than the largest record";

/// Smaller records are always written as a whole, which is simpler to read, and costs about the same. Tests of the server have small
/// groups.
const PATCHED_RECORD_BYTES_MIN: u32 = if cfg!(any(test, feature = "reference")) { 256 } else { 16 * 1024 };
/// What a patch counts in addition to its bytes, for the key and the headers.
const PATCH_OVERHEAD_BYTES: usize = 128;

/// A record that is being written. `S` is a guard of the shard, which must not change in the meantime.
#[derive(Debug)]
pub(crate) struct RecordWriter<S> {
    shard: S,
    record: PartialRecord,
}

#[derive(Debug)]
struct PartialRecord {
    group: u32,
    form: Form,
    out: Vec<u8>,
    /// The number of the next family; families in between do not exist.
    family: u32,
    /// How many pieces of its lines are written; `None` if its head is not.
    pieces: Option<usize>,
}

/// What is written of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The whole record.
    Whole,
    /// A patch with this part.
    Part(ChangedPart),
    /// A patch of numbers, which is complete.
    Numbers,
}

impl<S: DerefMut<Target = Shard>> RecordWriter<S> {
    /// Begins the record of the group with this number, or a patch with the part that has changed. `spare` is memory to write it to.
    pub(crate) fn new(shard: S, group: u32, part: ChangedPart, mut spare: Vec<u8>) -> Self {
        spare.clear();
        if write_numbers(&mut spare, shard.group(group)) {
            return Self::with_form(shard, group, Form::Numbers, spare);
        }
        let StoredBytes { record, patches, .. } = shard.group(group).stored();
        if part != ChangedPart::All && record >= PATCHED_RECORD_BYTES_MIN && patches <= record {
            return Self::with_form(shard, group, Form::Part(part), spare);
        }
        Self::whole(shard, group, spare)
    }

    /// Begins the whole record of the group with this number.
    pub(crate) fn whole(shard: S, group: u32, mut spare: Vec<u8>) -> Self {
        /// Enough for most groups.
        const RECORD_BYTES: usize = 4096;
        spare.clear();
        spare.reserve(RECORD_BYTES);
        Self::with_form(shard, group, Form::Whole, spare)
    }

    fn with_form(shard: S, group: u32, form: Form, out: Vec<u8>) -> Self {
        Self { shard, record: PartialRecord { group, form, out, family: 0, pieces: None } }
    }

    /// Writes about `bytes_max` more bytes. Continues with the rest, or breaks with the shard and the record or patch, which must
    /// be in the outbox before the shard is released.
    pub(crate) fn advance(mut self, bytes_max: usize) -> ControlFlow<(S, GroupChange), Self> {
        if !self.record.advance(&self.shard, bytes_max) {
            return ControlFlow::Continue(self);
        }
        let Self { mut shard, record: PartialRecord { group, form, out, .. } } = self;
        let bytes = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let view = shard.group(group);
        let (stored, change) = match form {
            Form::Whole => {
                let record = bytes(out.len());
                (StoredBytes { record, patches: 0, shape: view.shape_id() }, GroupChange::Put(out))
            }
            Form::Part(_) => {
                let StoredBytes { record, patches, .. } = view.stored();
                let patches = patches.saturating_add(bytes(out.len() + PATCH_OVERHEAD_BYTES));
                (StoredBytes { record, patches, shape: NO_SHAPE_ID }, GroupChange::Patch(out))
            }
            Form::Numbers => return ControlFlow::Break((shard, GroupChange::Patch(out))),
        };
        shard.set_stored(group, stored);
        ControlFlow::Break((shard, change))
    }
}

impl PartialRecord {
    /// Writes about `bytes_max` more bytes. Returns whether the record is complete.
    fn advance(&mut self, shard: &Shard, bytes_max: usize) -> bool {
        /// The cost of a family beside its bytes, in bytes.
        const FAMILY_BYTES: usize = 1024;
        let part = match self.form {
            Form::Whole => ChangedPart::All,
            Form::Part(part) => part,
            Form::Numbers => return true,
        };
        let group = shard.group(self.group);
        let mut end = self.out.len().saturating_add(bytes_max);
        if self.out.is_empty() {
            let families = group.families_len(part);
            times_of(group).encode_head(&mut self.out, families).expect(FITS);
        }
        while let Some(family) = group.family_from(self.family, part) {
            if self.out.len() >= end {
                return false;
            }
            self.pieces = write_family(&mut self.out, &family, self.pieces, end);
            self.family = family.number + u32::from(self.pieces.is_none());
            end = end.saturating_sub(FAMILY_BYTES);
        }
        true
    }
}

/// Writes a patch of numbers, if the group's record in the store differs in nothing else.
fn write_numbers(out: &mut Vec<u8>, group: GroupRef<'_>) -> bool {
    let Some(numbers) = group.numbers_since_record() else { return false };
    Numbers::encode(out, &times_of(group), numbers).expect(FITS);
    true
}

/// A record with the times of a group.
fn times_of(group: GroupRef<'_>) -> Record<'static> {
    let times = group.times();
    Record {
        revision: 0,
        push_seconds: times.push_seconds,
        failure_seconds: times.failure_seconds,
        created_seconds: times.created_seconds,
        expires_seconds: None,
        families: Vec::new(),
    }
}

/// Continues a family after `done` pieces, or begins it. Stops when `out` reaches `end`. Returns how many pieces are written, or `None`
/// if the family is complete.
fn write_family(out: &mut Vec<u8>, family: &FamilyRef<'_>, done: Option<usize>, end: usize) -> Option<usize> {
    let record = Family {
        name: family.name,
        kind: kind_of(family.kind),
        help: family.help,
        push_seconds: family.push_seconds,
        text: &[],
        exact: family.exact,
    };
    if done.is_none() {
        let bytes = family.pieces.iter().map(|piece| piece.len()).sum();
        record.encode_head(out, bytes).expect(FITS);
    }
    for (index, piece) in family.pieces.iter().enumerate().skip(done.unwrap_or(0)) {
        if out.len() >= end {
            return Some(index);
        }
        out.extend_from_slice(piece);
    }
    record.encode_tail(out);
    None
}

/// The type of a family in a record.
pub(crate) fn kind_of(kind: MetricType) -> Kind {
    match kind {
        MetricType::Counter => Kind::Counter,
        MetricType::Gauge => Kind::Gauge,
        MetricType::Summary => Kind::Summary,
        MetricType::Untyped => Kind::Untyped,
        MetricType::Histogram => Kind::Histogram,
        MetricType::GaugeHistogram => Kind::GaugeHistogram,
    }
}
