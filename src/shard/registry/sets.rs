//! The sets of grouping-label names in use, by number.

use std::sync::Arc;

use super::super::slab::Slab;
use super::super::tables::Map;
use super::SetId;

/// All sets with their uses. A number is free again when nothing uses its set.
#[derive(Debug, Default)]
pub(super) struct Sets {
    ids: Map<Arc<str>, SetId>,
    sets: Slab<Set>,
}

#[derive(Debug)]
struct Set {
    names: Arc<str>,
    /// The number of cores with groups that have it, and of families in which it has series, is announced, or is retired.
    uses: u32,
}

impl Sets {
    /// Counts a use of a set, given as [`super::super::key::GroupingKey::names`].
    pub fn hold_named(&mut self, names: &str) -> (SetId, Arc<str>) {
        if let Some(id) = self.ids.get(names).copied() {
            self.hold(id);
            return (id, self.sets[id].names.clone());
        }
        let names: Arc<str> = names.into();
        let id = self.sets.insert(Set { names: names.clone(), uses: 1 });
        self.ids.insert(names.clone(), id);
        (id, names)
    }

    /// Counts a use of a set that is in use.
    pub fn hold(&mut self, id: SetId) {
        self.sets[id].uses += 1;
    }

    /// Ends a use of a set.
    pub fn release(&mut self, id: SetId) {
        let set = &mut self.sets[id];
        set.uses -= 1;
        if set.uses == 0
            && let Some(set) = self.sets.remove(id)
        {
            self.ids.remove(&set.names);
        }
    }

    pub fn names(&self, id: SetId) -> &Arc<str> {
        &self.sets[id].names
    }

    #[cfg(any(test, feature = "reference"))]
    pub fn len(&self) -> usize {
        self.sets.len()
    }
}
