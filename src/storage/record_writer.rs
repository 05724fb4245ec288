//! Writing the record of a group, in slices.
//!
//! A record contains the rendered lines as they are in the segments, so writing it formats nothing, and restoring it parses nothing; see
//! [`super::stored_group`]. `docs/storage.md` has the format.

use std::ops::{ControlFlow, Deref};

use sluicegate_engine::record::{Family, Kind, Record};

use crate::exposition::model::MetricType;
use crate::shard::Shard;
use crate::shard::view::{FamilyRef, GroupRef};

/// Why encoding cannot fail: a shard rejects a push that would make a group too large for a record.
const FITS: &str = "a group is smaller than the largest record";

/// A record that is being written. `S` is a guard of the shard, which must not change in the meantime.
#[derive(Debug)]
pub(crate) struct RecordWriter<S> {
    shard: S,
    record: PartialRecord,
}

#[derive(Debug)]
struct PartialRecord {
    group: u32,
    out: Vec<u8>,
    /// The number of the next family; families in between do not exist.
    family: u32,
    /// How many pieces of its lines are written; `None` if its head is not.
    pieces: Option<usize>,
}

impl<S: Deref<Target = Shard>> RecordWriter<S> {
    /// Begins the record of the group with this number. `spare` is memory to write it to.
    pub(crate) fn new(shard: S, group: u32, mut spare: Vec<u8>) -> Self {
        /// Enough for most groups.
        const RECORD_BYTES: usize = 4096;
        spare.clear();
        spare.reserve(RECORD_BYTES);
        Self { shard, record: PartialRecord { group, out: spare, family: 0, pieces: None } }
    }

    /// Writes about `bytes_max` more bytes. Continues with the rest, or breaks with the shard and the record. The record must
    /// be in the outbox before the shard is released.
    pub(crate) fn advance(mut self, bytes_max: usize) -> ControlFlow<(S, Vec<u8>), Self> {
        if self.record.advance(&self.shard, bytes_max) {
            ControlFlow::Break((self.shard, self.record.out))
        } else {
            ControlFlow::Continue(self)
        }
    }
}

impl PartialRecord {
    /// Writes about `bytes_max` more bytes. Returns whether the record is complete.
    fn advance(&mut self, shard: &Shard, bytes_max: usize) -> bool {
        /// The cost of a family beside its bytes, in bytes.
        const FAMILY_BYTES: usize = 256;
        let group = shard.group(self.group);
        let mut end = self.out.len().saturating_add(bytes_max);
        if self.out.is_empty() {
            write_head(&mut self.out, group);
        }
        while let Some(family) = group.family_from(self.family) {
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

fn write_head(out: &mut Vec<u8>, group: GroupRef<'_>) {
    let times = group.times();
    let head = Record {
        revision: 0,
        push_seconds: times.push_seconds,
        failure_seconds: times.failure_seconds,
        created_seconds: times.created_seconds,
        expires_seconds: None,
        families: Vec::new(),
    };
    head.encode_head(out, group.families_len()).expect(FITS);
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
