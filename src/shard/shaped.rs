//! Applying a push whose shape its group has.
//!
//! While a group has a shape, it has all names, types, sets of label names, help texts and series of the shape, so nothing that happens
//! to other groups can make a push of the same shape contradict them. Such a push changes numbers and times, and nothing else: it needs
//! no plan, no look-up and no change at the registry, and it releases nothing.
//!
//! The numbers are only stored, and reach the text later, see [`super::pending`].
//!
//! Whatever else changes a group clears its shape. A rejected push changes nothing, and a failed one only a time, so both leave it.

use std::sync::Arc;

use super::limits::Amounts;
use super::push::{Mode, Push};
use super::segments::NewLines;
use super::shapes::{NO_SHAPE, Shape, ShapedPush};
use super::slab::Number;
use super::text_edit::write_time;
use super::{Change, ChangedPart, PUSH_TIME_NUMBER, Shard};

impl Shard {
    /// Applies a push if its group has its shape, or can change from its own to that of the push (see [`super::switch`]). Otherwise does
    /// nothing: the push must be applied as [`ShapedPush::to_push`]. A limit on the whole that it would exceed is such a case, too.
    pub fn push_numbers(&mut self, push: &ShapedPush, now_seconds: f64) -> Option<Change> {
        debug_assert!(!self.is_loading(), "pushes are accepted only after all groups are loaded");
        let group = self.groups.number_of(push.key.text())?;
        let now = self.time_of_push(Some(group), now_seconds);
        match self.shapes.families_of(self.groups[group].shape, &push.shape) {
            None => self.switch_shape(group, push, now)?,
            Some(_) if self.registry.totals().is_none() => self.store_numbers(group, now, &push.numbers),
            Some(families) => {
                let families = families.into();
                self.write_numbers(group, push, families, now)?;
            }
        }
        let bytes_bound = push.shape.bytes_max(push.key.text()) as u64;
        let entry = &mut self.groups[group];
        entry.push_seconds = now;
        entry.bytes_bound = bytes_bound;
        self.bytes_max = self.bytes_max.max(bytes_bound);
        // A merge and a replacement are the same here, but of a large group, the store gets only the families that were merged.
        Some(Change::Put(group, ChangedPart::of(push.mode)))
    }

    /// Writes the numbers of a push to the text. With limits on the whole, the totals must contain them at once. `None` if they would exceed
    /// a limit.
    fn write_numbers(
        &mut self,
        group: Number,
        push: &ShapedPush,
        families: Vec<Number>,
        now: f64,
    ) -> Option<()> {
        let mut lines = ShapedLines { families, ..ShapedLines::default() };
        push.key.write_series_labels(&mut lines.labels);
        for index in 0..lines.families.len() {
            push.shape.write_lines(index, &lines.labels, &push.numbers, &mut lines.text);
            lines.ends.push(lines.text.len());
        }
        let reserved = self.reserve_numbers(group, &lines)?;
        self.account(reserved);
        let mut start = 0;
        for (family, end) in lines.families.iter().zip(&lines.ends) {
            self.replace_lines(group, *family, NewLines::Run(&lines.text[start..*end]));
            start = *end;
        }
        self.groups[group].families.set_push_seconds(now);
        lines.text.clear();
        let name = &self.families[PUSH_TIME_NUMBER].shared.name;
        write_time(&mut lines.text, name, &lines.labels, now);
        self.replace_lines(group, PUSH_TIME_NUMBER, NewLines::Run(&lines.text));
        self.settle_totals();
        Some(())
    }

    /// Reserves room for what the lines add, if there are limits. `None` if there is none.
    fn reserve_numbers(&self, group: Number, lines: &ShapedLines) -> Option<Amounts> {
        let Some(totals) = self.registry.totals() else { return Some(Amounts::default()) };
        let old = lines.families.iter().map(|family| self.families[*family].text.measure(group).0 as i64);
        let growth = Amounts { bytes: lines.text.len() as i64 - old.sum::<i64>(), ..Amounts::default() };
        totals.try_add(growth).ok().map(|()| growth)
    }

    /// After a push: its group has the shape of the push, if it has nothing else, or none.
    pub(super) fn set_shape_of_push(&mut self, group: Number, push: &Push) {
        let is_whole = push.mode == Mode::Replace || self.groups[group].families.len() == push.families_len();
        let shape = push.shape.as_ref().filter(|_| is_whole);
        let new = shape.and_then(|shape| self.acquire_shape(shape)).unwrap_or(NO_SHAPE);
        let old = std::mem::replace(&mut self.groups[group].shape, new);
        self.shapes.release(old);
    }

    /// Counts a group that gets a shape. `None` if the shard lacks one of its families.
    pub(super) fn acquire_shape(&mut self, shape: &Arc<Shape>) -> Option<Number> {
        if !self.shapes.is_known(shape) {
            for group in self.shapes.forget_evicted() {
                self.finish_numbers(group);
            }
        }
        let families_by_name = &self.families_by_name;
        self.shapes.acquire(shape, |name| families_by_name.get(name).copied())
    }

    /// Forgets the shape of a group that is about to change.
    pub(super) fn clear_shape(&mut self, group: Number) {
        let old = std::mem::replace(&mut self.groups[group].shape, NO_SHAPE);
        self.shapes.release(old);
    }
}

/// The new lines of a group.
#[derive(Debug, Default)]
struct ShapedLines {
    labels: Vec<u8>,
    families: Vec<Number>,
    /// The lines of all families.
    text: Vec<u8>,
    /// The ends of the families in the text.
    ends: Vec<usize>,
}
