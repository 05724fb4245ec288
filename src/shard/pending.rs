//! Pending numbers: those of the latest pushes, which are not in the text yet.
//!
//! A push of the shape that its group has stores its numbers and its time in one place. The text follows in *rounds*: the shard takes all
//! pending numbers, and goes family by family and segment by segment, so it rewrites each segment once for all of its groups.
//!
//! * A round is merged in slices, between which the shard executes commands. Numbers that are pushed in the meantime are for the next round.
//!   Between two rounds, no group is half in the text. Snapshots are only taken then.
//! * Beginning a round visits no group: which groups are in it is a bit for each, and their order is that of the lines in each family.
//! * Every read of a group returns its latest numbers ([`Shard::numbers_of`]), pending or not.
//! * A command that changes a group in another way first brings its text up to date ([`Shard::finish_numbers`]), or drops its numbers if
//!   it deletes the group.
//! * A group that changes from one shape to another takes its pending numbers along, and stays in the round with the shape that it had.
//!   Until they are merged, its series in the text are not those that it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group_set::GroupSet;
use super::key::write_series_labels;
use super::segments::{FamilyText, NewLines, Rewriting};
use super::shapes::{NO_SHAPE, Shape};
use super::slab::Number;
use super::text_edit::write_time;
use super::{PUSH_TIME_NUMBER, Shard};

/// A free place.
const NONE: Number = Number::MAX;
/// The cost of looking at a group or a segment while a family is merged, and of writing its lines, in bytes to copy.
const LOOK: usize = 16;
const WRITE: usize = 512;
/// The cost of adding a family of a shape to those of a round.
const LIST: usize = 256;
/// Numbers are in chunks of so many, so that they are never moved, and freed in slices.
const CHUNK_NUMBERS: usize = 8 << 10;

/// Where the numbers of a group are. Which of them exist is known by [`Pending::groups`] and [`Round::groups`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// Among those of its shape: pending, or else in the round.
    index: u32,
    /// If it has both, those in the round: the number of the shape that it had when the round began, and the place there.
    in_round: (Number, u32),
}

/// The pending numbers of the groups that have one shape.
#[derive(Debug, Default)]
pub(super) struct PendingNumbers {
    /// The groups, or [`NONE`] in a free place.
    groups: Vec<Number>,
    /// For each group, the time of the push and the numbers.
    chunks: Vec<Vec<f64>>,
    /// How many groups are in a chunk, as a power of two.
    shift: u32,
    /// The free places. They are used again, so that clients that push and delete in turn do not fill the memory between two rounds.
    free: Vec<u32>,
}

impl PendingNumbers {
    pub fn is_empty(&self) -> bool {
        self.groups.len() == self.free.len()
    }

    /// The groups that have numbers.
    pub fn groups(&self) -> impl Iterator<Item = Number> {
        self.groups.iter().copied().filter(|group| *group != NONE)
    }

    /// Stores the time of a push and its numbers. Returns their place.
    fn insert(&mut self, group: Number, time: f64, numbers: &[f64]) -> u32 {
        if let Some(index) = self.free.pop() {
            self.groups[index as usize] = group;
            self.set(index, time, numbers);
            return index;
        }
        let width = 1 + numbers.len();
        if self.groups.is_empty() {
            self.shift = (CHUNK_NUMBERS / width).max(1).ilog2();
        }
        let index = self.groups.len();
        if index >> self.shift == self.chunks.len() {
            // Most shapes have few groups, so the first chunk grows.
            let places = if index == 0 { 1 } else { 1 << self.shift };
            self.chunks.push(Vec::with_capacity(places * width));
        }
        let chunk = &mut self.chunks[index >> self.shift];
        chunk.push(time);
        chunk.extend_from_slice(numbers);
        self.groups.push(group);
        index as u32
    }

    fn set(&mut self, index: u32, time: f64, numbers: &[f64]) {
        let (chunk, start) = self.place(index, 1 + numbers.len());
        let known = &mut self.chunks[chunk][start..][..1 + numbers.len()];
        known[0] = time;
        known[1..].copy_from_slice(numbers);
    }

    fn remove(&mut self, index: u32) {
        self.groups[index as usize] = NONE;
        self.free.push(index);
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn at(&self, index: u32, width: usize) -> &[f64] {
        let (chunk, start) = self.place(index, width);
        &self.chunks[chunk][start..][..width]
    }

    /// The chunk of a group, and where its numbers begin there.
    fn place(&self, index: u32, width: usize) -> (usize, usize) {
        let index = index as usize;
        (index >> self.shift, (index & ((1 << self.shift) - 1)) * width)
    }

    /// Frees a chunk. Returns its bytes; `None` if there is none.
    fn free_chunk(&mut self) -> Option<usize> {
        Some(size_of_val(&*self.chunks.pop()?))
    }
}

/// The numbers of a group that are newer than its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupNumbers<'s> {
    pub shape: &'s Arc<Shape>,
    /// The families of the shape on this shard.
    pub families: &'s [Number],
    /// The time of the push, and its numbers.
    time_and_numbers: &'s [f64],
}

impl GroupNumbers<'_> {
    /// The number of the body with this index.
    pub fn get(&self, index: u32) -> f64 {
        self.time_and_numbers[1 + index as usize]
    }

    /// The lines of a family, if the shape has it.
    pub fn lines(&self, family: Number, key: &str) -> Option<Vec<u8>> {
        let index = self.index_of(family)?;
        let (mut labels, mut lines) = (Vec::new(), Vec::new());
        write_series_labels(&mut labels, key);
        self.shape.write_lines(index, &labels, &self.time_and_numbers[1..], &mut lines);
        Some(lines)
    }

    /// Whether the lines of a family contain a series, given as [`super::series::series_of`] yields it.
    pub fn has_series(&self, family: Number, key: &str, series: &[u8]) -> bool {
        let Some(index) = self.index_of(family) else { return false };
        let mut labels = Vec::new();
        write_series_labels(&mut labels, key);
        self.shape.has_series(index, &labels, series)
    }

    fn index_of(&self, family: Number) -> Option<usize> {
        self.families.iter().position(|known| *known == family)
    }
}

/// Numbers that are being merged into the text.
#[derive(Debug)]
struct Round {
    /// Sorted by the number of the shape.
    shapes: Vec<RoundShape>,
    /// How many shapes have their families in the list.
    listed: usize,
    /// The groups that still need their numbers.
    groups: GroupSet,
    /// What is left to merge: families, each with the shapes that have it, as indexes of `shapes` and of their families.
    families: BTreeMap<Number, Vec<(u32, u32)>>,
    current: Option<CurrentFamily>,
    /// Whether a group had another shape before.
    has_switched: bool,
}

#[derive(Debug)]
struct RoundShape {
    /// The number of the shape on this shard when the round began. Another shape may have it now.
    number: Number,
    shape: Arc<Shape>,
    families: Arc<[Number]>,
    numbers: PendingNumbers,
}

/// A family that is being merged.
#[derive(Debug)]
struct CurrentFamily {
    family: Number,
    /// The shapes that have it, as in [`Round::families`], sorted.
    shapes: Vec<(u32, u32)>,
    /// The groups before this one are done.
    next: Number,
}

/// The pending numbers of a shard.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The groups with numbers that are in no round.
    groups: GroupSet,
    round: Option<Round>,
    /// How many rounds were begun.
    rounds: u64,
    /// Whether one of the groups had another shape before.
    has_switched: bool,
    /// Whether one of the groups got or lost a family, so that a part of its last push is in the text.
    is_half_in_text: bool,
    /// Memory that is used again and again.
    labels: Vec<u8>,
    rewriting: Rewriting,
}

impl Shard {
    /// The number of groups whose numbers wait for a round.
    pub fn pending_groups(&self) -> usize {
        self.pending.groups.len()
    }

    /// The round after which the text contains everything that was pushed until now. `None` if the text contains it already.
    pub fn next_merged(&self) -> Option<u64> {
        let Pending { groups, round, rounds, .. } = &self.pending;
        (!groups.is_empty() || round.is_some()).then(|| rounds + u64::from(!groups.is_empty()))
    }

    /// Whether this round is in the text, and nothing else is half in it. Deletes can make a round unnecessary.
    pub fn is_merged(&self, round: u64) -> bool {
        let Pending { groups, round: current, rounds, is_half_in_text, .. } = &self.pending;
        current.is_none() && (groups.is_empty() || (*rounds >= round && !is_half_in_text))
    }

    /// Continues to merge a round, or begins one. Returns whether no round is half in the text any more, which may be a moment before the
    /// next one must begin. Stops when about `bytes_max` bytes could have been copied.
    pub fn merge(&mut self, bytes_max: usize) -> bool {
        let Some(mut round) = self.pending.round.take().or_else(|| self.begin_round()) else { return true };
        let mut cost = 0;
        while cost < bytes_max {
            match self.merge_step(&mut round) {
                Some(step) => cost += step,
                None => return true,
            }
        }
        self.pending.round = Some(round);
        false
    }

    /// Merges all pending numbers.
    pub fn merge_all(&mut self) {
        while let Some(round) = self.next_merged() {
            while !self.is_merged(round) {
                self.merge(usize::MAX);
            }
        }
    }

    /// Stores the numbers of a push to a group that has a shape. The text follows.
    pub(super) fn store_numbers(&mut self, group: Number, time: f64, numbers: &[f64]) {
        let Self { groups, shapes, pending, .. } = self;
        let entry = &mut groups[group];
        let of_shape = shapes.pending_of(entry.shape);
        if pending.groups.contains(group) {
            return of_shape.set(entry.place.index, time, numbers);
        }
        if pending.is_in_round(group) {
            entry.place.in_round = (entry.shape, entry.place.index);
        }
        entry.place.index = of_shape.insert(group, time, numbers);
        pending.groups.insert(group);
    }

    /// The same for a group that had another shape. If it has got or lost a family, that is in the text already.
    pub(super) fn store_numbers_of_other_shape(
        &mut self,
        group: Number,
        shape: Number,
        time: f64,
        numbers: &[f64],
        is_half_in_text: bool,
    ) {
        let Self { groups, shapes, pending, .. } = self;
        let entry = &mut groups[group];
        if pending.groups.contains(group) {
            shapes.pending_of(entry.shape).remove(entry.place.index);
        } else if pending.is_in_round(group) {
            entry.place.in_round = (entry.shape, entry.place.index);
        }
        entry.place.index = shapes.pending_of(shape).insert(group, time, numbers);
        entry.shape = shape;
        pending.groups.insert(group);
        pending.has_switched = true;
        pending.is_half_in_text |= is_half_in_text;
    }

    /// Whether a round is half in the text.
    pub(super) fn is_merging(&self) -> bool {
        self.pending.round.is_some()
    }

    /// The numbers of a group, if they are newer than its text.
    pub(super) fn numbers_of(&self, group: Number) -> Option<GroupNumbers<'_>> {
        let entry = &self.groups[group];
        if entry.shape == NO_SHAPE {
            return None;
        }
        let (shape, families, numbers) = if self.pending.groups.contains(group) {
            self.shapes.pending_at(entry.shape)?
        } else {
            let round = self.pending.round.as_ref().filter(|round| round.groups.contains(group))?;
            let RoundShape { shape, families, numbers, .. } = &round.shapes[round.index_of(entry.shape)?];
            (shape, &**families, numbers)
        };
        let time_and_numbers = numbers.at(entry.place.index, 1 + shape.numbers_len());
        Some(GroupNumbers { shape, families, time_and_numbers })
    }

    /// Brings the text of a group up to date, which is about to change in another way.
    pub(super) fn finish_numbers(&mut self, group: Number) {
        let Some(GroupNumbers { shape, families, time_and_numbers }) = self.numbers_of(group) else { return };
        let (shape, families, numbers) = (shape.clone(), families.to_vec(), time_and_numbers.to_vec());
        self.discard_numbers(group);
        let (mut labels, mut lines) = (Vec::new(), Vec::new());
        write_series_labels(&mut labels, &self.groups[group].key);
        for (index, family) in families.into_iter().enumerate() {
            lines.clear();
            shape.write_lines(index, &labels, &numbers[1..], &mut lines);
            self.replace_lines(group, family, NewLines::Run(&lines));
        }
        lines.clear();
        write_time(&mut lines, &self.families[PUSH_TIME_NUMBER].shared.name, &labels, numbers[0]);
        self.replace_lines(group, PUSH_TIME_NUMBER, NewLines::Run(&lines));
        self.groups[group].families.set_push_seconds(numbers[0]);
    }

    /// Drops the numbers of a group that are not in the text. The text of the group may be half in a round, and must be replaced.
    pub(super) fn discard_numbers(&mut self, group: Number) {
        let entry = &self.groups[group];
        if self.pending.groups.remove(group) {
            self.shapes.pending_of(entry.shape).remove(entry.place.index);
        }
        if let Some(round) = &mut self.pending.round {
            round.groups.remove(group);
        }
    }

    /// Takes all pending numbers as a round.
    fn begin_round(&mut self) -> Option<Round> {
        let pending = &mut self.pending;
        if pending.groups.is_empty() {
            return None;
        }
        pending.rounds += 1;
        pending.is_half_in_text = false;
        let shapes = self.shapes.take_pending();
        let places = shapes.iter().map(|(.., numbers)| numbers.groups.len() - numbers.free.len());
        debug_assert_eq!(places.sum::<usize>(), pending.groups.len(), "each group has one place");
        let of_round = |(number, shape, families, numbers)| RoundShape { number, shape, families, numbers };
        Some(Round {
            shapes: shapes.into_iter().map(of_round).collect(),
            listed: 0,
            groups: std::mem::take(&mut pending.groups),
            families: BTreeMap::new(),
            current: None,
            has_switched: std::mem::take(&mut pending.has_switched),
        })
    }

    /// Makes a step of a round. Returns its cost, or `None` if the round has ended.
    fn merge_step(&mut self, round: &mut Round) -> Option<usize> {
        if let Some(cost) = round.list_families() {
            return Some(cost);
        }
        let Some(mut current) = round.current.take().or_else(|| round.next_family()) else {
            return round.free();
        };
        Some(match self.merge_segment(round, &mut current) {
            Some(cost) => {
                round.current = Some(current);
                cost
            }
            None => LOOK,
        })
    }

    /// Writes the lines of the next groups of a family which are in one segment. Returns the cost, or `None` at the end.
    fn merge_segment(&mut self, round: &Round, current: &mut CurrentFamily) -> Option<usize> {
        let Self { families, groups: all, pending, counts, .. } = self;
        let Pending { groups: pending, labels, rewriting, .. } = pending;
        // Groups that still have their numbers have the family, so it exists while there is one.
        let name = families.get(current.family)?.shared.name.clone();
        let is_time = current.family == PUSH_TIME_NUMBER;
        let text: &mut FamilyText = Arc::make_mut(&mut families[current.family].text);
        // The number of a shape, and its index and that of the family: neighbours mostly have the same.
        let (mut near, mut found) = (NO_SHAPE, None);
        let write = |group: Number, out: &mut Vec<u8>| {
            let entry = &mut all[group];
            let (number, index) = match entry.place {
                Place { in_round, .. } if pending.contains(group) => in_round,
                Place { index, .. } => (entry.shape, index),
            };
            if near != number {
                (near, found) = (number, round.family_of(number, current));
            }
            let Some((shape, family)) = found else { return false };
            let numbers = shape.numbers.at(index, 1 + shape.shape.numbers_len());
            labels.clear();
            write_series_labels(labels, &entry.key);
            if is_time {
                write_time(out, &name, labels, numbers[0]);
                entry.families.set_push_seconds(numbers[0]);
            } else {
                shape.shape.write_lines(family, labels, &numbers[1..], out);
            }
            true
        };
        let segments = text.segments().len();
        let rewritten = rewriting.rewrite(text, &round.groups, current.next, round.has_switched, write)?;
        counts.bytes = counts.bytes + rewritten.new_bytes - rewritten.old_bytes;
        counts.series = counts.series + rewritten.new_lines - rewritten.old_lines;
        counts.segments = counts.segments + text.segments().len() - segments;
        current.next = rewritten.next;
        Some(LOOK + WRITE * rewritten.groups + rewritten.new_bytes)
    }
}

impl Pending {
    fn is_in_round(&self, group: Number) -> bool {
        self.round.as_ref().is_some_and(|round| round.groups.contains(group))
    }
}

impl Round {
    /// Lists the families of the next shape. Returns the cost, or `None` if all are listed.
    fn list_families(&mut self) -> Option<usize> {
        let shape = self.shapes.get(self.listed)?;
        let at = self.listed as u32;
        self.families.entry(PUSH_TIME_NUMBER).or_default().push((at, 0));
        for (family, number) in (0..).zip(shape.families.iter()) {
            self.families.entry(*number).or_default().push((at, family));
        }
        self.listed += 1;
        Some(LIST * (1 + shape.families.len()))
    }

    fn next_family(&mut self) -> Option<CurrentFamily> {
        let (family, shapes) = self.families.pop_first()?;
        Some(CurrentFamily { family, shapes, next: 0 })
    }

    /// The index of the shape that had this number.
    fn index_of(&self, number: Number) -> Option<usize> {
        self.shapes.binary_search_by_key(&number, |shape| shape.number).ok()
    }

    /// The shape that had this number, and the index of a family there.
    fn family_of(&self, number: Number, current: &CurrentFamily) -> Option<(&RoundShape, usize)> {
        let index = self.index_of(number)?;
        let at = current.shapes.binary_search_by_key(&(index as u32), |(shape, _)| *shape).ok()?;
        Some((&self.shapes[index], current.shapes[at].1 as usize))
    }

    /// Frees some of its memory at the end. Returns the cost, or `None` if all is free.
    fn free(&mut self) -> Option<usize> {
        // Nobody looks for numbers here any more.
        self.groups = GroupSet::default();
        let last = self.shapes.last_mut()?;
        Some(last.numbers.free_chunk().unwrap_or_else(|| {
            self.shapes.pop();
            LIST
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_come_and_go_between_two_rounds_take_no_memory() {
        let mut pending = PendingNumbers::default();
        let kept = pending.insert(1, 1.0, &[5.0]);
        for _ in 0..100 {
            let place = pending.insert(2, 2.0, &[6.0]);
            assert_eq!(pending.at(place, 2), [2.0, 6.0]);
            pending.remove(place);
        }
        assert_eq!(pending.groups.len(), 2);
        assert_eq!(pending.at(kept, 2), [1.0, 5.0]);
        assert_eq!(pending.groups().collect::<Vec<_>>(), [1]);
        assert!(!pending.is_empty());
        pending.remove(kept);
        assert!(pending.is_empty() && pending.groups.is_empty());
    }

    #[test]
    fn numbers_are_in_chunks_of_limited_size() {
        for width in [1, 2, 18, 5_000, 10_000] {
            let mut pending = PendingNumbers::default();
            let numbers = |group: u32| vec![f64::from(group); width];
            let places: Vec<u32> =
                (0..20_000 / width as u32).map(|group| pending.insert(group, 1.0, &numbers(group))).collect();
            for (group, place) in (0..).zip(places) {
                assert_eq!(pending.at(place, 1 + width)[1..], numbers(group));
            }
            let longest = pending.chunks.iter().map(Vec::capacity).max();
            assert!(longest.is_some_and(|longest| longest <= CHUNK_NUMBERS.max(1 + width)), "{longest:?}");
            let chunks = std::iter::from_fn(|| pending.free_chunk()).count();
            assert!(chunks >= (20_000 / CHUNK_NUMBERS).max(1), "{chunks}");
        }
    }
}
