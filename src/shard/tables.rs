//! The tables of a shard: groups and families by number, and which group has which families.

use std::collections::HashMap;
use std::sync::Arc;

use crate::exposition::model::MetricType;

use super::helps::LocalHelps;
use super::list::FailedPush;
use super::registry::{SetId, SharedFamily};
use super::segments::FamilyText;
use super::small_map::SmallMap;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// An index into a [`Slab`]. Numbers are dense, and reused after a removal.
pub(super) type Number = u32;

/// Items by dense numbers.
///
/// The `slab` crate numbers items with `usize`, cannot iterate from a number on, and moves all items when it grows.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// All but the last one have [`SLAB_ITEMS`] items.
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Number>,
    items: Number,
}

/// The number of items that stay together in memory.
const SLAB_ITEMS: Number = 512;

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), items: 0 }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, item: T) -> Number {
        if let Some(number) = self.free.pop() {
            *self.slot(number) = Some(item);
            return number;
        }
        let number = self.items;
        self.items += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < SLAB_ITEMS as usize => chunk.push(Some(item)),
            _ => self.chunks.push(vec![Some(item)]),
        }
        number
    }

    pub fn remove(&mut self, number: Number) -> Option<T> {
        let item = self.slot(number).take();
        if item.is_some() {
            self.free.push(number);
        }
        item
    }

    fn slot(&mut self, number: Number) -> &mut Option<T> {
        &mut self.chunks[(number / SLAB_ITEMS) as usize][(number % SLAB_ITEMS) as usize]
    }

    pub fn len(&self) -> usize {
        self.items as usize - self.free.len()
    }

    pub fn get(&self, number: Number) -> Option<&T> {
        let chunk = self.chunks.get((number / SLAB_ITEMS) as usize)?;
        chunk.get((number % SLAB_ITEMS) as usize)?.as_ref()
    }

    /// The items with this number and higher ones, with their numbers.
    pub fn from(&self, start: Number) -> impl Iterator<Item = (Number, &T)> {
        let mut skipped = (start % SLAB_ITEMS) as usize;
        let chunks = self.chunks.get((start / SLAB_ITEMS) as usize..).unwrap_or_default();
        let items =
            chunks.iter().flat_map(move |chunk| &chunk[std::mem::take(&mut skipped).min(chunk.len())..]);
        items.zip(start..).filter_map(|(item, number)| Some((number, item.as_ref()?)))
    }
}

impl<T> std::ops::Index<Number> for Slab<T> {
    type Output = T;

    fn index(&self, number: Number) -> &T {
        self.get(number).expect("a number is used only while its item exists")
    }
}

impl<T> std::ops::IndexMut<Number> for Slab<T> {
    fn index_mut(&mut self, number: Number) -> &mut T {
        self.slot(number).as_mut().expect("a number is used only while its item exists")
    }
}

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
    /// Its families, sorted by number.
    pub families: Vec<GroupFamily>,
}

/// A family of a group. There is one for each family of each group, so it has to be small.
#[derive(Debug, Clone, Copy)]
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
