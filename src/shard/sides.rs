//! The shards of one core: the main one, and a *side shard* for each very large group.
//!
//! A command to a very large group takes long, and keeps its shard to itself until it is complete. In a side shard, it keeps no other
//! group waiting. To the registry, a side shard is one more core: whatever is true between the shards of two cores, such as the exact
//! check against other groups, is true between the shards of one.
//!
//! * A group is in one shard at a time. It gets a side shard, or returns to the main one, while no command is half applied in either.
//! * Both groups whose push times would be the same series share a side shard, so it also finds that only one of them can exist.
//! * A side shard is added only while the main shard is locked. So who has locked the main shard and finds no side shard for a group
//!   knows that the group is in the main shard, or nowhere.
//! * The shards of a core share what they have retired.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_lock::{Mutex as AsyncMutex, MutexGuardArc};

use super::Shard;
use super::key::GroupingKey;
use super::push::Push;
use super::registry::Core;

/// A group with more families has a side shard. Commands on smaller groups take a few milliseconds in all.
pub(super) const MAIN_FAMILIES_MAX: usize = 1024;
/// A group with more bytes has a side shard.
const MAIN_BYTES_MAX: u64 = 4 << 20;
/// A group returns to the main shard when it has at most one in so many families and bytes, so that it does not move back and forth.
const RETURN_FACTOR: usize = 4;

/// The shards of one core.
#[derive(Debug)]
pub struct CoreShards {
    /// The shard of all groups that are not very large.
    pub main: Arc<AsyncMutex<Shard>>,
    sides: Mutex<Sides>,
    /// The number of side shards, to be read without the lock.
    sides_len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Sides {
    by_key: BTreeMap<Arc<str>, Arc<SideShard>>,
    by_number: BTreeMap<Core, Arc<SideShard>>,
}

/// A shard with one very large group.
#[derive(Debug)]
pub struct SideShard {
    /// Its number at the registry. Later side shards have higher ones.
    pub number: Core,
    /// See [`GroupingKey::without_empty_instance`].
    pub key: Arc<str>,
    /// No command has ended since the shard was added without a group, so it has nothing to show.
    is_new: AtomicBool,
    /// The shard. It is empty only before its group's first push is applied, and after the group was deleted or moved.
    pub shard: Arc<AsyncMutex<Shard>>,
}

impl SideShard {
    /// Whether the group does not exist yet, because its first push is still being applied.
    pub fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// The shard has its group now.
    pub fn set_complete(&self) {
        self.is_new.store(false, Ordering::Release);
    }
}

impl CoreShards {
    /// The shards of a core that has only a main shard.
    pub fn new(main: Shard) -> Self {
        Self {
            main: Arc::new(AsyncMutex::new(main)),
            sides: Mutex::default(),
            sides_len: AtomicUsize::new(0),
        }
    }

    /// The side shard of a group, or of the one with the same push times.
    #[inline]
    pub fn side_of(&self, key: &GroupingKey) -> Option<Arc<SideShard>> {
        if self.sides_len.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lock().by_key.get(&key.without_empty_instance()).cloned()
    }

    /// All side shards, in the order of their numbers.
    pub fn sides(&self) -> Vec<Arc<SideShard>> {
        self.lock().by_number.values().cloned().collect()
    }

    /// The first side shard with this number or a higher one.
    pub fn side_from(&self, number: Core) -> Option<Arc<SideShard>> {
        if self.sides_len.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lock().by_number.range(number..).next().map(|(_, side)| side.clone())
    }

    /// Whether a side shard still belongs to its group.
    pub fn has(&self, side: &SideShard) -> bool {
        self.lock().by_number.contains_key(&side.number)
    }

    /// Adds an empty side shard for a group that has none, and locks it before anybody else can. `main` is the locked main shard. `None`
    /// if there cannot be more side shards: then the group stays in the main shard.
    pub fn add_side(
        &self,
        main: &Shard,
        key: &GroupingKey,
    ) -> Option<(Arc<SideShard>, MutexGuardArc<Shard>)> {
        let shard = main.new_side()?;
        let number = shard.core;
        let shard = Arc::new(AsyncMutex::new(shard));
        let guard = shard.try_lock_arc()?;
        let (key, is_new) = (key.without_empty_instance(), AtomicBool::new(true));
        let side = Arc::new(SideShard { number, key, is_new, shard });
        let mut sides = self.lock();
        sides.by_key.insert(side.key.clone(), side.clone());
        sides.by_number.insert(number, side.clone());
        self.sides_len.store(sides.by_number.len(), Ordering::Release);
        Some((side, guard))
    }

    /// Removes a side shard, which is locked and has no group.
    pub fn remove_side(&self, side: &SideShard) {
        let mut sides = self.lock();
        if sides.by_number.remove(&side.number).is_some() {
            sides.by_key.remove(&side.key);
        }
        self.sides_len.store(sides.by_number.len(), Ordering::Release);
    }

    /// Locks the shard that has a group, or would have it. For threads that may wait.
    pub fn lock_shard_of(&self, key: &GroupingKey) -> MutexGuardArc<Shard> {
        loop {
            let main = self.main.lock_arc_blocking();
            let Some(side) = self.side_of(key) else { return main };
            drop(main);
            let shard = side.shard.lock_arc_blocking();
            if self.has(&side) {
                return shard;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sides> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// An empty side shard of the same core. `None` if there cannot be more.
    pub fn new_side(&self) -> Option<Self> {
        let mut side = Self::new(self.registry.side_shard()?, self.registry.clone(), self.persistence);
        side.retired_series = self.retired_series.clone();
        Some(side)
    }

    /// Whether the group of a push needs a side shard, if this is the main shard.
    pub fn needs_side(&self, push: &Push) -> bool {
        push.families_len() > MAIN_FAMILIES_MAX
            || push.rendered_bytes() as u64 > MAIN_BYTES_MAX
            || ((self.families_max > MAIN_FAMILIES_MAX || self.bytes_max > MAIN_BYTES_MAX)
                && self
                    .size_of(&push.key)
                    .is_some_and(|(families, bytes)| families > MAIN_FAMILIES_MAX || bytes > MAIN_BYTES_MAX))
    }

    /// Whether a stored group needs a side shard.
    pub fn load_needs_side(families: usize, bytes: usize) -> bool {
        families > MAIN_FAMILIES_MAX || bytes as u64 > MAIN_BYTES_MAX
    }

    /// The group of this side shard, if it is small enough for the main shard.
    pub fn small_group(&self) -> Option<GroupingKey> {
        let (_, group) = self.groups.from(0).next()?;
        let is_small = group.families.len() <= MAIN_FAMILIES_MAX / RETURN_FACTOR
            && group.bytes_bound <= MAIN_BYTES_MAX / RETURN_FACTOR as u64;
        is_small.then(|| GroupingKey::from_text(group.key.clone()))
    }

    /// The number of the core, or of the side shard.
    #[cfg(any(test, feature = "reference"))]
    pub(crate) fn number(&self) -> Core {
        self.core
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.groups.len() == 0
    }

    /// The number of families and an upper bound of the bytes of a group.
    fn size_of(&self, key: &GroupingKey) -> Option<(usize, u64)> {
        let group = &self.groups[self.groups.number_of(key.text())?];
        Some((group.families.len(), group.bytes_bound))
    }
}
