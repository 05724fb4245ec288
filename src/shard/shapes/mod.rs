//! Shapes: what pushes with the same series and other values have in common.
//!
//! Fleets push the same body again and again with different numbers. Then parsing, merging labels, sorting and all checks have the same
//! result as last time, and only the numbers are new. A [`Shape`] is that result. It has the pieces of the body between the numbers, and
//! of each line what precedes and follows the labels of the group. All groups with the same label names share it, on all cores.
//!
//! * `skeleton` — cutting a body at its numbers, and reading the numbers of a body that has the same pieces.
//! * `compile` — making a shape with the parser and the renderer.
//! * `table` — [`Shapes`]: which shapes are known, which are made, and which are forgotten.
//! * `local` — the shapes that groups of one shard have.
//!
//! A body that matches no shape is parsed and rendered as if there were no shapes, and so are its errors.

mod compile;
mod local;
mod skeleton;
mod table;

// A value; there is no IO in `core`.
use core::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

pub(super) use local::{LocalShapes, NO_SHAPE};
pub use table::{Payments, Shapes};

use super::key::GroupingKey;
use super::push::{Content, Mode, Push};
use super::segments::RUN_BYTES_MAX;
use crate::exposition::model::MetricType;
use crate::exposition::number::write_float;
use crate::exposition::render::RenderedBuilder;
use skeleton::Skeleton;

/// The longest rendered number and the line feed after it.
const NUMBER_BYTES_MAX: usize = 25;
/// How many bytes a body has more at most in a grouping key's series labels than in its text: `,instance=""`.
const INSTANCE_BYTES: usize = 12;
/// Lines of more bytes are rendered in the usual way, which can be interrupted.
const LINES_BYTES_MAX: usize = 256 << 10;

/// What all bodies have in common that differ only in their numbers.
#[derive(Debug)]
pub struct Shape {
    /// Different for each shape of the process.
    id: u64,
    /// The label names of the groups that can have the shape, see [`GroupingKey::names`].
    names: Box<str>,
    skeleton: Skeleton,
    families: Box<[ShapeFamily]>,
    lines: Box<[Line]>,
    /// The text of all lines, without the labels of the group and the numbers.
    text: Box<[u8]>,
    /// The most bytes and the most lines of a family, beside the labels of the group.
    family_bytes_max: usize,
    family_lines_max: usize,
    /// The bytes of all names and help texts.
    names_bytes: usize,
    /// The state of the table when it was last found there.
    last_used: AtomicU64,
    /// The table has forgotten the shape.
    is_evicted: AtomicBool,
}

/// A family of a shape.
#[derive(Debug)]
pub(super) struct ShapeFamily {
    pub name: Box<str>,
    pub help: Option<Box<str>>,
    pub kind: MetricType,
    /// The index after its last line.
    lines_end: u32,
}

/// A line: its text up to the labels of the group, the labels, the rest of its text, a number.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// The ends of both parts in [`Shape::text`].
    labels_at: u32,
    end: u32,
    /// The index of the number in the body.
    number: u32,
}

impl Shape {
    /// How many numbers a body has.
    pub(super) fn numbers_len(&self) -> usize {
        self.skeleton.len()
    }

    pub(super) fn families(&self) -> &[ShapeFamily] {
        &self.families
    }

    /// The lines of a family: what precedes and what follows the labels of the group, and the index of the number.
    fn lines(&self, family: usize) -> impl Iterator<Item = (&[u8], &[u8], usize)> {
        let first = family.checked_sub(1).map_or(0, |before| self.families[before].lines_end as usize);
        let mut start = first.checked_sub(1).map_or(0, |before| self.lines[before].end as usize);
        self.lines[first..self.families[family].lines_end as usize].iter().map(move |line| {
            let (before, after) =
                (start..line.labels_at as usize, line.labels_at as usize..line.end as usize);
            start = line.end as usize;
            (&self.text[before], &self.text[after], line.number as usize)
        })
    }

    /// Appends the lines of a family. `labels` are those of [`GroupingKey::series_labels`], `numbers` those of the body.
    pub(super) fn write_lines(&self, family: usize, labels: &[u8], numbers: &[f64], out: &mut Vec<u8>) {
        for (before, after, number) in self.lines(family) {
            out.extend_from_slice(before);
            out.extend_from_slice(labels);
            out.extend_from_slice(after);
            write_float(out, numbers[number]);
            out.push(b'\n');
        }
    }

    /// Whether a family has a series, given as [`super::series::series_of`] yields it.
    pub(super) fn has_series(&self, family: usize, labels: &[u8], series: &[u8]) -> bool {
        self.lines(family).any(|(before, after, _)| {
            // What follows the labels ends with the space before the number.
            let rest = series.strip_prefix(before).and_then(|rest| rest.strip_prefix(labels));
            rest.is_some_and(|rest| after.strip_prefix(rest) == Some(b" "))
        })
    }

    /// Whether a family has the same series as a family of another shape, for each group.
    pub(super) fn has_same_series(&self, family: usize, other: &Self, other_family: usize) -> bool {
        let series = |shape, family| Self::lines(shape, family).map(|(before, after, _)| (before, after));
        series(self, family).eq(series(other, other_family))
    }

    /// An upper bound of the bytes of all lines and help texts, for a group with this text of its key.
    pub(super) fn bytes_max(&self, key: &str) -> usize {
        let labels = key.len() + INSTANCE_BYTES;
        self.text.len() + self.lines.len() * (labels + NUMBER_BYTES_MAX) + self.names_bytes
    }

    /// Whether a group has the label names of the shape, and few enough that its lines are short.
    fn is_for(&self, key: &GroupingKey, bytes_max: usize) -> bool {
        let labels = key.text().len() + INSTANCE_BYTES;
        let family_bytes = self.family_bytes_max + self.family_lines_max * (labels + NUMBER_BYTES_MAX);
        family_bytes <= RUN_BYTES_MAX
            && self.bytes_max(key.text()) <= bytes_max.min(LINES_BYTES_MAX)
            && key.has_names(&self.names)
    }

    /// The memory that it takes.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.names.len()
            + self.skeleton.bytes()
            + self.names_bytes
            + size_of_val(&*self.families)
            + size_of_val(&*self.lines)
            + self.text.len()
    }
}

/// A push whose body has a known shape.
#[derive(Debug)]
pub struct ShapedPush {
    /// The group.
    pub key: GroupingKey,
    /// Replace or merge.
    pub mode: Mode,
    /// The address of the client, kept with the group if the push fails.
    pub source: Option<SocketAddr>,
    /// The shape of the body.
    pub shape: Arc<Shape>,
    /// The numbers of the body.
    pub numbers: Vec<f64>,
}

impl ShapedPush {
    /// The memory that the push takes on its way.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.numbers)
    }

    /// An upper bound of the bytes of all texts and lines.
    pub fn rendered_bytes_max(&self) -> usize {
        self.shape.bytes_max(self.key.text())
    }

    /// The same push, rendered.
    pub fn to_push(&self) -> Push {
        let mut labels = Vec::new();
        self.key.write_series_labels(&mut labels);
        let shape = &*self.shape;
        let mut rendered = RenderedBuilder::new(shape.bytes_max(self.key.text()));
        for (index, ShapeFamily { name, help, kind, .. }) in shape.families.iter().enumerate() {
            let write = |out: &mut Vec<u8>| shape.write_lines(index, &labels, &self.numbers, out);
            rendered.add_family(name, help.as_deref(), *kind, write);
        }
        Push {
            key: self.key.clone(),
            mode: self.mode,
            source: self.source,
            content: Content::new(rendered.finish()),
            disposal: None,
            shape: Some(self.shape.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
