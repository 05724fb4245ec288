//! The tables of a shard: groups and families by number, and which group has which families.

use std::collections::HashMap;
use std::sync::Arc;

use crate::exposition::model::MetricType;

use super::group_families::GroupFamilies;
use super::helps::LocalHelps;
use super::list::FailedPush;
use super::pending::Place;
use super::registry::{SetId, SharedFamily};
use super::segments::FamilyText;
use super::slab::Number;
use super::small_map::SmallMap;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    /// The canonical text of the grouping key.
    pub key: Arc<str>,
    /// The set of the key's label names.
    pub set: SetId,
    /// Unix seconds of the last successful push, 0 if there was none.
    pub push_seconds: f64,
    /// Unix seconds of the last failed push, 0 if there was none.
    pub failure_seconds: f64,
    /// Unix seconds of the first push, successful or not.
    pub created_seconds: f64,
    /// The last failed push since the gateway started.
    pub last_failure: Option<Arc<FailedPush>>,
    /// An upper bound of the bytes of its lines, help texts and protobuf. Counted exactly only if it exceeds a limit.
    pub bytes_bound: u64,
    pub stored: StoredBytes,
    /// The number of its shape, or [`super::shapes::NO_SHAPE`]. A group with a shape has exactly the series, types and help texts of the
    /// shape, as text.
    pub shape: Number,
    /// Where its latest numbers are, if they are not in the text.
    pub place: Place,
    pub families: GroupFamilies,
}

/// What the store was sent of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBytes {
    /// The size of its last whole record; 0 if there was none.
    pub record: u32,
    /// The size of the patches since, except those of numbers.
    pub patches: u32,
    /// The shape whose lines the record has, see [`super::view::GroupRef::shape_id`]. [`NO_SHAPE_ID`] if there were patches since, except
    /// those of numbers.
    pub shape: u32,
}

/// The group has no shape, or its record is of none.
pub const NO_SHAPE_ID: u32 = u32::MAX;

impl Default for StoredBytes {
    fn default() -> Self {
        Self { record: 0, patches: 0, shape: NO_SHAPE_ID }
    }
}

/// A family of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GroupFamily {
    /// The family's number on this core.
    pub number: Number,
    /// The index of the help text in [`LocalFamily::helps`], or [`super::helps::NO_HELP`].
    pub help: u32,
    /// Unix seconds of the push that last replaced it.
    pub push_seconds: f64,
}

/// A family on this core.
#[derive(Debug)]
pub(super) struct LocalFamily {
    pub shared: Arc<SharedFamily>,
    pub kind: MetricType,
    /// The number of groups that have it.
    pub holders: u32,
    /// The number of groups that have it, by set of label names.
    sets: SmallMap<SetId, u32>,
    pub helps: LocalHelps,
    pub text: Arc<FamilyText>,
}

impl LocalFamily {
    pub fn new(shared: Arc<SharedFamily>, kind: MetricType) -> Self {
        let (sets, helps) = (SmallMap::default(), LocalHelps::default());
        Self { shared, kind, holders: 0, sets, helps, text: Arc::default() }
    }

    pub fn groups_of_set(&self, set: SetId) -> u32 {
        self.sets.get(set).copied().unwrap_or(0)
    }

    /// Counts a group that has the family.
    pub fn add_holder(&mut self, set: SetId) {
        self.holders += 1;
        match self.sets.get_mut(set) {
            Some(groups) => *groups += 1,
            None => self.sets.insert(set, 1),
        }
    }

    pub fn remove_holder(&mut self, set: SetId) {
        self.holders -= 1;
        if let Some(groups) = self.sets.get_mut(set) {
            *groups -= 1;
            if *groups == 0 {
                self.sets.remove(set);
            }
        }
    }
}
