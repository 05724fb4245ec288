//! Pending numbers: those of the latest pushes, which are not in the text yet.
//!
//! A push of the shape that its group has stores its numbers and its time in one place. The text follows in *rounds*: the shard takes all
//! pending numbers, and goes family by family and segment by segment, so it rewrites each segment once for all of its groups.
//!
//! * A round is merged in slices, between which the shard executes commands. Numbers that are pushed in the meantime are for the next round.
//!   Between two rounds, no group is half in the text. Snapshots are only taken then.
//! * Every read of a group returns its latest numbers ([`Shard::numbers_of`]), pending or not.
//! * A command that changes a group in another way first brings its text up to date ([`Shard::finish_numbers`]), or drops its numbers if
//!   it deletes the group.
//!
//! The series of a group are the same in the text, in the round and in the pending numbers, so looking for duplicates needs none of that.

use std::sync::Arc;

use super::key::write_series_labels;
use super::segments::{FamilyText, NewLines, Rewriting};
use super::shapes::{NO_SHAPE, Shape};
use super::slab::Number;
use super::text_edit::write_time;
use super::{PUSH_TIME_NUMBER, Shard};

/// The group has no numbers in a place.
const NONE: u32 = u32::MAX;
/// The cost of looking at a group while a family is merged, and of writing its lines, in bytes to copy.
const LOOK: usize = 16;
const WRITE: usize = 512;

/// Where the pending numbers of a group are among those of its shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    index: u32,
    /// The number of rounds when it was stored. Later, the numbers are in a round or in the text.
    rounds: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self { index: NONE, rounds: 0 }
    }
}

/// The pending numbers of the groups that have one shape.
#[derive(Debug, Default)]
pub(super) struct PendingNumbers {
    /// The groups, or [`NONE`] in a free place.
    groups: Vec<Number>,
    /// For each group, the time of the push and the numbers.
    numbers: Vec<f64>,
    /// The free places. They are used again, so that clients that push and delete in turn do not fill the memory between two rounds.
    free: Vec<u32>,
}

impl PendingNumbers {
    pub fn is_empty(&self) -> bool {
        self.groups.len() == self.free.len()
    }

    /// Stores the time of a push and its numbers. Returns their place.
    fn insert(&mut self, group: Number, time: f64, numbers: &[f64]) -> u32 {
        if let Some(index) = self.free.pop() {
            self.groups[index as usize] = group;
            self.set(index, time, numbers);
            return index;
        }
        self.groups.push(group);
        self.numbers.push(time);
        self.numbers.extend_from_slice(numbers);
        self.groups.len() as u32 - 1
    }

    fn set(&mut self, index: u32, time: f64, numbers: &[f64]) {
        let width = 1 + numbers.len();
        let known = &mut self.numbers[index as usize * width..][..width];
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
        &self.numbers[index as usize * width..][..width]
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
        let index = self.families.iter().position(|known| *known == family)?;
        let (mut labels, mut lines) = (Vec::new(), Vec::new());
        write_series_labels(&mut labels, key);
        self.shape.write_lines(index, &labels, &self.time_and_numbers[1..], &mut lines);
        Some(lines)
    }
}

/// Numbers that are being merged into the text.
#[derive(Debug)]
struct Round {
    /// Sorted by the number of the shape.
    shapes: Vec<RoundShape>,
    /// What is left to merge: families, each with the shapes that have it, as indexes of `shapes` and of their families. The last one is
    /// next.
    families: Vec<(Number, Vec<(u32, u32)>)>,
    current: Option<CurrentFamily>,
}

#[derive(Debug)]
struct RoundShape {
    /// The number of the shape on this shard.
    number: Number,
    shape: Arc<Shape>,
    families: Arc<[Number]>,
    /// Sorted by group. The index of the numbers is [`NONE`] if the group needs them no longer.
    groups: Vec<(Number, u32)>,
    numbers: PendingNumbers,
}

/// A family that is being merged.
#[derive(Debug)]
struct CurrentFamily {
    family: Number,
    /// The groups to write, sorted, and those that are written already.
    groups: Vec<RoundGroup>,
    done: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RoundGroup {
    group: Number,
    /// The index of its shape in the round, of the group in the shape, and of the family in the shape.
    shape: u32,
    at: u32,
    family: u32,
}

/// The pending numbers of a shard.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// How many groups have numbers that are in no round.
    groups: usize,
    round: Option<Round>,
    /// How many rounds were begun.
    rounds: u64,
    /// Memory that is used again and again.
    labels: Vec<u8>,
    rewriting: Rewriting,
}

impl Shard {
    /// The number of groups whose numbers wait for a round.
    pub fn pending_groups(&self) -> usize {
        self.pending.groups
    }

    /// The round after which the text contains everything that was pushed until now. `None` if the text contains it already.
    pub fn next_merged(&self) -> Option<u64> {
        let Pending { groups, round, rounds, .. } = &self.pending;
        (*groups > 0 || round.is_some()).then(|| rounds + u64::from(*groups > 0))
    }

    /// Whether this round is in the text, and no later one is half in it. Deletes can make a round unnecessary.
    pub fn is_merged(&self, round: u64) -> bool {
        let Pending { groups, round: current, rounds, .. } = &self.pending;
        current.is_none() && (*rounds >= round || *groups == 0)
    }

    /// Continues to merge a round, or begins one. Returns whether no round is half in the text any more, which may be a moment before the
    /// next one must begin. Stops when about `bytes_max` bytes could have been copied.
    pub fn merge(&mut self, bytes_max: usize) -> bool {
        let Some(mut round) = self.pending.round.take().or_else(|| self.begin_round()) else { return true };
        let mut cost = 0;
        while cost < bytes_max {
            if round.current.is_none() {
                round.current = round.next_family();
                cost += round.current.as_ref().map_or(0, |current| LOOK * current.groups.len());
            }
            let Some(mut current) = round.current.take() else {
                return true;
            };
            cost += self.merge_segment(&mut round, &mut current);
            if current.done < current.groups.len() {
                round.current = Some(current);
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
        let entry = &mut self.groups[group];
        let pending = self.shapes.pending_of(entry.shape);
        if entry.place.index != NONE && entry.place.rounds == self.pending.rounds {
            pending.set(entry.place.index, time, numbers);
            return;
        }
        entry.place = Place { index: pending.insert(group, time, numbers), rounds: self.pending.rounds };
        self.pending.groups += 1;
    }

    /// The numbers of a group, if they are newer than its text.
    pub(super) fn numbers_of(&self, group: Number) -> Option<GroupNumbers<'_>> {
        let entry = &self.groups[group];
        if entry.shape == NO_SHAPE {
            return None;
        }
        if entry.place.index != NONE && entry.place.rounds == self.pending.rounds {
            let (shape, families, pending) = self.shapes.pending_at(entry.shape)?;
            let time_and_numbers = pending.at(entry.place.index, 1 + shape.numbers_len());
            return Some(GroupNumbers { shape, families, time_and_numbers });
        }
        let round = self.pending.round.as_ref()?;
        let (shape, at) = round.find(entry.shape, group)?;
        let RoundShape { shape, families, groups, numbers, .. } = &round.shapes[shape];
        let time_and_numbers = numbers.at(groups[at].1, 1 + shape.numbers_len());
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
        let entry = &mut self.groups[group];
        let place = std::mem::take(&mut entry.place);
        if entry.shape == NO_SHAPE {
            return;
        }
        if place.index != NONE && place.rounds == self.pending.rounds {
            self.shapes.pending_of(entry.shape).remove(place.index);
            self.pending.groups -= 1;
        }
        if let Some(round) = &mut self.pending.round
            && let Some((shape, at)) = round.find(entry.shape, group)
        {
            round.shapes[shape].groups[at].1 = NONE;
        }
    }

    /// Takes all pending numbers as a round.
    fn begin_round(&mut self) -> Option<Round> {
        if self.pending.groups == 0 {
            return None;
        }
        self.pending.groups = 0;
        // From now on, no place is that of pending numbers.
        self.pending.rounds += 1;
        let mut round = Round { shapes: Vec::new(), families: Vec::new(), current: None };
        for (number, shape, families, numbers) in self.shapes.take_pending() {
            let groups = numbers.groups.iter().copied().zip(0..).filter(|(group, _)| *group != NONE);
            let mut groups: Vec<(Number, u32)> = groups.collect();
            groups.sort_unstable();
            round.shapes.push(RoundShape { number, shape, families, groups, numbers });
        }
        round.list_families();
        Some(round)
    }

    /// Writes the lines of the next groups of a family which are in one segment. Returns the cost.
    fn merge_segment(&mut self, round: &mut Round, current: &mut CurrentFamily) -> usize {
        let CurrentFamily { family, groups, done } = current;
        let is_time = *family == PUSH_TIME_NUMBER;
        // Groups that still have their numbers have the family, so it exists while there is one.
        let is_alive = |at: &RoundGroup| round.shapes[at.shape as usize].groups[at.at as usize].1 != NONE;
        let skipped = groups[*done..].iter().take_while(|at| !is_alive(at)).count();
        *done += skipped;
        let rest = &groups[*done..];
        if rest.is_empty() {
            return LOOK * skipped;
        }
        let Self { families, groups: all, pending: Pending { labels, rewriting, .. }, counts, .. } = self;
        let name = families[*family].shared.name.clone();
        let text: &mut FamilyText = Arc::make_mut(&mut families[*family].text);
        let write = |at: &RoundGroup, out: &mut Vec<u8>| {
            let shape = &round.shapes[at.shape as usize];
            let index = shape.groups[at.at as usize].1;
            if index == NONE {
                return false;
            }
            let numbers = shape.numbers.at(index, 1 + shape.shape.numbers_len());
            let group = &mut all[at.group];
            labels.clear();
            write_series_labels(labels, &group.key);
            if is_time {
                write_time(out, &name, labels, numbers[0]);
                group.families.set_push_seconds(numbers[0]);
            } else {
                shape.shape.write_lines(at.family as usize, labels, &numbers[1..], out);
            }
            true
        };
        let segments = text.segments().len();
        let rewritten = rewriting.rewrite(text, rest, |at| at.group, write);
        counts.bytes = counts.bytes + rewritten.new_bytes - rewritten.old_bytes;
        counts.segments = counts.segments + text.segments().len() - segments;
        *done += rewritten.groups;
        LOOK * skipped + WRITE * rewritten.groups + rewritten.new_bytes
    }
}

impl Round {
    /// Lists the families of all shapes, push times first.
    fn list_families(&mut self) {
        let mut families = Vec::new();
        for (shape, RoundShape { families: numbers, .. }) in self.shapes.iter().enumerate() {
            let shape = shape as u32;
            families.extend(numbers.iter().zip(0..).map(|(number, family)| (*number, (shape, family))));
            families.push((PUSH_TIME_NUMBER, (shape, 0)));
        }
        families.sort_unstable();
        for (number, place) in families.into_iter().rev() {
            match self.families.last_mut().filter(|(last, _)| *last == number) {
                Some((_, places)) => places.push(place),
                None => self.families.push((number, vec![place])),
            }
        }
    }

    fn next_family(&mut self) -> Option<CurrentFamily> {
        let (family, shapes) = self.families.pop()?;
        let mut groups = Vec::new();
        for &(shape, family) in &shapes {
            let of_shape = self.shapes[shape as usize].groups.iter().zip(0..);
            groups.extend(of_shape.map(|((group, _), at)| RoundGroup { group: *group, shape, at, family }));
        }
        if shapes.len() > 1 {
            // They are runs, which this sort finds.
            groups.sort();
        }
        Some(CurrentFamily { family, groups, done: 0 })
    }

    /// The place of a group with this shape, as indexes of the shape and of the group, if it needs its numbers.
    fn find(&self, shape: Number, group: Number) -> Option<(usize, usize)> {
        let shape = self.shapes.binary_search_by_key(&shape, |known| known.number).ok()?;
        let groups = &self.shapes[shape].groups;
        let at = groups.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        (groups[at].1 != NONE).then_some((shape, at))
    }
}

#[cfg(test)]
mod tests {
    use super::PendingNumbers;

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
        assert!(!pending.is_empty());
        pending.remove(kept);
        assert!(pending.is_empty() && pending.groups.is_empty());
    }
}
