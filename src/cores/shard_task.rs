//! One core's shard and everything that is asked of it, by its own connections and by other cores.
//!
//! The shard stands behind an asynchronous lock that is held while a command's text is changed in slices: the core goes on
//! serving its connections between two slices, but nobody sees half a push. What cannot be done at once goes on in a
//! task of its own, so that a client who leaves does not leave a command half done.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_lock::{Mutex, MutexGuardArc};
use futures_channel::oneshot;
use futures_util::StreamExt;

use crate::shard::key::GroupingKey;
use crate::shard::list::{GroupQuery, Listed};
use crate::shard::push::{Outcome, Push};
use crate::shard::registry::{Epoch, Registry};
use crate::shard::stored::ToStore;
use crate::shard::{
    Counts, Decision, DuplicateCheck, FamilySnapshot, GroupView, PushAttempt, SeriesLookup, Shard, TextEdit,
};

use super::leases::{Lease, Leases};
use super::mailbox::{Inbox, Mailboxes, Place};
use crate::storage::outbox::Outbox;
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
                self.with_shard(move |mut shard| {
                    let work = shard.delete(&key);
                    home.carry_out(shard, work, key, Reply { place, answer });
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
                let _ = answer.send(shard.groups(from, PAGE_BYTES));
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
        let mut tries = PushAttempt::default();
        let first = match self.shard.try_lock_arc() {
            Some(mut shard) => match shard.decide(&push, &mut tries, now_seconds()) {
                Decision::Apply(work) => return self.carry_out_push(shard, work, push, reply),
                hindered => Some(hindered),
            },
            None => None,
        };
        monoio::spawn(self.clone().keep_trying(push, tries, first, reply));
    }

    /// Tries a push until it is applied or refused. What hinders it ends soon: collections end, leases are given back.
    async fn keep_trying(
        self: Rc<Self>,
        push: Arc<Push>,
        mut tries: PushAttempt,
        mut hindered: Option<Decision>,
        reply: Reply,
    ) {
        let mut leases: Vec<Lease> = Vec::new();
        loop {
            match hindered.take() {
                None => {}
                Some(Decision::WaitFor(moment)) => self.past(moment).await,
                Some(Decision::NeedsLookup(families)) => {
                    tries.looked_up.clear();
                    // All given back first: leases are only ever taken in name order.
                    leases.clear();
                    leases = self.leases.take(&families).await;
                    if let Err(reason) = self.look_up(&push, &families).await {
                        let mut shard = self.shard.lock_arc().await;
                        let work = shard.reject(&push, &mut tries, reason, now_seconds());
                        return self.carry_out_push(shard, work, push, reply);
                    }
                    tries.looked_up = families;
                }
                Some(Decision::Apply(_)) => unreachable!("what is begun is carried out below"),
            }
            let mut shard = self.shard.lock_arc().await;
            match shard.decide(&push, &mut tries, now_seconds()) {
                // The text is whole before the leases are given back: the lock is held until then, and who gets a lease next
                // looks by way of that lock.
                Decision::Apply(work) => return self.carry_out_push(shard, work, push, reply),
                again => hindered = Some(again),
            }
        }
    }

    /// Looks for twins of a push's series in other groups, wherever they live.
    async fn look_up(&self, push: &Push, families: &[Arc<str>]) -> Result<(), String> {
        let lookups = self.shard.lock_arc().await.duplicate_lookups(push, families);
        let mut by_core: Vec<Vec<SeriesLookup>> = vec![Vec::new(); self.mailboxes.cores()];
        for lookup in lookups {
            by_core[lookup.key.home(self.mailboxes.cores())].push(lookup);
        }
        for (core, lookups) in by_core.into_iter().enumerate().filter(|(_, lookups)| !lookups.is_empty()) {
            loop {
                let answer = match core == self.core {
                    true => self.shard.lock_arc().await.find_duplicates(&lookups),
                    false => {
                        let (answer, told) = oneshot::channel();
                        self.mailboxes.order(core, Order::LookUp(lookups.clone(), answer));
                        told.await.map_err(|_| "the gateway is shutting down".to_owned())?
                    }
                };
                match answer {
                    DuplicateCheck::Free => break,
                    DuplicateCheck::Found(reason) => return Err(reason),
                    DuplicateCheck::Retired(moment) => self.past(moment).await,
                }
            }
        }
        Ok(())
    }

    fn carry_out_push(&self, shard: ShardGuard, work: TextEdit, push: Arc<Push>, reply: Reply) {
        let key = push.key.clone();
        drop(push);
        self.carry_out(shard, work, key, reply);
    }

    fn carry_out(&self, shard: ShardGuard, work: TextEdit, key: GroupingKey, reply: Reply) {
        Carrying { shard, work, key, reply, outbox: self.outbox.clone() }.carry_out();
    }

    /// Waits until every collection and commit that began at or before a moment has ended.
    async fn past(&self, moment: Epoch) {
        loop {
            let ended = self.registry.ended.listen();
            if self.registry.is_past(moment) {
                return;
            }
            ended.await;
        }
    }
}

/// A command that is begun. The shard is held until its text is whole and its record, if there is a store, is on the way.
struct Carrying {
    shard: ShardGuard,
    work: TextEdit,
    key: GroupingKey,
    reply: Reply,
    outbox: Option<Rc<Outbox>>,
}

impl Carrying {
    /// Changes the text, then sends the group to the store or answers: at once if it is little, else in a task.
    fn carry_out(mut self) {
        if !self.shard.step(&mut self.work, SLICE_BYTES) {
            monoio::spawn(async move {
                finish(&mut self.shard, &mut self.work).await;
                self.keep();
            });
            return;
        }
        self.keep();
    }

    fn keep(self) {
        let Self { shard, mut work, key, reply, outbox } = self;
        let Some(outbox) = outbox else {
            drop(shard);
            return reply.send(Ok(work.into_outcome()));
        };
        let to_store = shard.to_store(&work, outbox.memory());
        let commit = work.commit.take();
        let waits = Waits::Client(reply, work.into_outcome());
        let send = move |change| outbox.keep(Kept { key: key.text().clone(), change, commit, waits });
        match to_store {
            ToStore::Nothing => send(GroupChange::Nothing),
            ToStore::Delete => send(GroupChange::Delete),
            ToStore::Put(mut writing) => match shard.write_record(&mut writing, SLICE_BYTES) {
                true => send(GroupChange::Put(writing.into_bytes())),
                false => {
                    monoio::spawn(async move {
                        while !shard.write_record(&mut writing, SLICE_BYTES) {
                            breathe().await;
                        }
                        send(GroupChange::Put(writing.into_bytes()));
                        drop(shard);
                    });
                }
            },
        }
    }
}

async fn finish(shard: &mut Shard, work: &mut TextEdit) {
    while !shard.step(work, SLICE_BYTES) {
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
            let mut work = shard.delete(&GroupingKey::from_text(key.clone()));
            finish(&mut shard, &mut work).await;
            if let Some(outbox) = &outbox {
                let (change, waits) = (GroupChange::Delete, Waits::Nobody);
                outbox.keep(Kept { key, change, commit: work.commit, waits });
            }
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
