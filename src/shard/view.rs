//! Reading a shard: its families for scrapes, its groups for the API and the web page, and one group for a store.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::exposition::model::MetricType;

use super::Shard;
use super::group_families::GroupFamilies;
use super::pace::{LOOK, Pace, at_once};
use super::registry::SharedFamily;
use super::segments::{FamilyText, GroupLines};
use super::slab::Number;
use super::tables::{Group, GroupFamily, LocalFamily, NO_SHAPE_ID, StoredBytes};
use super::text_edit::ChangedPart;

/// The cost of a group or a family beside its text, in bytes.
const GROUP_COST: usize = 64;
/// The cost of a segment that is shared, in bytes. A group with long lines is large.
const SHARED_COST: usize = 256;
/// A group with more families is large.
const FAMILIES_MAX: usize = 256;

/// A family of one core at one moment. Taking it copies no lines, and later pushes do not change it.
#[derive(Debug, Clone)]
pub struct FamilySnapshot {
    /// The name and HELP.
    pub shared: Arc<SharedFamily>,
    /// The type of the lines in `text`.
    pub kind: MetricType,
    /// The lines of all groups.
    pub text: Arc<FamilyText>,
}

/// A copy of a group.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// The grouping key's text, see [`super::key::GroupingKey::text`].
    pub key: Arc<str>,
    /// Unix seconds of the last successful push, 0 if there was none.
    pub push_seconds: f64,
    /// Unix seconds of the last failed push, 0 if there was none.
    pub failure_seconds: f64,
    /// Unix seconds of the first push, successful or not.
    pub created_seconds: f64,
    /// Its families, without both push times.
    pub families: Vec<FamilyView>,
}

/// A copy of a family of a group.
#[derive(Debug, Clone)]
pub struct FamilyView {
    /// The name and the HELP that scrapes show.
    pub shared: Arc<SharedFamily>,
    /// The type.
    pub kind: MetricType,
    /// The HELP that this group pushed.
    pub help: Option<Arc<str>>,
    /// Unix seconds of the push that last replaced it.
    pub push_seconds: f64,
    /// The rendered lines.
    pub text: GroupLines,
    /// Its protobuf, if the lines cannot reproduce it.
    pub exact: Option<Arc<[u8]>>,
}

/// Some groups of a shard.
#[derive(Debug, Default)]
pub struct GroupSlice {
    /// Whole groups.
    pub groups: Vec<GroupView>,
    /// The group after them, if it is too large to be copied as a whole.
    pub large: Option<LargeGroup>,
    /// The number of the next group; `None` at the end.
    pub next: Option<u32>,
}

/// A group whose families are copied in parts, see [`Shard::families_of`].
#[derive(Debug, Clone)]
pub struct LargeGroup {
    /// The group without its families.
    pub head: GroupView,
    /// The number of its families.
    pub families: usize,
}

/// A family of a large group.
#[derive(Debug, Clone)]
pub struct FamilyName {
    /// Its number on this core.
    pub number: u32,
    /// The name.
    pub shared: Arc<SharedFamily>,
}

impl FamilyView {
    /// The cost of copying it, in bytes. A shared segment costs a pointer.
    fn bytes(&self) -> usize {
        let text = match &self.text {
            GroupLines::Copied(text) => text.len(),
            GroupLines::Segments(segments) => SHARED_COST * segments.len(),
        };
        // The help is not copied here, but in the document.
        text + self.help.as_ref().map_or(0, |help| help.len())
    }
}

/// The times of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GroupTimes {
    /// Unix seconds of the last successful push, 0 if there was none.
    pub push_seconds: f64,
    /// Unix seconds of the last failed push, 0 if there was none.
    pub failure_seconds: f64,
    /// Unix seconds of the first push, successful or not.
    pub created_seconds: f64,
}

/// A group in place.
#[derive(Debug, Clone, Copy)]
pub struct GroupRef<'s> {
    shard: &'s Shard,
    number: Number,
    group: &'s Group,
}

/// A family of a group in place.
#[derive(Debug)]
pub struct FamilyRef<'s> {
    /// The number, by which the families of a group are sorted.
    pub number: u32,
    /// The name.
    pub name: &'s str,
    /// The type.
    pub kind: MetricType,
    /// The HELP that this group pushed.
    pub help: Option<&'s str>,
    /// Unix seconds of the push that last replaced it.
    pub push_seconds: f64,
    /// The rendered lines; several pieces if they are long.
    pub pieces: SmallVec<[Cow<'s, [u8]>; 1]>,
    /// Its protobuf, if the lines cannot reproduce it.
    pub exact: Option<&'s [u8]>,
}

impl<'s> GroupRef<'s> {
    /// The times of the group.
    pub fn times(&self) -> GroupTimes {
        let Group { push_seconds, failure_seconds, created_seconds, .. } = *self.group;
        GroupTimes { push_seconds, failure_seconds, created_seconds }
    }

    /// What the store was sent of the group.
    pub fn stored(&self) -> StoredBytes {
        self.group.stored
    }

    /// The shape of the group: the same for all groups of the process that have the same shape, or [`NO_SHAPE_ID`].
    pub fn shape_id(&self) -> u32 {
        self.shard.shapes.id_of(self.group.shape)
    }

    /// The numbers of all lines, in the order of the families, if they are pending and the group's record in the store differs in nothing
    /// but its numbers and times.
    pub fn numbers_since_record(&self) -> Option<impl ExactSizeIterator<Item = f64> + use<'s>> {
        let numbers = self.shard.numbers_of(self.number)?;
        let order = self.shard.shapes.line_order(self.group.shape);
        let is_same = self.group.stored.shape != NO_SHAPE_ID && self.group.stored.shape == self.shape_id();
        // The shard forgets the order while a round has the last numbers of a shape that was evicted.
        (is_same && order.len() == numbers.shape.numbers_len())
            .then(|| order.iter().map(move |index| numbers.get(*index)))
    }

    /// The number of families in a part of the group, without both push times.
    pub fn families_len(&self, part: ChangedPart) -> usize {
        match part {
            ChangedPart::All => self.group.families.len(),
            ChangedPart::LastPush | ChangedPart::Times => {
                self.group.families.iter().filter(|family| self.is_in(part, family)).count()
            }
        }
    }

    /// The family with this number, or else the one with the next higher number, in a part of the group.
    pub fn family_from(&self, number: u32, part: ChangedPart) -> Option<FamilyRef<'s>> {
        let family = self.group.families.from(number).find(|family| self.is_in(part, family))?;
        let local = &self.shard.families[family.number];
        let (pieces, exact) = local.text.lines_and_exact(self.number);
        let numbers = self.shard.numbers_of(self.number);
        let latest = numbers.and_then(|numbers| numbers.lines(family.number, &self.group.key));
        let pieces = match latest {
            Some(lines) => smallvec![Cow::Owned(lines)],
            None => pieces.map(Cow::Borrowed).collect(),
        };
        Some(FamilyRef {
            number: family.number,
            name: &local.shared.name,
            kind: local.kind,
            help: local.helps.get(family.help).map(|help| &**help),
            push_seconds: if numbers.is_some() { self.group.push_seconds } else { family.push_seconds },
            pieces,
            exact: exact.map(|exact| &**exact),
        })
    }

    fn is_in(&self, part: ChangedPart, family: &GroupFamily) -> bool {
        match part {
            ChangedPart::All => true,
            ChangedPart::LastPush => {
                family.push_seconds == self.group.push_seconds || self.shard.numbers_of(self.number).is_some()
            }
            ChangedPart::Times => false,
        }
    }
}

impl Shard {
    /// The group with this number, as [`super::Change::Put`] gives it.
    ///
    /// # Panics
    /// There is no such group.
    pub fn group(&self, number: u32) -> GroupRef<'_> {
        GroupRef { shard: self, number, group: &self.groups[number] }
    }

    /// Records what the store was sent of a group.
    ///
    /// # Panics
    /// There is no such group.
    pub fn set_stored(&mut self, number: u32, stored: StoredBytes) {
        self.groups[number].stored = stored;
    }

    /// The number of the group with this grouping key's text.
    pub fn group_number(&self, key: &str) -> Option<u32> {
        self.groups.number_of(key)
    }

    /// All families that have lines, sorted by name. Costs a pointer per family.
    pub fn snapshot(&self) -> Vec<FamilySnapshot> {
        at_once(self.snapshot_in_slices(&Pace::unlimited()))
    }

    /// The same in slices. The shard must not change in between.
    pub async fn snapshot_in_slices(&self, pace: &Pace) -> Vec<FamilySnapshot> {
        let mut snapshot = Vec::with_capacity(self.order.len());
        for number in self.order.values() {
            pace.spend(LOOK).await;
            let LocalFamily { shared, kind, text, .. } = &self.families[*number];
            if !text.is_empty() {
                snapshot.push(FamilySnapshot { shared: shared.clone(), kind: *kind, text: text.clone() });
            }
        }
        snapshot
    }

    /// Copies groups from a group number on until about `bytes_max` bytes are copied.
    pub fn copy_groups(&self, from: u32, bytes_max: usize) -> GroupSlice {
        let mut slice = GroupSlice::default();
        let mut bytes = 0;
        for (number, group) in self.groups.from(from) {
            if bytes >= bytes_max {
                slice.next = Some(number);
                break;
            }
            let mut view = GroupView {
                key: group.key.clone(),
                push_seconds: group.push_seconds,
                failure_seconds: group.failure_seconds,
                created_seconds: group.created_seconds,
                families: Vec::new(),
            };
            bytes += GROUP_COST + group.key.len();
            match self.copy_families(number, group, bytes_max, &mut bytes) {
                Some(families) => {
                    view.families = families;
                    slice.groups.push(view);
                }
                None => {
                    slice.large = Some(LargeGroup { head: view, families: group.families.len() });
                    slice.next = Some(number + 1);
                    break;
                }
            }
        }
        slice
    }

    /// All families of a group; `None` if they are many or long.
    fn copy_families(
        &self,
        number: Number,
        group: &Group,
        bytes_max: usize,
        bytes: &mut usize,
    ) -> Option<Vec<FamilyView>> {
        if group.families.len() > FAMILIES_MAX {
            return None;
        }
        let before = *bytes;
        let mut views = Vec::with_capacity(group.families.len());
        for family in group.families.iter() {
            let view = self.copy_family(number, &family);
            *bytes += view.bytes() + GROUP_COST;
            let is_long = matches!(view.text, GroupLines::Segments(_)) || *bytes - before > bytes_max;
            if is_long || view.exact.as_ref().is_some_and(|exact| exact.len() > bytes_max) {
                return None;
            }
            views.push(view);
        }
        Some(views)
    }

    fn copy_family(&self, group: Number, family: &GroupFamily) -> FamilyView {
        let (local, entry) = (&self.families[family.number], &self.groups[group]);
        let numbers = self.numbers_of(group);
        let latest = numbers.and_then(|numbers| numbers.lines(family.number, &entry.key));
        FamilyView {
            shared: local.shared.clone(),
            kind: local.kind,
            help: local.helps.get(family.help).cloned(),
            push_seconds: if numbers.is_some() { entry.push_seconds } else { family.push_seconds },
            exact: local.text.exact(group),
            text: latest.map_or_else(|| local.text.lines(group), GroupLines::Copied),
        }
    }

    /// A group whose families are read in parts.
    pub(super) fn large_group(&self, number: Number) -> LargeGroup {
        let group = &self.groups[number];
        let head = GroupView {
            key: group.key.clone(),
            push_seconds: group.push_seconds,
            failure_seconds: group.failure_seconds,
            created_seconds: group.created_seconds,
            families: Vec::new(),
        };
        LargeGroup { head, families: group.families.len() }
    }

    /// Some families of a large group, from a family number on, in the order of their numbers. Empty at the end, or if the group no
    /// longer exists.
    pub fn families_of(&self, group: &LargeGroup, from: u32, count_max: usize) -> Vec<FamilyName> {
        let Some((_, families)) = self.families_of_group(group) else { return Vec::new() };
        let some = families.from(from).take(count_max);
        some.map(|family| FamilyName {
            number: family.number,
            shared: self.families[family.number].shared.clone(),
        })
        .collect()
    }

    /// Copies families of a large group until about `bytes_max` bytes are copied, but at least one. `None` stands for a family that
    /// the group no longer has.
    pub fn copy_families_of(
        &self,
        group: &LargeGroup,
        names: &[FamilyName],
        bytes_max: usize,
    ) -> Vec<Option<FamilyView>> {
        let families = self.families_of_group(group);
        let (mut views, mut bytes) = (Vec::with_capacity(names.len()), 0);
        for name in names {
            if bytes >= bytes_max {
                break;
            }
            let view = families.and_then(|(number, families)| {
                let family = families.get(self.number_of(name)?)?;
                Some(self.copy_family(number, &family))
            });
            bytes += view.as_ref().map_or(0, FamilyView::bytes) + GROUP_COST;
            views.push(view);
        }
        views
    }

    /// The number and the families of a group, unless it has been deleted.
    fn families_of_group(&self, group: &LargeGroup) -> Option<(Number, &GroupFamilies)> {
        let number = self.groups.number_of(&group.head.key)?;
        Some((number, &self.groups[number].families))
    }

    /// The number of a family on this shard, which differs from the one in `name` if its group has moved.
    fn number_of(&self, name: &FamilyName) -> Option<Number> {
        let is_same = |local: &LocalFamily| Arc::ptr_eq(&local.shared, &name.shared);
        if self.families.get(name.number).is_some_and(is_same) {
            return Some(name.number);
        }
        self.families_by_name.get(&name.shared.name).copied()
    }

    /// The keys of some groups from a group number on, for deleting all of them step by step: of one group, and of more until they have
    /// so many families, including push times. Also returns the number of the next group; `None` at the end.
    pub fn some_keys(&self, from: u32, families_max: usize) -> (Vec<Arc<str>>, Option<u32>) {
        let (mut keys, mut families) = (Vec::new(), 0);
        for (number, group) in self.groups.from(from) {
            families += group.families.len() + 2;
            if families > families_max && !keys.is_empty() {
                return (keys, Some(number));
            }
            keys.push(group.key.clone());
        }
        (keys, None)
    }
}
