//! Moving a group to another shard of its core.

use super::group_families::Near;
use super::key::GroupingKey;
use super::pace::{CHANGE, Pace};
use super::registry::Transfer;
use super::segments::{GroupLines, NewLines};
use super::slab::Number;
use super::tables::{GroupFamily, NO_SHAPE_ID, StoredBytes};
use super::{FAILURE_TIME_NUMBER, PUSH_TIME_NUMBER, Shard};

impl Shard {
    /// Moves a group, if this shard has it, to another shard of the same core. Nothing else about it changes. No command is half
    /// applied in either shard, and the caller keeps everything else away from both until the group has moved.
    pub async fn move_group(&mut self, key: &GroupingKey, to: &mut Self, pace: &Pace) {
        let Some(number) = self.groups.number_of(key.text()) else { return };
        self.finish_numbers(number);
        self.clear_shape(number);
        let set = to.set_id(&key.names());
        let group = &mut self.groups[number];
        let families = std::mem::take(&mut group.families);
        let created_seconds = group.created_seconds;
        let moved = to.add_group(key, set, created_seconds, families.len());
        let (from, entry) = (&mut self.groups[number], &mut to.groups[moved]);
        entry.push_seconds = from.push_seconds;
        entry.failure_seconds = from.failure_seconds;
        entry.last_failure = from.last_failure.take();
        entry.bytes_bound = from.bytes_bound;
        entry.stored = StoredBytes { shape: NO_SHAPE_ID, ..from.stored };
        to.families_max = to.families_max.max(families.len());
        to.bytes_max = to.bytes_max.max(from.bytes_bound);
        let mut near = Near::default();
        for family in families.iter() {
            let cost = self.move_family(number, family, to, moved, &mut near);
            pace.spend(CHANGE + cost).await;
        }
        to.groups[moved].families.share(&mut to.shared_lists);
        for family in [PUSH_TIME_NUMBER, FAILURE_TIME_NUMBER] {
            self.move_lines(number, family, to, moved, family);
        }
        self.groups.remove(number);
        self.sets.remove_group(set, &self.registry);
        self.settle_totals();
        to.settle_totals();
    }

    /// Returns the bytes of the lines.
    fn move_family(
        &mut self,
        group: Number,
        family: GroupFamily,
        to: &mut Self,
        moved: Number,
        near: &mut Near,
    ) -> usize {
        let set = to.groups[moved].set;
        let local = &self.families[family.number];
        let help = local.helps.get(family.help).cloned();
        let number = match to.families_by_name.get(&local.shared.name) {
            Some(known) => *known,
            None => to.add_family(local.shared.clone(), local.kind),
        };
        let there = &mut to.families[number];
        let transfer = Transfer {
            name: &local.shared.name,
            from: self.core,
            to: to.core,
            is_claimed: there.holders == 0,
            is_released: local.holders == 1,
            set_added: (there.groups_of_set(set) == 0).then_some(set),
            set_dropped: (local.groups_of_set(set) == 1).then_some(set),
            help_added: help.clone().filter(|help| there.helps.find(help).is_none()),
            help_dropped: help.clone().filter(|_| local.helps.groups(family.help) == 1),
        };
        self.registry.transfer(&transfer);
        to.extra_bytes += transfer.help_added.map_or(0, |help| help.len() as i64);
        self.extra_bytes -= transfer.help_dropped.map_or(0, |help| help.len() as i64);
        there.kind = local.kind;
        there.add_holder(set);
        let help = there.helps.add(help.as_deref());
        let bytes = self.move_lines(group, family.number, to, moved, number);
        let entry = GroupFamily { number, help, push_seconds: family.push_seconds };
        to.groups[moved].families.insert_near(entry, near);
        let local = &mut self.families[family.number];
        local.remove_holder(set);
        local.helps.release(family.help);
        if local.holders == 0 {
            self.remove_family(family.number);
        }
        bytes
    }

    fn move_lines(
        &mut self,
        group: Number,
        family: Number,
        to: &mut Self,
        moved: Number,
        there: Number,
    ) -> usize {
        let text = &self.families[family].text;
        let (lines, exact) = (text.lines(group), text.exact(group));
        let lines = match (&lines, &exact) {
            (GroupLines::Copied(lines), None) => NewLines::Run(lines),
            (GroupLines::Copied(lines), Some(exact)) => NewLines::Exact(lines, exact),
            (GroupLines::Segments(segments), _) => NewLines::Segments(segments.clone()),
        };
        let bytes = to.replace_lines(moved, there, lines);
        self.replace_lines(group, family, NewLines::Run(&[]));
        // The other shard has them now.
        self.replaced.clear();
        bytes
    }
}
