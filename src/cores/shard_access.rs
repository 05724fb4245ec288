//! Exclusive access to the shard that has a group, and moves of groups between the shards of a core.
//!
//! To prevent deadlocks, a side shard is locked before the main shard. The exception is a new side shard: it is locked under the main
//! shard's lock, and nobody else can hold its lock yet.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use async_lock::MutexGuardArc;

use super::shard_task::ShardTask;
use super::slices::in_slices;
use crate::runtime::spawn;
use crate::shard::Shard;
use crate::shard::key::GroupingKey;
use crate::shard::push::Push;
use crate::shard::sides::{CoreShards, SideShard};

/// Exclusive access to a shard. A side shard is removed when its guard is dropped and it has no group.
#[derive(Debug)]
pub(super) struct ShardGuard {
    shard: MutexGuardArc<Shard>,
    /// The side shard, if it is one, and the shards of its core.
    side: Option<(Arc<CoreShards>, Arc<SideShard>)>,
}

impl Deref for ShardGuard {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for ShardGuard {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for ShardGuard {
    fn drop(&mut self) {
        let Some((shards, side)) = &self.side else { return };
        if self.shard.is_empty() {
            shards.remove_side(side);
        } else {
            side.set_complete();
        }
    }
}

/// Keeps groups from returning to the main shard as long as it exists. A task that reads the main shard, and then the side shards that
/// existed at that moment, finds each group exactly once.
pub(super) struct Reading {
    task: Rc<ShardTask>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.readings.set(self.task.readings.get() - 1);
        self.task.reading_ended.notify(usize::MAX);
    }
}

impl ShardTask {
    pub(super) fn reading(self: &Rc<Self>) -> Reading {
        self.readings.set(self.readings.get() + 1);
        Reading { task: self.clone() }
    }

    /// The main shard, if it is free and this group has no side shard.
    pub(super) fn try_main_of(&self, key: &GroupingKey) -> Option<ShardGuard> {
        self.try_main().filter(|_| self.shards.side_of(key).is_none())
    }

    /// The main shard, if it is free.
    pub(super) fn try_main(&self) -> Option<ShardGuard> {
        Some(ShardGuard { shard: self.shards.main.try_lock_arc()?, side: None })
    }

    /// Locks the main shard.
    pub(super) async fn lock_main(&self) -> ShardGuard {
        ShardGuard { shard: self.shards.main.lock_arc().await, side: None }
    }

    /// Locks the shard that has a group, or would have it if it is not very large.
    pub(super) async fn lock_shard_of(&self, key: &GroupingKey) -> ShardGuard {
        loop {
            let main = self.lock_main().await;
            let Some(side) = self.shards.side_of(key) else { return main };
            drop(main);
            if let Some(side) = self.lock_side(side).await {
                return side;
            }
        }
    }

    /// The same for a push. If its group is very large, or becomes so, it gets a side shard first.
    pub(super) async fn lock_shard_for(&self, push: &Push) -> ShardGuard {
        loop {
            let mut main = self.lock_main().await;
            if let Some(side) = self.shards.side_of(&push.key) {
                drop(main);
                match self.lock_side(side).await {
                    Some(side) => return side,
                    None => continue,
                }
            }
            if !main.needs_side(push) {
                return main;
            }
            let Some((side, shard)) = self.shards.add_side(&main, &push.key) else { return main };
            let mut guard = ShardGuard { shard, side: Some((self.shards.clone(), side)) };
            for key in [Some(push.key.clone()), push.key.empty_instance_variant()].into_iter().flatten() {
                in_slices(async |pace| main.move_group(&key, &mut guard, pace).await).await;
            }
            if let Some((_, side)) = guard.side.as_ref().filter(|_| !guard.is_empty()) {
                side.set_complete();
            }
            return guard;
        }
    }

    /// Locks a side shard. `None` if it was removed in the meantime.
    pub(super) async fn lock_side(&self, side: Arc<SideShard>) -> Option<ShardGuard> {
        let shard = side.shard.lock_arc().await;
        let is_current = self.shards.has(&side);
        is_current.then(|| ShardGuard { shard, side: Some((self.shards.clone(), side)) })
    }

    /// After a command: if the group of a side shard is small now, it returns to the main shard in a task.
    pub(super) fn return_if_small(self: &Rc<Self>, key: &GroupingKey) {
        if let Some(side) = self.shards.side_of(key) {
            spawn(self.clone().return_to_main(side));
        }
    }

    async fn return_to_main(self: Rc<Self>, side: Arc<SideShard>) {
        loop {
            let Some(mut guard) = self.lock_side(side.clone()).await else { return };
            let Some(key) = guard.small_group() else { return };
            let ended = self.reading_ended.listen();
            let mut main = self.lock_main().await;
            if self.readings.get() == 0 {
                in_slices(async |pace| guard.move_group(&key, &mut main, pace).await).await;
                return;
            }
            drop((main, guard));
            ended.await;
        }
    }
}
