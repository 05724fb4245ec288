//! Groups as a store keeps them, written after each command.
//!
//! A record holds the rendered lines as they stand in the segments, so nothing is formatted on the way out and nothing parsed on
//! the way in, see [`super::restore`]. `docs/storage.md` draws it.

use sluicegate_engine::record::{Family, Kind, Record};
use smallvec::SmallVec;

use crate::exposition::model::MetricType;

use super::Shard;
use super::tables::{GroupFamily, Number};

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
    /// Begins to write the record of a group.
    pub(super) fn new(group: Number, mut out: Vec<u8>) -> Self {
        /// Most groups fit.
        const BYTES: usize = 4096;
        out.clear();
        out.reserve(BYTES);
        Self { group, out, family: 0, pieces: None }
    }

    /// The bytes, once all is written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

impl Shard {
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

    fn write_family(&self, writing: &mut Writing, held: &GroupFamily, end: usize) {
        let local = &self.families[held.family];
        let (pieces, exact) = local.text.whole(writing.group);
        let family = Family {
            name: &local.shared.name,
            kind: kind_of(local.kind),
            help: local.help(held.help).map(|help| &**help),
            push_seconds: held.push_seconds,
            text: &[],
            exact: exact.map(|exact| &**exact),
        };
        let out = &mut writing.out;
        let pieces: SmallVec<[&[u8]; 1]> = pieces.collect();
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
