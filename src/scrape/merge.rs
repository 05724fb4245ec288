//! Merging: the snapshots of all shards become the units of one exposition.
//!
//! Nothing is parsed, and only the headers of families are formatted. Large segments are sent as they are. Small ranges are copied
//! together, so that the socket and the compressor get long pieces.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use bytes::Bytes;

use crate::encoding::encode::Piece;
use crate::exposition::labels::write_label;
use crate::exposition::model::MetricType;
use crate::exposition::number::write_float;
use crate::exposition::render::write_header;
use crate::shard::FamilySnapshot;
use crate::shard::segments::Segment;
use crate::telemetry::{OwnFamily, OwnKind, OwnValue};

/// Ranges shorter than this are copied together.
pub(crate) const SMALL_BYTES: usize = 4 * 1024;
/// A copied unit ends when it reaches this length.
const UNIT_BYTES: usize = 32 * 1024;

/// A part of an exposition that is compressed and sent as one.
#[derive(Debug, Clone)]
pub enum Unit {
    /// A segment, shared with its shard.
    Segment(Arc<Segment>),
    /// Small ranges copied together.
    Copied(Bytes),
    /// Families of the gateway's own, whose text is another one in each scrape.
    Own {
        /// Their text.
        text: Bytes,
        /// How many of the own families these are.
        families: usize,
    },
    /// A segment in another form, already compressed if the client accepts it.
    Translated(Piece),
}

/// The bytes of a unit that is not compressed; `None` if it is. `bytes` makes bytes that keep a segment alive.
pub fn plain(unit: Unit, bytes: impl FnOnce(Arc<Segment>) -> Bytes) -> Option<Bytes> {
    match unit {
        Unit::Segment(segment) => Some(bytes(segment)),
        Unit::Copied(text) | Unit::Own { text, .. } | Unit::Translated(Piece::Plain(text)) => Some(text),
        Unit::Translated(Piece::Gzip(_) | Piece::Zstd { .. }) => None,
    }
}

/// A family with the lines of all cores and the gateway's own series.
pub(crate) struct MergedFamily<'a> {
    pub name: &'a str,
    pub own: Option<&'a OwnFamily>,
    /// From the shards that have the family.
    pub snapshots: Vec<&'a FamilySnapshot>,
}

/// The families of all shards (each list sorted by name) and of the gateway itself, sorted by name.
pub(crate) fn merged_families<'a>(
    shards: &'a [Vec<FamilySnapshot>],
    own: &'a [OwnFamily],
) -> impl Iterator<Item = MergedFamily<'a>> {
    let mut rest: Vec<_> = shards.iter().map(|families| families.iter()).collect();
    // The next family of each shard. There may be many shards.
    let mut next: BinaryHeap<Reverse<(&str, usize)>> = BinaryHeap::with_capacity(shards.len());
    let name_of =
        |shard: &std::slice::Iter<'a, FamilySnapshot>| Some(&*shard.as_slice().first()?.shared.name);
    next.extend(rest.iter().enumerate().filter_map(|(at, shard)| Some(Reverse((name_of(shard)?, at)))));
    let mut own = own.iter().peekable();
    std::iter::from_fn(move || {
        let pushed = next.peek().map(|Reverse((name, _))| *name);
        let name = pushed.into_iter().chain(own.peek().map(|family| family.name)).min()?;
        let own = own.next_if(|family| family.name == name);
        let mut snapshots = Vec::new();
        while let Some(mut first) = next.peek_mut().filter(|first| first.0.0 == name) {
            let shard = &mut rest[first.0.1];
            snapshots.extend(shard.next());
            match name_of(shard) {
                Some(name) => first.0.0 = name,
                None => drop(PeekMut::pop(first)),
            }
        }
        Some(MergedFamily { name, own, snapshots })
    })
}

/// Merges the snapshots of the shards (each list sorted by name) with the gateway's own metrics.
///
/// Each family appears once, with one HELP and TYPE. Families are sorted by name.
pub fn merge(cores: &[Vec<FamilySnapshot>], own: &[OwnFamily]) -> Vec<Unit> {
    let mut units = Units::default();
    for MergedFamily { name, own, snapshots } in merged_families(cores, own) {
        match (own, snapshots.first()) {
            (Some(own), _) => write_own_family(units.own(), own),
            (None, Some(first)) => {
                write_header(units.small(), name, first.kind, first.shared.help().as_deref());
            }
            (None, None) => {}
        }
        snapshots.iter().flat_map(|snapshot| snapshot.text.segments()).for_each(|segment| units.add(segment));
    }
    units.finish()
}

/// Collects units.
pub(crate) struct Units {
    units: Vec<Unit>,
    small: Vec<u8>,
    /// How many families of the gateway's own `small` has; if any, it has nothing else.
    own_families: usize,
}

impl Default for Units {
    fn default() -> Self {
        Self { units: Vec::with_capacity(64), small: Vec::with_capacity(UNIT_BYTES), own_families: 0 }
    }
}

impl Units {
    /// The buffer for small ranges.
    pub(crate) fn small(&mut self) -> &mut Vec<u8> {
        if self.own_families > 0 {
            self.end_small();
        }
        &mut self.small
    }

    /// The buffer for a family of the gateway's own.
    fn own(&mut self) -> &mut Vec<u8> {
        if self.own_families == 0 {
            self.end_small();
        }
        self.own_families += 1;
        &mut self.small
    }

    /// Adds a segment of stored text.
    pub(crate) fn add(&mut self, segment: &Arc<Segment>) {
        if segment.text().len() < SMALL_BYTES {
            self.copy(segment.text());
        } else {
            self.append(Unit::Segment(segment.clone()));
        }
    }

    /// Adds a translated segment.
    pub(crate) fn add_piece(&mut self, piece: Piece) {
        match piece {
            Piece::Plain(plain) if plain.len() < SMALL_BYTES => self.copy(&plain),
            piece => self.append(Unit::Translated(piece)),
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Unit> {
        self.end_small();
        self.units
    }

    fn copy(&mut self, small: &[u8]) {
        self.small().extend_from_slice(small);
        if self.small.len() >= UNIT_BYTES {
            self.end_small();
        }
    }

    fn append(&mut self, unit: Unit) {
        self.end_small();
        self.units.push(unit);
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            let small = std::mem::replace(&mut self.small, Vec::with_capacity(SMALL_BYTES));
            let families = std::mem::take(&mut self.own_families);
            let text = Bytes::from(small);
            self.units.push(if families > 0 { Unit::Own { text, families } } else { Unit::Copied(text) });
        }
    }
}

/// The metric type of one of the gateway's own families.
pub(crate) fn kind_of(kind: OwnKind) -> MetricType {
    match kind {
        OwnKind::Counter => MetricType::Counter,
        OwnKind::Gauge => MetricType::Gauge,
        OwnKind::Summary => MetricType::Summary,
    }
}

/// Writes one of the gateway's own families with its header.
pub(crate) fn write_own_family(out: &mut Vec<u8>, family: &OwnFamily) {
    write_header(out, family.name, kind_of(family.kind), Some(family.help));
    write_own(out, family);
}

/// Writes the lines of one of the gateway's own families.
pub(crate) fn write_own(out: &mut Vec<u8>, family: &OwnFamily) {
    for sample in &family.samples {
        let mut line = |suffix: &str, quantile: Option<f64>, value: f64| {
            out.extend_from_slice(family.name.as_bytes());
            out.extend_from_slice(suffix.as_bytes());
            let start = out.len();
            for (name, value) in &sample.labels {
                out.push(if out.len() == start { b'{' } else { b',' });
                write_label(out, name, value);
            }
            if let Some(quantile) = quantile {
                out.push(if out.len() == start { b'{' } else { b',' });
                out.extend_from_slice(b"quantile=\"");
                write_float(out, quantile);
                out.push(b'"');
            }
            if out.len() > start {
                out.push(b'}');
            }
            out.push(b' ');
            write_float(out, value);
            out.push(b'\n');
        };
        match &sample.value {
            OwnValue::Single(value) => line("", None, *value),
            OwnValue::Summary { quantiles, sum, count } => {
                for (quantile, value) in quantiles {
                    line("", Some(*quantile), *value);
                }
                line("_sum", None, *sum);
                line("_count", None, *count as f64);
            }
        }
    }
}
