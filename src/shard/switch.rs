//! A push of a known shape to a group that has another one: usually a series more or less.
//!
//! The group changes to the shape of the push, and its numbers are stored as if it had the shape already. That needs neither a plan nor a
//! look-up nor the registry, because only such changes are made that neither need a decision nor release anything that others wait for:
//!
//! * A family in both shapes has the same type and help text. If groups with other label names have it, too, its series are the same;
//!   otherwise no group can have equal series.
//! * A family that only the new shape has is known on this core with its type, its help text and the group's set of label names, and no
//!   other set has it. A family that only the old shape has is left to other groups of the same kind.
//!
//! Everything else is a push like any other. So is a change of families while a round is merged: the lines of those families are written
//! at once, and between two rounds, a snapshot must not show a part of a push.

use smallvec::SmallVec;

use super::Shard;
use super::push::Mode;
use super::segments::NewLines;
use super::shapes::ShapedPush;
use super::slab::Number;
use super::tables::GroupFamily;

/// The families in which two shapes differ.
#[derive(Debug, Default)]
struct Difference {
    /// Those of the group that the new shape lacks.
    dropped: SmallVec<[GroupFamily; 2]>,
    /// The indexes of those that only the new shape has.
    added: SmallVec<[usize; 2]>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.added.is_empty()
    }
}

impl Shard {
    /// Gives a group the shape of a push and stores its numbers, if the group has a shape that allows it. Otherwise does nothing.
    pub(super) fn switch_shape(&mut self, group: Number, push: &ShapedPush, now: f64) -> Option<()> {
        // The totals must contain the numbers at once.
        if self.registry.totals().is_some() {
            return None;
        }
        self.shapes.get(self.groups[group].shape)?;
        let new = self.acquire_shape(&push.shape)?;
        let Some(difference) = self.difference(group, new, push.mode) else {
            self.shapes.release(new);
            return None;
        };
        let old = self.groups[group].shape;
        if !difference.is_empty() {
            self.change_families(group, &difference, new, push, now);
        }
        self.store_numbers_of_other_shape(group, new, now, &push.numbers, !difference.is_empty());
        self.shapes.release(old);
        Some(())
    }

    /// The families in which the shape of a group differs from another one. `None` if the group cannot change to that one here.
    fn difference(&self, group: Number, new: Number, mode: Mode) -> Option<Difference> {
        let entry = &self.groups[group];
        let (old_shape, old_families) = self.shapes.get(entry.shape)?;
        let (new_shape, new_families) = self.shapes.get(new)?;
        let mut difference = Difference::default();
        let mut kept = 0;
        for (at, number) in new_families.iter().enumerate() {
            let (local, family) = (&self.families[*number], &new_shape.families()[at]);
            let is_same = |old: &usize| old_families.get(*old) == Some(number);
            let old = Some(at).filter(is_same).or_else(|| (0..old_families.len()).find(is_same));
            let is_possible = match old {
                Some(old) => {
                    kept += 1;
                    old_shape.families()[old].help == family.help
                        && (!local.shared.has_several_sets() || new_shape.has_same_series(at, old_shape, old))
                }
                None => {
                    difference.added.push(at);
                    local.groups_of_set(entry.set) > 0
                        && !local.shared.has_several_sets()
                        && family.help.as_ref().is_none_or(|help| local.helps.find(help).is_some())
                }
            };
            if local.kind != family.kind || !is_possible {
                return None;
            }
        }
        if kept < old_families.len() {
            // A merge keeps the others, so the group would have neither shape.
            if mode == Mode::Merge {
                return None;
            }
            for number in old_families.iter().filter(|number| !new_families.contains(number)) {
                let old = entry.families.get(*number)?;
                let is_released = self.change_for_release(&old, entry.set).is_some();
                if is_released || self.families[*number].shared.has_several_sets() {
                    return None;
                }
                difference.dropped.push(old);
            }
        }
        (difference.is_empty() || !self.is_merging()).then_some(difference)
    }

    /// Removes the families that a group loses, and adds those that it gets, with their lines.
    fn change_families(
        &mut self,
        group: Number,
        difference: &Difference,
        new: Number,
        push: &ShapedPush,
        now: f64,
    ) {
        let set = self.groups[group].set;
        for old in &difference.dropped {
            self.release(group, old, set);
            self.groups[group].families.remove(old.number);
            self.replace_lines(group, old.number, NewLines::Run(&[]));
        }
        let (mut labels, mut lines) = (Vec::new(), Vec::new());
        push.key.write_series_labels(&mut labels);
        for index in &difference.added {
            let Some(number) = self.shapes.get(new).map(|(_, families)| families[*index]) else { continue };
            let local = &mut self.families[number];
            local.add_holder(set);
            let help = local.helps.add(push.shape.families()[*index].help.as_deref());
            self.groups[group].families.insert(GroupFamily { number, help, push_seconds: now });
            lines.clear();
            push.shape.write_lines(*index, &labels, &push.numbers, &mut lines);
            self.replace_lines(group, number, NewLines::Run(&lines));
        }
        self.families_max = self.families_max.max(self.groups[group].families.len());
    }
}
