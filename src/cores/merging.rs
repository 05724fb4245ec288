//! Merging pending numbers into the text of the main shard, in slices: when a scrape begins, and regularly.
//!
//! One task of a core merges. Snapshots that need a round wait for that task, which takes them in the moment between two rounds: later,
//! the next round would be half in the text.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::shard_access::ShardGuard;
use super::shard_task::{ShardTask, SnapshotReply, snapshot};
use super::slices::SLICE_BYTES;
use crate::runtime::{sleep, spawn, yield_now};

/// How often a core looks for pending numbers, and how many groups must have some to be merged without a scrape: so many, and such a part
/// of all groups. Then a scrape has little to merge. The fewer groups a round has, the more lines of others are copied for each of them.
const INTERVAL: Duration = Duration::from_secs(1);
const PENDING_GROUPS_MIN: usize = 1000;
const PENDING_PART_MIN: usize = 4;

/// What waits for pending numbers to be merged.
#[derive(Default)]
pub(super) struct Merging {
    /// The task runs.
    is_running: Cell<bool>,
    /// The round after which each snapshot can be taken.
    snapshots: RefCell<Vec<(u64, SnapshotReply)>>,
}

impl ShardTask {
    /// Takes a snapshot as soon as it contains everything that was pushed until now.
    pub(super) fn snapshot_when_merged(self: &Rc<Self>, main: ShardGuard, tx: SnapshotReply) {
        match main.next_merged() {
            None if self.is_quickly_shown(&main) => {
                let _ = tx.send((vec![main.snapshot()], main.counts()));
            }
            None => {
                spawn(snapshot(self.clone(), main, tx));
            }
            Some(round) => {
                self.merging.snapshots.borrow_mut().push((round, tx));
                drop(main);
                self.start_merging();
            }
        }
    }

    /// Merges pending numbers now and then, for as long as the core runs.
    pub(crate) async fn merge_regularly(self: Rc<Self>) {
        loop {
            sleep(INTERVAL).await;
            let main = self.lock_main().await;
            let (pending, groups) = (main.pending_groups(), main.counts().groups);
            drop(main);
            if pending >= PENDING_GROUPS_MIN.max(groups / PENDING_PART_MIN) {
                self.start_merging();
            }
        }
    }

    fn start_merging(self: &Rc<Self>) {
        if !self.merging.is_running.replace(true) {
            spawn(self.clone().merge());
        }
    }

    /// Merges at least one round, and all that snapshots wait for.
    async fn merge(self: Rc<Self>) {
        loop {
            let mut main = self.lock_main().await;
            if main.merge(SLICE_BYTES) {
                // Only this task begins a round, so that no group is half merged until all of them are taken.
                while let Some(tx) = self.ready_snapshot(&main) {
                    if self.is_quickly_shown(&main) {
                        let _ = tx.send((vec![main.snapshot()], main.counts()));
                    } else {
                        snapshot(self.clone(), main, tx).await;
                        main = self.lock_main().await;
                    }
                }
                if self.merging.snapshots.borrow().is_empty() {
                    self.merging.is_running.set(false);
                    return;
                }
            }
            drop(main);
            yield_now().await;
        }
    }

    fn ready_snapshot(&self, main: &ShardGuard) -> Option<SnapshotReply> {
        let mut snapshots = self.merging.snapshots.borrow_mut();
        let ready = snapshots.iter().position(|(round, _)| main.is_merged(*round))?;
        Some(snapshots.swap_remove(ready).1)
    }
}
