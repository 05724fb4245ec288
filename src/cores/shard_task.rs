//! One core's shard and everything that is asked of it, by its own connections and by other cores.
//!
//! The shard stands behind an asynchronous lock that is held while a command's text is changed in slices: the core goes on
//! serving its connections between two slices, but nobody sees half a push. What cannot be done at once goes on in a
//! task of its own, so that a client who leaves does not leave a command half done.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_lock::{Mutex, MutexGuardArc};
use futures_channel::oneshot;
use futures_util::StreamExt;

use crate::shard::key::GroupingKey;
use crate::shard::list::{GroupQuery, Listed};
use crate::shard::outcome::{Inconsistency, Outcome, Rejection};
use crate::shard::push::Push;
use crate::shard::registry::{Epoch, Registry};
use crate::shard::{
    self, Applied, Counts, Decision, DuplicateCheck, FamilySnapshot, GroupView, PushAttempt, SeriesLookup,
    Shard, TextEdit,
};

use super::leases::{Lease, Leases};
use super::mailbox::{Inbox, Mailboxes, Place};
use crate::storage::outbox::Outbox;
use crate::storage::record_writer::RecordWriter;
use crate::storage::store::{Batch, GroupChange, Kept, NotKept, Store, Waits};

/// Text changed at one go; about a quarter of a millisecond.
const SLICE_BYTES: usize = 1 << 20;
/// Text of groups that is copied out at one go, for the API.
const PAGE_BYTES: usize = 64 * 1024;
/// Groups deleted at one go by a wipe.
const WIPE_KEYS: usize = 256;

/// What is asked of a core.
#[derive(Debug)]
pub enum Order {
    /// Applies a push. Who sends it keeps it until the answer, so that it is freed where it was made: threads that free each
    /// other's memory wait for each other in the allocator.
    Push(Arc<Push>, Place, oneshot::Sender<Result<Outcome, NotKept>>),
    /// Deletes a group.
    Delete(GroupingKey, Place, oneshot::Sender<Result<Outcome, NotKept>>),
    /// Deletes all groups.
    Wipe(oneshot::Sender<Result<(), NotKept>>),
    /// Answers commands of this core which the store has, or does not have.
    Kept(Batch, Result<(), NotKept>),
    /// Hands over what there is to scrape.
    Collect(oneshot::Sender<(Vec<FamilySnapshot>, Counts)>),
    /// Copies some groups out, from a place on.
    Groups(u32, oneshot::Sender<(Vec<GroupView>, Option<u32>)>),
    /// Looks through some groups, from a place on, for those that belong on a page.
    List(Arc<GroupQuery>, u32, oneshot::Sender<Listed>),
    /// Looks whether groups here hold these series.
    LookUp(Vec<SeriesLookup>, oneshot::Sender<DuplicateCheck>),
}

/// Who waits for a command: its place in the mailbox, given back with the answer.
#[derive(Debug)]
pub struct Reply {
    place: Place,
    answer: oneshot::Sender<Result<Outcome, NotKept>>,
}

impl Reply {
    /// Tells what became of the command; on whatever thread.
    pub fn send(self, outcome: Result<Outcome, NotKept>) {
        drop(self.place);
        // A client that left does not wait any more.
        let _ = self.answer.send(outcome);
    }
}

/// A core's shard with what it needs of the others.
pub struct Home {
    core: usize,
    shard: Arc<Mutex<Shard>>,
    registry: Arc<Registry>,
    leases: Arc<Leases>,
    mailboxes: Mailboxes,
    /// The way to where commands are kept before they are answered; `None`: there is no such place.
    outbox: Option<Rc<Outbox>>,
}

type ShardGuard = MutexGuardArc<Shard>;

impl Home {
    /// The home of a core's shard, which must be made with the same registry, and with a store if there is one.
    pub fn new(
        core: usize,
        shard: Arc<Mutex<Shard>>,
        registry: Arc<Registry>,
        leases: Arc<Leases>,
        mailboxes: Mailboxes,
        store: Option<Arc<Store>>,
    ) -> Rc<Self> {
        let outbox = store.map(|store| Outbox::new(core, store));
        Rc::new(Self { core, shard, registry, leases, mailboxes, outbox })
    }

    /// Does what other cores order, until nobody can order any more.
    pub async fn serve(self: Rc<Self>, mut inbox: Inbox) {
        while let Some(order) = inbox.next().await {
            self.obey(order);
        }
    }

    /// Does an order at once where that is possible, else in a task.
    pub fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Push(push, place, answer) => self.push(push, Reply { place, answer }),
            Order::Delete(key, place, answer) => {
                let home = self.clone();
                self.with_shard(move |shard| {
                    let edit = Shard::delete(shard, &key);
                    home.carry_out(edit, key, Reply { place, answer });
                });
            }
            Order::Wipe(answer) => {
                let outbox = self.outbox.clone();
                self.with_shard(move |shard| {
                    monoio::spawn(wipe(shard, outbox, answer));
                });
            }
            Order::Kept(batch, kept) => {
                if let Some(outbox) = &self.outbox {
                    outbox.answer(batch, kept);
                }
            }
            Order::Collect(answer) => self.with_shard(move |shard| {
                let _ = answer.send((shard.snapshot(), shard.counts()));
            }),
            Order::Groups(from, answer) => self.with_shard(move |shard| {
                let _ = answer.send(shard.copy_groups(from, PAGE_BYTES));
            }),
            Order::List(query, from, answer) => self.with_shard(move |shard| {
                let _ = answer.send(shard.list(&query, from));
            }),
            Order::LookUp(lookups, answer) => self.with_shard(move |mut shard| {
                let _ = answer.send(shard.find_duplicates(&lookups));
            }),
        }
    }

    /// Does something with the shard as soon as it is whole: now, if no command is half done.
    fn with_shard(&self, with: impl FnOnce(ShardGuard) + 'static) {
        match self.shard.try_lock_arc() {
            Some(shard) => with(shard),
            None => {
                let shard = self.shard.clone();
                monoio::spawn(async move { with(shard.lock_arc().await) });
            }
        }
    }

    fn push(self: &Rc<Self>, push: Arc<Push>, reply: Reply) {
        let mut attempt = PushAttempt::default();
        let shard = self.shard.try_lock_arc();
        let decision = shard.map(|shard| Shard::decide(shard, &push, &mut attempt, now_seconds()));
        match decision {
            Some(Decision::Apply(edit)) => self.carry_out_push(edit, push, reply),
            Some(Decision::Reject(rejection)) => self.reject(rejection, push, reply),
            waiting => {
                monoio::spawn(self.clone().decide_until_final(push, attempt, waiting, reply));
            }
        }
    }

    /// Lets the shard decide about a push until the push is applied or rejected. The waits are short: collections and commits
    /// end, and leases are returned.
    async fn decide_until_final(
        self: Rc<Self>,
        push: Arc<Push>,
        mut attempt: PushAttempt,
        mut decision: Option<Decision<TextEdit<ShardGuard>>>,
        reply: Reply,
    ) {
        let mut leases: Vec<Lease> = Vec::new();
        loop {
            match decision {
                // The leases may be returned although the text is not whole yet: the edit holds the shard, and the next holder
                // of a lease needs the shard to look for duplicates.
                Some(Decision::Apply(edit)) => return self.carry_out_push(edit, push, reply),
                Some(Decision::Reject(rejection)) => return self.reject(rejection, push, reply),
                Some(Decision::WaitFor(epoch)) => self.wait_until_past(epoch).await,
                Some(Decision::NeedsLookup(families)) => {
                    attempt.looked_up.clear();
                    // All are returned first, because leases are only taken in name order.
                    leases.clear();
                    leases = self.leases.take(&families).await;
                    match self.find_duplicate(&push, &families).await {
                        Ok(None) => attempt.looked_up = families,
                        Ok(Some(reason)) => {
                            let shard = self.shard.lock_arc().await;
                            let edit =
                                Shard::record_failure(shard, &push, &mut attempt, reason, now_seconds());
                            return self.carry_out_push(edit, push, reply);
                        }
                        // Without a reply, the client gets the response of a gateway that is shutting down.
                        Err(oneshot::Canceled) => return,
                    }
                }
                None => {}
            }
            let shard = self.shard.lock_arc().await;
            decision = Some(Shard::decide(shard, &push, &mut attempt, now_seconds()));
        }
    }

    /// Looks for duplicates of a push's series in other groups, on all cores.
    ///
    /// # Errors
    /// Another core has stopped, so the gateway is shutting down.
    async fn find_duplicate(
        &self,
        push: &Push,
        families: &[Arc<str>],
    ) -> Result<Option<Inconsistency>, oneshot::Canceled> {
        let lookups = self.shard.lock_arc().await.duplicate_lookups(push, families);
        let mut by_core: Vec<Vec<SeriesLookup>> = vec![Vec::new(); self.mailboxes.cores()];
        for lookup in lookups {
            by_core[lookup.key.home(self.mailboxes.cores())].push(lookup);
        }
        for (core, lookups) in by_core.into_iter().enumerate().filter(|(_, lookups)| !lookups.is_empty()) {
            loop {
                let check = if core == self.core {
                    self.shard.lock_arc().await.find_duplicates(&lookups)
                } else {
                    let (tx, rx) = oneshot::channel();
                    self.mailboxes.order(core, Order::LookUp(lookups.clone(), tx));
                    rx.await?
                };
                match check {
                    DuplicateCheck::Free => break,
                    DuplicateCheck::Found(reason) => return Ok(Some(reason)),
                    DuplicateCheck::Retired(epoch) => self.wait_until_past(epoch).await,
                }
            }
        }
        Ok(None)
    }

    /// Responds to a rejected push. With a store, the response follows those to all commands before.
    fn reject(&self, rejection: Rejection, push: Arc<Push>, reply: Reply) {
        let key = push.key.text().clone();
        drop(push);
        let outcome = Outcome::Rejected(rejection);
        match &self.outbox {
            None => reply.send(Ok(outcome)),
            Some(outbox) => {
                let waits = Waits::Client(reply, outcome);
                outbox.keep(Kept { key, change: GroupChange::Nothing, commit: None, waits });
            }
        }
    }

    fn carry_out_push(&self, edit: TextEdit<ShardGuard>, push: Arc<Push>, reply: Reply) {
        let key = push.key.clone();
        drop(push);
        self.carry_out(edit, key, reply);
    }

    /// Changes the text of a command, then sends the group to the store or responds. A large command continues in a task.
    fn carry_out(&self, edit: TextEdit<ShardGuard>, key: GroupingKey, reply: Reply) {
        let command = InProgressCommand { key, reply, outbox: self.outbox.clone() };
        match edit.advance(SLICE_BYTES) {
            ControlFlow::Break(applied) => command.commit(applied),
            ControlFlow::Continue(edit) => {
                monoio::spawn(async move { command.commit(finish(edit).await) });
            }
        }
    }

    /// Waits until every collection and commit that began at or before an epoch has ended.
    async fn wait_until_past(&self, epoch: Epoch) {
        loop {
            let ended = self.registry.ended.listen();
            if self.registry.is_past(epoch) {
                return;
            }
            ended.await;
        }
    }
}

/// A command that the shard has begun to apply.
struct InProgressCommand {
    key: GroupingKey,
    reply: Reply,
    outbox: Option<Rc<Outbox>>,
}

impl InProgressCommand {
    /// Sends the change to the store, which responds after the commit. Without a store, responds at once.
    fn commit(self, applied: Applied<ShardGuard>) {
        let Applied { shard, change, commit, outcome } = applied;
        let Self { key, reply, outbox } = self;
        let Some(outbox) = outbox else {
            drop(shard);
            return reply.send(Ok(outcome));
        };
        let memory = outbox.memory();
        let waits = Waits::Client(reply, outcome);
        let enqueue = move |change| outbox.keep(Kept { key: key.text().clone(), change, commit, waits });
        match change {
            shard::Change::Delete => enqueue(GroupChange::Delete),
            shard::Change::Put(group) => match RecordWriter::new(shard, group, memory).advance(SLICE_BYTES) {
                ControlFlow::Break((_shard, record)) => enqueue(GroupChange::Put(record)),
                ControlFlow::Continue(mut writer) => {
                    monoio::spawn(async move {
                        loop {
                            breathe().await;
                            match writer.advance(SLICE_BYTES) {
                                ControlFlow::Break((_shard, record)) => {
                                    return enqueue(GroupChange::Put(record));
                                }
                                ControlFlow::Continue(rest) => writer = rest,
                            }
                        }
                    });
                }
            },
        }
    }
}

async fn finish(mut edit: TextEdit<ShardGuard>) -> Applied<ShardGuard> {
    loop {
        match edit.advance(SLICE_BYTES) {
            ControlFlow::Break(applied) => return applied,
            ControlFlow::Continue(rest) => edit = rest,
        }
        breathe().await;
    }
}

async fn wipe(
    mut shard: ShardGuard,
    outbox: Option<Rc<Outbox>>,
    answer: oneshot::Sender<Result<(), NotKept>>,
) {
    loop {
        let keys = shard.some_keys(WIPE_KEYS);
        if keys.is_empty() {
            break;
        }
        for key in keys {
            let edit = Shard::delete(shard, &GroupingKey::from_text(key.clone()));
            let applied = finish(edit).await;
            if let Some(outbox) = &outbox {
                let (change, commit, waits) = (GroupChange::Delete, applied.commit, Waits::Nobody);
                outbox.keep(Kept { key, change, commit, waits });
            }
            shard = applied.shard;
        }
        breathe().await;
    }
    match outbox {
        Some(outbox) => {
            let (key, change, waits) = ("".into(), GroupChange::Nothing, Waits::Wipe(answer));
            outbox.keep(Kept { key, change, commit: None, waits });
        }
        None => {
            let _ = answer.send(Ok(()));
        }
    }
}

/// Lets the core serve its connections.
async fn breathe() {
    monoio::spawn(async {}).await;
}

/// The time of day in Unix seconds.
pub fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
