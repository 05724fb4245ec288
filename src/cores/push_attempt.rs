//! From a push that reached its home core to the decision of the shard.
//!
//! The shard decides at once about nearly every push. A push that needs a name which another core has just released waits for the
//! scrapes and commits that still show it. A push to a family in which groups can hold the same series looks for duplicates on the other
//! cores first.

use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;

use super::command::ShardCommand;
use super::leases::Lease;
use super::shard_access::ShardGuard;
use super::shard_task::ShardTask;
use super::slices::{drop_in_slices, in_slices};
use crate::exposition::consistency::Inconsistency;
use crate::runtime::{now_seconds, spawn};
use crate::shard::outcome::Rejection;
use crate::shard::push::Push;
use crate::shard::registry::Epoch;
use crate::shard::{Decision, DuplicateCheck, Lookups, PushAttempt, SeriesLookup, Shard, TextEdit};
use crate::storage::completion::CommandReply;

impl ShardTask {
    /// Applies or rejects a push at once if the shard is free and can decide, otherwise in a task.
    pub(super) fn push(self: &Rc<Self>, push: Arc<Push>, reply: CommandReply) {
        let mut attempt = PushAttempt::default();
        let is_small =
            |shard: &ShardGuard| !shard.is_large(&push.key, push.families_len()) && !shard.is_long(&push);
        let shard = self.try_main_of(&push.key).filter(is_small);
        let decision = shard.map(|shard| Shard::decide(shard, &push, &mut attempt, now_seconds()));
        match decision {
            Some(Decision::Apply(edit)) => self.finish_push(edit, push, reply),
            Some(Decision::Reject(rejection)) => self.reject_push(rejection, push, reply),
            waiting => {
                spawn(self.clone().push_when_possible(push, attempt, waiting, reply));
            }
        }
    }

    /// Repeats the attempt until the push is applied or rejected.
    ///
    /// Every wait is short: collections and commits end, and leases are released.
    async fn push_when_possible(
        self: Rc<Self>,
        push: Arc<Push>,
        mut attempt: PushAttempt,
        mut decision: Option<Decision<TextEdit<ShardGuard>>>,
        reply: CommandReply,
    ) {
        let mut leases: Vec<Lease> = Vec::new();
        loop {
            match decision {
                // The leases may be released although the text is not complete: the edit holds the shard, and the next holder of a
                // lease needs the shard to look for duplicates.
                Some(Decision::Apply(edit)) => {
                    self.finish_push(edit, push, reply);
                    break;
                }
                Some(Decision::Reject(rejection)) => {
                    self.reject_push(rejection, push, reply);
                    break;
                }
                Some(Decision::WaitFor(epoch)) => self.wait_until_past(epoch).await,
                Some(Decision::NeedsLookup(families)) => {
                    // Released first, because leases are only ever acquired in the order of names.
                    leases.clear();
                    drop_in_slices(std::mem::take(&mut attempt.looked_up)).await;
                    leases = self.leases.acquire(&families).await;
                    match self.find_duplicate(&push, &families).await {
                        Ok(None) => attempt.looked_up = families,
                        Ok(Some(reason)) => {
                            drop_in_slices(families).await;
                            let shard = self.lock_shard_of(&push.key).await;
                            let now = now_seconds();
                            let fail = async |pace: &_| {
                                Shard::record_failure(shard, &push, &mut attempt, reason, now, pace).await
                            };
                            decision = Some(in_slices(fail).await);
                            continue;
                        }
                        // Without a reply, the client gets the response of a gateway that is shutting down.
                        Err(oneshot::Canceled) => return,
                    }
                }
                None => {}
            }
            decision = Some(self.decide(&push, &mut attempt).await);
        }
        drop(leases);
        drop_in_slices(attempt.looked_up).await;
    }

    /// Lets the shard decide about a push, in slices if it is large.
    async fn decide(&self, push: &Arc<Push>, attempt: &mut PushAttempt) -> Decision<TextEdit<ShardGuard>> {
        let shard = self.lock_shard_for(push).await;
        if shard.takes_turns(&push.key, push.families_len()) {
            drop(shard);
            // Before the shard, because the shard must not wait for another core.
            let _turn = self.leases.large_push().await;
            let shard = self.lock_shard_for(push).await;
            return Self::decide_in_slices(shard, push, attempt).await;
        }
        if shard.is_large(&push.key, push.families_len()) || shard.is_long(push) {
            return Self::decide_in_slices(shard, push, attempt).await;
        }
        Shard::decide(shard, push, attempt, now_seconds())
    }

    async fn decide_in_slices(
        shard: ShardGuard,
        push: &Arc<Push>,
        attempt: &mut PushAttempt,
    ) -> Decision<TextEdit<ShardGuard>> {
        in_slices(async |pace| Shard::decide_in_slices(shard, push, attempt, now_seconds(), pace).await).await
    }

    /// Looks for the push's series in the groups of all cores.
    ///
    /// # Errors
    /// Another core has ended, so the gateway is shutting down.
    async fn find_duplicate(
        self: &Rc<Self>,
        push: &Arc<Push>,
        families: &[Arc<str>],
    ) -> Result<Option<Inconsistency>, oneshot::Canceled> {
        let (registry, push) = (self.registry.clone(), push.clone());
        let mut lookups = in_slices(async |pace| Lookups::new(registry, push, families, pace).await).await;
        loop {
            let batch = in_slices(async |pace| lookups.next_batch(pace).await).await;
            let is_last = batch.is_empty();
            let found = if is_last { Ok(None) } else { self.find_in_batch(batch).await };
            if is_last || !matches!(found, Ok(None)) {
                in_slices(async |pace| lookups.free(pace).await).await;
                return found;
            }
        }
    }

    async fn find_in_batch(
        self: &Rc<Self>,
        batch: Vec<SeriesLookup>,
    ) -> Result<Option<Inconsistency>, oneshot::Canceled> {
        let mut by_core: Vec<Vec<SeriesLookup>> = vec![Vec::new(); self.mailboxes.cores()];
        for lookup in batch {
            by_core[lookup.key.home(self.mailboxes.cores())].push(lookup);
        }
        for (core, lookups) in by_core.into_iter().enumerate().filter(|(_, lookups)| !lookups.is_empty()) {
            let lookups: Arc<[SeriesLookup]> = lookups.into();
            loop {
                let check = if core == self.core {
                    self.find_duplicates(&lookups).await
                } else {
                    let (tx, rx) = oneshot::channel();
                    self.mailboxes.send(core, ShardCommand::FindDuplicates(lookups.clone(), tx));
                    rx.await?
                };
                match check {
                    DuplicateCheck::Free => break,
                    DuplicateCheck::Found(reason) => return Ok(Some(reason)),
                    DuplicateCheck::Retired(epoch) => self.wait_until_past(epoch).await,
                    DuplicateCheck::NotIndexed(run) => in_slices(async |pace| run.index(pace).await).await,
                }
            }
        }
        Ok(None)
    }

    /// Looks up series in groups of this core. Other commands of the same shards wait until a batch is looked up.
    pub(super) async fn find_duplicates(self: &Rc<Self>, lookups: &[SeriesLookup]) -> DuplicateCheck {
        let _reading = self.reading();
        let main = self.lock_main().await;
        let in_sides: Vec<_> =
            lookups.iter().filter_map(|lookup| Some((self.shards.side_of(&lookup.key)?, lookup))).collect();
        let mut check = in_slices(async |pace| main.find_duplicates(lookups, pace).await).await;
        drop(main);
        for (side, lookup) in in_sides {
            if !matches!(check, DuplicateCheck::Free) {
                break;
            }
            if let Some(side) = self.lock_side(side).await {
                let lookup = std::slice::from_ref(lookup);
                check = in_slices(async |pace| side.find_duplicates(lookup, pace).await).await;
            }
        }
        check
    }

    fn finish_push(self: &Rc<Self>, edit: TextEdit<ShardGuard>, push: Arc<Push>, reply: CommandReply) {
        let key = push.key.clone();
        drop(push);
        self.finish(edit, key, reply);
    }

    fn reject_push(self: &Rc<Self>, rejection: Rejection, push: Arc<Push>, reply: CommandReply) {
        let key = push.key.text().clone();
        self.return_if_small(&push.key);
        drop(push);
        self.reply_rejected(rejection, key, reply);
    }

    /// Waits until every collection and commit that began at or before `epoch` has ended.
    pub(super) async fn wait_until_past(&self, epoch: Epoch) {
        loop {
            let ended = self.registry.ended.listen();
            if self.registry.is_past(epoch) {
                return;
            }
            ended.await;
        }
    }
}
