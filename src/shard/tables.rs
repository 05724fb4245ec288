//! The tables of a shard: groups by number, families by number, and what they hold of each other.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::exposition::model::MetricType;

use super::list::Refusal;
use super::registry::{SetId, SharedFamily};
use super::segments::FamilyText;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A place in a [`Slab`]; small and dense, used again after removal.
pub(super) type Number = u32;

/// Items under dense numbers.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<Number>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, item: T) -> Number {
        match self.free.pop() {
            Some(number) => {
                self.items[number as usize] = Some(item);
                number
            }
            None => {
                self.items.push(Some(item));
                self.items.len() as Number - 1
            }
        }
    }

    pub fn remove(&mut self, number: Number) -> Option<T> {
        let item = self.items[number as usize].take();
        if item.is_some() {
            self.free.push(number);
        }
        item
    }

    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    pub fn get(&self, number: Number) -> Option<&T> {
        self.items.get(number as usize)?.as_ref()
    }

    /// The items from a number on, with their numbers.
    pub fn from(&self, start: Number) -> impl Iterator<Item = (Number, &T)> {
        let items = self.items.get(start as usize..).unwrap_or_default();
        items.iter().zip(start..).filter_map(|(item, number)| Some((number, item.as_ref()?)))
    }
}

impl<T> std::ops::Index<Number> for Slab<T> {
    type Output = T;

    fn index(&self, number: Number) -> &T {
        self.items[number as usize].as_ref().expect("numbers are used only while their item lives")
    }
}

impl<T> std::ops::IndexMut<Number> for Slab<T> {
    fn index_mut(&mut self, number: Number) -> &mut T {
        self.items[number as usize].as_mut().expect("numbers are used only while their item lives")
    }
}

/// One group: what the pushes to one grouping key left behind.
#[derive(Debug)]
pub(super) struct Group {
    /// The canonical text of the grouping key.
    pub key: Arc<str>,
    /// The set of its label names.
    pub set: SetId,
    /// Unix seconds of the last successful push; 0 when there was none.
    pub push_seconds: f64,
    /// Unix seconds of the last refused push; 0 when there was none.
    pub failure_seconds: f64,
    /// Unix seconds of its first push, successful or not.
    pub created_seconds: f64,
    /// The last refused push.
    pub refusal: Option<Arc<Refusal>>,
    /// What its lines, help texts and protobuf weigh at most; counted anew only when it matters.
    pub bytes_bound: u64,
    /// The families it holds, by number, ascending.
    pub held: Vec<GroupFamily>,
}

/// A group's hold on a family. There are many of them: it has to be small.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupFamily {
    /// The family's number on this core.
    pub family: Number,
    /// The help text's place in the family's table, or [`NO_HELP`].
    pub help: u32,
    /// Unix seconds of the push that brought it.
    pub push_seconds: f64,
}

/// The [`GroupFamily::help`] of a family that was pushed without HELP.
pub(super) const NO_HELP: u32 = u32::MAX;

/// A family as this core's groups hold it.
#[derive(Debug)]
pub(super) struct LocalFamily {
    pub shared: Arc<SharedFamily>,
    pub kind: MetricType,
    /// How many groups hold it.
    pub holders: u32,
    /// How many groups of each set of label names hold it.
    pub sets: SmallVec<[(SetId, u32); 2]>,
    /// Help texts with the number of groups that have them; a place with 0 is free.
    pub helps: SmallVec<[(Arc<str>, u32); 1]>,
    pub text: Arc<FamilyText>,
}

impl LocalFamily {
    pub fn new(shared: Arc<SharedFamily>, kind: MetricType) -> Self {
        Self { shared, kind, holders: 0, sets: SmallVec::new(), helps: SmallVec::new(), text: Arc::default() }
    }

    pub fn groups_of_set(&self, set: SetId) -> u32 {
        self.sets.iter().find(|(known, _)| *known == set).map_or(0, |(_, count)| *count)
    }

    pub fn help(&self, place: u32) -> Option<&Arc<str>> {
        self.helps.get(place as usize).map(|(help, _)| help)
    }

    /// Where a help text stands, if a group has it.
    pub fn find_help(&self, help: &str) -> Option<u32> {
        self.helps.iter().position(|(known, count)| *count > 0 && **known == *help).map(|at| at as u32)
    }

    pub fn groups_of_help(&self, place: u32) -> u32 {
        self.helps.get(place as usize).map_or(0, |(_, count)| *count)
    }

    pub fn take_help(&mut self, help: Option<&str>) -> u32 {
        let Some(help) = help else { return NO_HELP };
        if let Some(place) = self.find_help(help) {
            self.take_help_at(place);
            return place;
        }
        let free = self.helps.iter().position(|(_, count)| *count == 0);
        match free {
            Some(place) => {
                self.helps[place] = (help.into(), 1);
                place as u32
            }
            None => {
                self.helps.push((help.into(), 1));
                self.helps.len() as u32 - 1
            }
        }
    }

    /// Takes the help text of a place that a group has, or none.
    pub fn take_help_at(&mut self, place: u32) {
        if let Some((_, count)) = self.helps.get_mut(place as usize) {
            *count += 1;
        }
    }

    pub fn drop_help(&mut self, place: u32) {
        if let Some((_, count)) = self.helps.get_mut(place as usize) {
            *count -= 1;
        }
    }

    pub fn take(&mut self, set: SetId) {
        self.holders += 1;
        match self.sets.iter_mut().find(|(known, _)| *known == set) {
            Some((_, count)) => *count += 1,
            None => self.sets.push((set, 1)),
        }
    }

    pub fn give_up(&mut self, set: SetId) {
        self.holders -= 1;
        if let Some(at) = self.sets.iter().position(|(known, _)| *known == set) {
            self.sets[at].1 -= 1;
            if self.sets[at].1 == 0 {
                self.sets.remove(at);
            }
        }
    }
}
