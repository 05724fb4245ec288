//! A group moves from one shard to another of its core.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tables::Tables;
use super::{Core, Registry, SetId, lock};

/// The number of the first side shard. There are fewer cores.
const FIRST_SIDE_SHARD: Core = 1 << 16;
/// The highest number of a side shard.
const LAST_SIDE_SHARD: Core = Core::MAX >> 1;

/// One family of a group that moves.
#[derive(Debug)]
pub struct Transfer<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The shard that the group leaves.
    pub from: Core,
    /// The shard that it enters.
    pub to: Core,
    /// The group is the first one with the family there.
    pub is_claimed: bool,
    /// It was the last one with the family.
    pub is_released: bool,
    /// The set of its label names, if it is the first group with it in the family there.
    pub set_added: Option<SetId>,
    /// The same set, if it was the last group with it in the family.
    pub set_dropped: Option<SetId>,
    /// Its help text, if it is new to the family there.
    pub help_added: Option<Arc<str>>,
    /// Its help text, if it was the last group with it in the family.
    pub help_dropped: Option<Arc<str>>,
}

impl Registry {
    /// A number for a side shard that no shard had before, because what a shard has retired stays under its number. `None` if there
    /// are none left.
    pub(in super::super) fn side_shard(&self) -> Option<Core> {
        let before = self.side_shards.fetch_add(1, Ordering::Relaxed);
        let number = before.checked_add(FIRST_SIDE_SHARD).filter(|number| *number <= LAST_SIDE_SHARD);
        if number.is_none() {
            self.side_shards.store(before, Ordering::Relaxed);
        }
        number
    }

    /// Moves the hold on a family from one shard to another. Nothing is retired, because the name is held without a gap: no other
    /// shard can claim it before the new holder releases and retires it.
    pub(in super::super) fn transfer(&self, transfer: &Transfer<'_>) {
        lock(&self.tables).transfer(transfer);
    }
}

impl Tables {
    fn transfer(&mut self, transfer: &Transfer<'_>) {
        let Transfer { name, from, to, is_claimed, is_released, .. } = *transfer;
        if let Some(set) = transfer.set_added {
            self.add_set(name, set);
        }
        if let Some(set) = transfer.set_dropped {
            self.drop_set(name, set);
        }
        let Some(entry) = self.families.get_mut(name) else { return };
        if is_claimed {
            entry.cores.push(to);
        }
        if is_released {
            entry.cores.retain(|holder| *holder != from);
        }
        // Adds before it removes, so that the shown text stays the same.
        entry.change_help(transfer.help_added.as_ref(), transfer.help_dropped.as_ref());
    }
}
