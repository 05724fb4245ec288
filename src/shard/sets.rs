//! The sets of grouping-label names that the groups of a core have, with their numbers at the registry.

use std::sync::Arc;

use super::registry::{Registry, SetId};
use super::tables::Map;

/// The sets of a core. The core holds the number of a set at the registry while one of its groups has the set.
#[derive(Debug, Default)]
pub(super) struct LocalSets {
    ids: Map<Arc<str>, SetId>,
    sets: Map<SetId, LocalSet>,
    /// The set that was asked for last and had no group then. It is released when another one is asked for, unless a group has it.
    candidate: Option<SetId>,
}

#[derive(Debug)]
struct LocalSet {
    names: Arc<str>,
    groups: u32,
}

impl LocalSets {
    /// The number of a set, given as [`super::key::GroupingKey::names`]. It is valid until the next call, or longer if a group
    /// with it is counted before.
    pub fn id(&mut self, names: &str, registry: &Registry) -> SetId {
        if let Some(id) = self.ids.get(names) {
            return *id;
        }
        if let Some(candidate) = self.candidate.take() {
            self.release_if_unused(candidate, registry);
        }
        let (id, names) = registry.hold_set(names);
        self.ids.insert(names.clone(), id);
        self.sets.insert(id, LocalSet { names, groups: 0 });
        self.candidate = Some(id);
        id
    }

    /// Counts a group with this set.
    pub fn add_group(&mut self, id: SetId) {
        if let Some(set) = self.sets.get_mut(&id) {
            set.groups += 1;
        }
    }

    /// Counts a group with this set as removed.
    pub fn remove_group(&mut self, id: SetId, registry: &Registry) {
        if let Some(set) = self.sets.get_mut(&id) {
            set.groups -= 1;
        }
        self.release_if_unused(id, registry);
    }

    fn release_if_unused(&mut self, id: SetId, registry: &Registry) {
        if self.sets.get(&id).is_none_or(|set| set.groups > 0) {
            return;
        }
        if let Some(set) = self.sets.remove(&id) {
            self.ids.remove(&set.names);
            registry.release_set(id);
        }
    }
}
