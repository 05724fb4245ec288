//! The families of a group, sorted by number.
//!
//! Fleets have very many groups with the same families, each of which was pushed as a whole. Such groups share one list, and have one time
//! for all families. Other groups have a list of their own, with a time for each family. It is in chunks, so that adding a family to a
//! group with very many moves only a few.

use std::hash::BuildHasher;
use std::sync::Arc;

use smallvec::SmallVec;

use super::pace::{LOOK, Pace};
use super::slab::Number;
use super::tables::GroupFamily;

/// A chunk with more families is split.
const CHUNK_LEN_MAX: usize = 512;
/// A longer list is not shared, because changing a shared list copies it.
const SHARED_LEN_MAX: usize = 256;
/// How many lists a shard offers to groups, a power of two. As many as there are shapes, so that groups with shapes share lists.
const SHARED_LISTS: usize = 1024;

/// The families of a group.
#[derive(Debug, Clone)]
pub(super) enum GroupFamilies {
    /// The same list as other groups, and the push time of all families.
    Shared {
        list: Arc<[Member]>,
        push_seconds: f64,
    },
    Own(Box<Chunks>),
}

/// A family without its push time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Member {
    number: Number,
    help: u32,
}

/// Sorted, and none is empty.
type Chunks = SmallVec<[Vec<GroupFamily>; 1]>;

/// Lists that groups share. A list of a group with another hash takes the place of an older one, so their number is bounded; groups keep
/// the lists that they have.
#[derive(Debug, Default)]
pub(super) struct SharedLists {
    /// By hash. Empty until the first list is shared.
    lists: Vec<Option<Arc<[Member]>>>,
    hasher: foldhash::fast::RandomState,
}

/// Where the next family probably is: nearly all pushes list their families in the order in which their first push did, which gave
/// them their numbers.
#[derive(Debug, Default)]
pub(super) struct Near(usize);

/// Where a family is, or where it would be inserted.
enum Place {
    Found(usize, usize),
    Missing(usize, usize),
}

impl Default for GroupFamilies {
    fn default() -> Self {
        Self::Own(Box::default())
    }
}

impl GroupFamilies {
    /// No families, with memory for some.
    pub fn with_capacity(families: usize) -> Self {
        let mut chunks = Box::<Chunks>::default();
        if (1..=CHUNK_LEN_MAX).contains(&families) {
            chunks.push(Vec::with_capacity(families));
        }
        Self::Own(chunks)
    }

    /// Shares the list with other groups, if all families have the same time and are not too many.
    pub fn share(&mut self, lists: &mut SharedLists) {
        let Self::Own(chunks) = self else { return };
        let [families] = &chunks[..] else { return };
        let Some(GroupFamily { push_seconds, .. }) = families.first().copied() else { return };
        if families.len() <= SHARED_LEN_MAX
            && families.iter().all(|family| family.push_seconds == push_seconds)
        {
            *self = Self::Shared { list: lists.list(families), push_seconds };
        }
    }

    /// Sets the push time of the families of a shared list, which is about to be pushed as a whole. Pushing one after the other would give
    /// the group a list of its own for the time being.
    pub fn expect_push_of_all(&mut self, new: f64) {
        if let Self::Shared { push_seconds, .. } = self {
            *push_seconds = new;
        }
    }

    /// Drops the list in slices.
    pub async fn free(self, pace: &Pace) {
        let Self::Own(chunks) = self else { return };
        for chunk in *chunks {
            drop(chunk);
            pace.spend(LOOK).await;
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Shared { list, .. } => list.len(),
            Self::Own(chunks) => chunks.iter().map(Vec::len).sum(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = GroupFamily> {
        self.from(0)
    }

    /// Sets the push time of all families.
    pub fn set_push_seconds(&mut self, new: f64) {
        match self {
            Self::Shared { push_seconds, .. } => *push_seconds = new,
            Self::Own(chunks) => {
                chunks.iter_mut().flatten().for_each(|family| family.push_seconds = new);
            }
        }
    }

    /// The families with this number and higher ones.
    pub fn from(&self, start: Number) -> impl Iterator<Item = GroupFamily> {
        let (shared, seconds, chunks) = match self {
            Self::Shared { list, push_seconds } => (&**list, *push_seconds, &[][..]),
            Self::Own(chunks) => (&[][..], 0.0, &chunks[..]),
        };
        let (Place::Found(chunk, at) | Place::Missing(chunk, at)) = self.place(start);
        let shared = shared.get(at..).unwrap_or_default().iter().map(move |member| member.pushed_at(seconds));
        let rest = chunks.get(chunk + 1..).unwrap_or_default();
        let first = chunks.get(chunk).and_then(|chunk| chunk.get(at..)).unwrap_or_default();
        shared.chain(first.iter().copied()).chain(rest.iter().flatten().copied())
    }

    pub fn get(&self, number: Number) -> Option<GroupFamily> {
        self.get_near(number, &mut Near::default())
    }

    /// The same. Visiting families in their order is fast.
    #[inline]
    pub fn get_near(&self, number: Number, near: &mut Near) -> Option<GroupFamily> {
        match self.place_near(number, near) {
            Place::Found(chunk, at) => Some(self.at(chunk, at)),
            Place::Missing(..) => None,
        }
    }

    /// Adds a family, or replaces the one with its number.
    pub fn insert(&mut self, family: GroupFamily) {
        self.insert_near(family, &mut Near::default());
    }

    /// The same. Visiting families in their order is fast.
    #[inline]
    pub fn insert_near(&mut self, family: GroupFamily, near: &mut Near) {
        match self.place_near(family.number, near) {
            Place::Found(chunk, at) => {
                if self.at(chunk, at) != family {
                    self.own()[chunk][at] = family;
                }
            }
            Place::Missing(chunk, at) => insert_at(self.own(), chunk, at, family),
        }
    }

    pub fn remove(&mut self, number: Number) {
        if let Place::Found(chunk, at) = self.place(number) {
            let chunks = self.own();
            chunks[chunk].remove(at);
            if chunks[chunk].is_empty() {
                chunks.remove(chunk);
            }
        }
    }

    /// The list of this group only.
    fn own(&mut self) -> &mut Chunks {
        if let Self::Shared { list, push_seconds } = self {
            // With room for one more, because that is the usual change.
            let mut families = Vec::with_capacity(list.len() + 1);
            families.extend(list.iter().map(|member| member.pushed_at(*push_seconds)));
            *self = Self::Own(Box::new(SmallVec::from_buf([families])));
        }
        match self {
            Self::Own(chunks) => chunks,
            Self::Shared { .. } => unreachable!("the list is the group's own now"),
        }
    }

    fn at(&self, chunk: usize, at: usize) -> GroupFamily {
        match self {
            Self::Shared { list, push_seconds } => list[at].pushed_at(*push_seconds),
            Self::Own(chunks) => chunks[chunk][at],
        }
    }

    #[inline]
    fn place_near(&self, number: Number, near: &mut Near) -> Place {
        let next = match self {
            Self::Shared { list, .. } => list.get(near.0).map(|member| member.number),
            Self::Own(chunks) => chunks.first().and_then(|first| first.get(near.0)).map(|next| next.number),
        };
        let place = if next == Some(number) { Place::Found(0, near.0) } else { self.place(number) };
        if let Place::Found(_, at) = place {
            near.0 = at + 1;
        }
        place
    }

    fn place(&self, number: Number) -> Place {
        let (chunk, found) = match self {
            Self::Shared { list, .. } => (0, list.binary_search_by_key(&number, |member| member.number)),
            Self::Own(chunks) => {
                let starts_before =
                    |chunk: &Vec<GroupFamily>| chunk.first().is_some_and(|first| first.number <= number);
                let chunk = match chunks.len() {
                    0 | 1 => 0,
                    _ => chunks.partition_point(starts_before).saturating_sub(1),
                };
                let Some(families) = chunks.get(chunk) else { return Place::Missing(0, 0) };
                (chunk, families.binary_search_by_key(&number, |family| family.number))
            }
        };
        match found {
            Ok(at) => Place::Found(chunk, at),
            Err(at) => Place::Missing(chunk, at),
        }
    }
}

fn insert_at(chunks: &mut Chunks, chunk: usize, at: usize, family: GroupFamily) {
    let Some(families) = chunks.get_mut(chunk) else { return chunks.push(vec![family]) };
    if families.len() < CHUNK_LEN_MAX {
        families.insert(at, family);
    } else if at == CHUNK_LEN_MAX {
        // Families that are new to the core have rising numbers, so leave the full chunk as it is.
        chunks.insert(chunk + 1, vec![family]);
    } else {
        let mut rest = families.split_off(CHUNK_LEN_MAX / 2);
        match at.checked_sub(families.len()) {
            Some(at) => rest.insert(at, family),
            None => families.insert(at, family),
        }
        chunks.insert(chunk + 1, rest);
    }
}

impl Member {
    fn of(family: &GroupFamily) -> Self {
        Self { number: family.number, help: family.help }
    }

    fn pushed_at(self, push_seconds: f64) -> GroupFamily {
        GroupFamily { number: self.number, help: self.help, push_seconds }
    }
}

impl SharedLists {
    /// The list of these families.
    fn list(&mut self, families: &[GroupFamily]) -> Arc<[Member]> {
        let list: SmallVec<[Member; 32]> = families.iter().map(Member::of).collect();
        let place = self.hasher.hash_one(&list[..]) as usize % SHARED_LISTS;
        if self.lists.is_empty() {
            self.lists.resize(SHARED_LISTS, None);
        }
        let known = &mut self.lists[place];
        match known.as_ref().filter(|known| known[..] == list[..]) {
            Some(known) => known.clone(),
            None => known.insert(Arc::from(&list[..])).clone(),
        }
    }
}

impl FromIterator<GroupFamily> for GroupFamilies {
    fn from_iter<I: IntoIterator<Item = GroupFamily>>(families: I) -> Self {
        let families = families.into_iter();
        let mut new = Self::with_capacity(families.size_hint().0);
        families.for_each(|family| new.insert(family));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NUMBERS: Number = 4 * CHUNK_LEN_MAX as Number;

    /// A change of the families of a group.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// With this help text and time.
        Insert(Number, u32, f64),
        Remove(Number),
        SetTime(f64),
        Share,
    }

    fn step(numbers: std::ops::Range<Number>) -> impl Strategy<Value = Step> {
        let time = || (0..3_u8).prop_map(f64::from);
        prop_oneof![
            4 => (numbers.clone(), 0..3_u32, time()).prop_map(|(number, help, time)| Step::Insert(number, help, time)),
            2 => numbers.prop_map(Step::Remove),
            1 => time().prop_map(Step::SetTime),
            1 => Just(Step::Share),
        ]
    }

    type Reference = BTreeMap<Number, (u32, f64)>;

    fn apply(
        step: Step,
        families: &mut GroupFamilies,
        reference: &mut Reference,
        near: &mut Near,
        lists: &mut SharedLists,
    ) {
        match step {
            Step::Insert(number, help, push_seconds) => {
                families.insert_near(GroupFamily { number, help, push_seconds }, near);
                reference.insert(number, (help, push_seconds));
            }
            Step::Remove(number) => {
                families.remove(number);
                reference.remove(&number);
            }
            Step::SetTime(time) => {
                families.set_push_seconds(time);
                reference.values_mut().for_each(|(_, push_seconds)| *push_seconds = time);
            }
            Step::Share => families.share(lists),
        }
    }

    fn expected(reference: &Reference, start: Number) -> Vec<GroupFamily> {
        let family = |(number, (help, push_seconds)): (&Number, &(u32, f64))| GroupFamily {
            number: *number,
            help: *help,
            push_seconds: *push_seconds,
        };
        reference.range(start..).map(family).collect()
    }

    proptest! {
        #[test]
        fn the_families_of_a_group_behave_like_a_map(
            first in prop::collection::vec(0..NUMBERS, 0..2 * NUMBERS as usize),
            steps in prop::collection::vec(step(0..NUMBERS), 0..50),
            start in 0..NUMBERS,
        ) {
            let first = first.into_iter().map(|number| Step::Insert(number, 0, 0.0));
            let (mut families, mut reference) = (GroupFamilies::with_capacity(8), Reference::new());
            let (mut near, mut lists) = (Near::default(), SharedLists::default());
            for step in first.chain(steps) {
                apply(step, &mut families, &mut reference, &mut near, &mut lists);
            }
            prop_assert_eq!(families.len(), reference.len());
            for number in [start, start + 1] {
                prop_assert_eq!(families.get_near(number, &mut near), expected(&reference, number).first().copied().filter(|family| family.number == number));
            }
            prop_assert_eq!(families.from(start).collect::<Vec<_>>(), expected(&reference, start));
            prop_assert_eq!(families.iter().collect::<Vec<_>>(), expected(&reference, 0));
            if let GroupFamilies::Own(chunks) = &families {
                prop_assert!(chunks.iter().all(|chunk| (1..=CHUNK_LEN_MAX).contains(&chunk.len()) || families.len() == 0));
            }
        }

        #[test]
        fn groups_that_share_lists_do_not_change_each_other(
            steps in prop::collection::vec((0..4_usize, step(0..6)), 0..100),
        ) {
            let mut groups: [(GroupFamilies, Reference, Near); 4] = Default::default();
            let mut lists = SharedLists::default();
            for (group, step) in steps {
                let (families, reference, near) = &mut groups[group];
                apply(step, families, reference, near, &mut lists);
                for (families, reference, _) in &groups {
                    prop_assert_eq!(families.iter().collect::<Vec<_>>(), expected(reference, 0));
                }
            }
        }
    }

    #[test]
    fn equal_lists_with_one_time_are_shared() {
        let mut lists = SharedLists::default();
        let mut group = |families: &[(Number, u32)], times: [f64; 2]| {
            let pushed = |(at, (number, help)): (usize, &(Number, u32))| GroupFamily {
                number: *number,
                help: *help,
                push_seconds: times[at % 2],
            };
            let mut new: GroupFamilies = families.iter().enumerate().map(pushed).collect();
            new.share(&mut lists);
            match new {
                GroupFamilies::Shared { list, .. } => Some(list),
                GroupFamilies::Own(_) => None,
            }
        };
        let first = group(&[(1, 0), (2, 5)], [1.0, 1.0]).expect("one time");
        let second = group(&[(1, 0), (2, 5)], [2.0, 2.0]).expect("one time");
        assert!(Arc::ptr_eq(&first, &second));
        let other = group(&[(1, 0), (2, 6)], [2.0, 2.0]).expect("one time");
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(group(&[(1, 0), (2, 5)], [1.0, 2.0]).is_none(), "two times");
        let many: Vec<_> = (0..=SHARED_LEN_MAX as Number).map(|number| (number, 0)).collect();
        assert!(group(&many[1..], [1.0, 1.0]).is_some());
        assert!(group(&many, [1.0, 1.0]).is_none(), "too many");
    }
}
