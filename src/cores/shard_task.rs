//! The task that owns one core's shard and executes commands on it.
//!
//! A shard is behind an asynchronous lock. A command holds the lock while it edits text in slices: the core serves its connections
//! between two slices, but no other command sees half a push. Long commands run in their own task, so they complete even if the
//! client disconnects. A very large group has a shard of its own, so commands to other groups need not wait for it.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use event_listener::Event;
use futures_channel::oneshot;
use futures_util::StreamExt;

use super::command::ShardCommand;
use super::leases::Leases;
use super::mailbox::{Inbox, Mailboxes};
use super::merging::Merging;
use super::shard_access::ShardGuard;
use super::slices::{SLICE_BYTES, drop_in_slices, in_slices};
use crate::runtime::budget::Reservation;
use crate::runtime::permits::Permit;
use crate::runtime::{now_seconds, spawn, yield_now};
use crate::shard::key::GroupingKey;
use crate::shard::outcome::{Outcome, Rejection};
use crate::shard::registry::Registry;
use crate::shard::shapes::ShapedPush;
use crate::shard::sides::CoreShards;
use crate::shard::{Applied, Change, Counts, FamilySnapshot, Shard, TextEdit};
use crate::storage::completion::{CommandReply, CommandResult, CommitFailed, Completion};
use crate::storage::outbox::Outbox;
use crate::storage::record_writer::RecordWriter;
use crate::storage::store::{GroupChange, PendingChange, Store};

/// How much text of groups one command copies; as JSON, half a millisecond of work.
const COPY_BYTES: usize = 32 * 1024;
/// How many families of a large group one command lists.
const LISTED_FAMILIES: usize = 512;
/// A core without side shards and with at most this many families takes its snapshot at once; otherwise a task does.
const SNAPSHOT_FAMILIES: usize = 4096;
/// How many families of groups a wipe deletes between two yields, including push times. A group with more is deleted in slices.
const WIPE_FAMILIES: usize = 256;

/// The reply to [`ShardCommand::Snapshot`].
pub(super) type SnapshotReply = oneshot::Sender<(Vec<Vec<FamilySnapshot>>, Counts)>;

/// One core's shards, and what its commands need to reach the other cores.
pub(crate) struct ShardTask {
    pub(super) core: usize,
    pub(super) shards: Arc<CoreShards>,
    /// How many [`super::shard_access::Reading`]s there are.
    pub(super) readings: Cell<usize>,
    pub(super) reading_ended: Event,
    pub(super) registry: Arc<Registry>,
    pub(super) leases: Arc<Leases>,
    pub(super) mailboxes: Mailboxes,
    /// Where changes wait for the storage engine; `None` without a store.
    outbox: Option<Rc<Outbox>>,
    /// Whether a task frees retired series, see [`ShardTask::free_retired_series`].
    freeing: Cell<bool>,
    pub(super) merging: Merging,
}

/// Why a command has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// The queue of the group's home core, or the queue of the storage engine, is full.
    #[error("too many pushes are waiting, try again")]
    QueueFull,
    /// The command was applied, but not committed.
    #[error(transparent)]
    CommitFailed(#[from] CommitFailed),
    /// The home core has ended.
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

impl ShardTask {
    /// The task of a core. `shards` must use the same registry, and be persistent if there is a store.
    pub(crate) fn new(
        core: usize,
        shards: Arc<CoreShards>,
        registry: Arc<Registry>,
        leases: Arc<Leases>,
        mailboxes: Mailboxes,
        store: Option<Arc<Store>>,
    ) -> Rc<Self> {
        let outbox = store.map(|store| Outbox::new(core, store));
        Rc::new(Self {
            core,
            shards,
            readings: Cell::new(0),
            reading_ended: Event::new(),
            registry,
            leases,
            mailboxes,
            outbox,
            freeing: Cell::new(false),
            merging: Merging::default(),
        })
    }

    /// Executes the commands of other cores until no sender is left.
    pub(crate) async fn run(self: Rc<Self>, mut inbox: Inbox) {
        while let Some(command) = inbox.next().await {
            self.execute(command);
        }
    }

    /// Sends a client's command to the home core of a group and waits for its result. `bytes` is the size of a push.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub(crate) async fn execute_at_home(
        self: &Rc<Self>,
        key: &GroupingKey,
        bytes: u64,
        command: impl FnOnce(Permit, oneshot::Sender<CommandResult>) -> ShardCommand,
    ) -> Result<Outcome, CommandError> {
        self.execute_at(key.home(self.mailboxes.cores()), bytes, command).await
    }

    /// Applies a push of a known shape on the home core of its group, and waits for its result. `memory` is that of the push. Returns the
    /// numbers too, so that their memory can be used again.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub(crate) async fn push_numbers_at_home(
        self: &Rc<Self>,
        push: ShapedPush,
        memory: Reservation,
    ) -> (Result<Outcome, CommandError>, Vec<f64>) {
        let home = push.key.home(self.mailboxes.cores());
        if home == self.core
            && let Some(outcome) = self.push_numbers_at_once(&push)
        {
            return (Ok(outcome), push.numbers);
        }
        let bytes = push.rendered_bytes_max() as u64;
        let push = Arc::new(push);
        let sent = push.clone();
        let command = |permit: Permit, tx| ShardCommand::ShapedPush(sent, permit.holding(memory), tx);
        let result = self.execute_at(home, bytes, command).await;
        // The home core has dropped its clone, unless it has ended.
        (result, Arc::into_inner(push).map_or_else(Vec::new, |push| push.numbers))
    }

    /// Sends a client's command to a core and waits for its result.
    async fn execute_at(
        self: &Rc<Self>,
        home: usize,
        bytes: u64,
        command: impl FnOnce(Permit, oneshot::Sender<CommandResult>) -> ShardCommand,
    ) -> Result<Outcome, CommandError> {
        if self.outbox.as_ref().is_some_and(|outbox| outbox.is_full(bytes)) {
            return Err(CommandError::QueueFull);
        }
        let permit = self.mailboxes.queue_permit(home).ok_or(CommandError::QueueFull)?;
        let (tx, rx) = oneshot::channel();
        let command = command(permit, tx);
        if home == self.core {
            self.execute(command);
        } else {
            self.mailboxes.send(home, command);
        }
        Ok(rx.await.map_err(|_| CommandError::ShuttingDown)??)
    }

    /// Executes a command at once if possible, otherwise in a task.
    pub(crate) fn execute(self: &Rc<Self>, command: ShardCommand) {
        match command {
            ShardCommand::Push(push, permit, tx) => self.push(push, CommandReply { permit, tx }),
            ShardCommand::ShapedPush(push, permit, tx) => {
                self.push_numbers(push, CommandReply { permit, tx });
            }
            ShardCommand::Delete(key, permit, tx) => {
                let task = self.clone();
                self.with_shard_of(key.clone(), move |shard| {
                    let reply = CommandReply { permit, tx };
                    if shard.is_large(&key, 0) {
                        spawn(async move {
                            let edit =
                                in_slices(async |pace| Shard::delete_in_slices(shard, &key, pace).await)
                                    .await;
                            task.finish(edit, key, reply);
                        });
                    } else {
                        task.finish(Shard::delete(shard, &key), key, reply);
                    }
                });
            }
            ShardCommand::DeleteListed(listed, tx) => {
                spawn(delete_listed(self.clone(), listed, tx));
            }
            ShardCommand::Wipe(tx) => {
                spawn(wipe(self.clone(), tx));
            }
            ShardCommand::Complete(batch, committed) => {
                if let Some(outbox) = &self.outbox {
                    outbox.complete(batch, committed);
                }
            }
            ShardCommand::Snapshot(tx) => {
                let task = self.clone();
                self.with_main(move |main| task.snapshot_when_merged(main, tx));
            }
            ShardCommand::CopyGroups(from, tx) => self.read_groups(
                from,
                tx,
                |shard, from| shard.copy_groups(from, COPY_BYTES),
                |slice| &mut slice.next,
            ),
            ShardCommand::ListFamilies(group, from, tx) => {
                let key = GroupingKey::from_text(group.head.key.clone());
                self.with_shard_of(key, move |shard| {
                    let _ = tx.send(shard.families_of(&group, from, LISTED_FAMILIES));
                });
            }
            ShardCommand::CopyFamilies(group, names, tx) => {
                let key = GroupingKey::from_text(group.head.key.clone());
                self.with_shard_of(key, move |shard| {
                    let _ = tx.send(shard.copy_families_of(&group, &names, COPY_BYTES));
                });
            }
            ShardCommand::ListGroups(query, from, tx) => self.read_groups(
                from,
                tx,
                move |shard, from| shard.list(&query, from),
                |listed| &mut listed.next,
            ),
            ShardCommand::FindDuplicates(lookups, tx) => {
                let task = self.clone();
                spawn(async move {
                    let _ = tx.send(task.find_duplicates(&lookups).await);
                });
            }
        }
    }

    /// Whether a snapshot of the core can be taken at once.
    pub(super) fn is_quickly_shown(&self, main: &Shard) -> bool {
        self.shards.side_from(0).is_none() && main.counts().families <= SNAPSHOT_FAMILIES
    }

    /// Calls `run` with the main shard as soon as no command is half applied there: now, or in a task.
    fn with_main(self: &Rc<Self>, run: impl FnOnce(ShardGuard) + 'static) {
        match self.try_main() {
            Some(shard) => run(shard),
            None => {
                let task = self.clone();
                spawn(async move { run(task.lock_main().await) });
            }
        }
    }

    /// The same with the shard that has a group.
    fn with_shard_of(self: &Rc<Self>, key: GroupingKey, run: impl FnOnce(ShardGuard) + 'static) {
        match self.try_main_of(&key) {
            Some(shard) => run(shard),
            None => {
                let task = self.clone();
                spawn(async move { run(task.lock_shard_of(&key).await) });
            }
        }
    }

    /// Reads some groups from a position on: those of the main shard by their numbers, then those of the side shards. `next` is the
    /// position after them, as far as their shard knows it.
    fn read_groups<T: 'static>(
        self: &Rc<Self>,
        from: u32,
        tx: oneshot::Sender<T>,
        read: impl FnOnce(&Shard, u32) -> T + 'static,
        next: impl FnOnce(&mut T) -> &mut Option<u32> + 'static,
    ) {
        /// Added to the number of a side shard. A main shard never has so many groups.
        const SIDES: u32 = 1 << 31;
        let task = self.clone();
        let Some(mut side_number) = from.checked_sub(SIDES) else {
            return self.with_main(move |main| {
                let mut result = read(&main, from);
                let next = next(&mut result);
                if next.is_none() {
                    *next = task.shards.side_from(0).map(|side| SIDES | side.number);
                }
                let _ = tx.send(result);
            });
        };
        spawn(async move {
            while let Some(side) = task.shards.side_from(side_number) {
                side_number = side.number + 1;
                if let Some(side) = task.lock_side(side).await {
                    let mut result = read(&side, 0);
                    // The shard has no other group.
                    *next(&mut result) = task.shards.side_from(side_number).map(|side| SIDES | side.number);
                    let _ = tx.send(result);
                    return;
                }
            }
            let _ = tx.send(read(&*task.lock_main().await, u32::MAX));
        });
    }

    /// Completes a command that the shard applies: edits the text, then commits or replies. A large command continues in a task.
    pub(super) fn finish(self: &Rc<Self>, edit: TextEdit<ShardGuard>, key: GroupingKey, reply: CommandReply) {
        let command = InProgressCommand { key, reply, task: self.clone() };
        match edit.advance(SLICE_BYTES) {
            ControlFlow::Break(applied) => command.commit(applied),
            ControlFlow::Continue(edit) => {
                spawn(async move { command.commit(finish_edit(edit).await) });
            }
        }
    }

    /// Applies a push of a known shape. If its group has the shape, only its numbers change; otherwise it is a push like any other.
    ///
    /// The push is dropped before the reply, so that the core which made it has the last reference.
    fn push_numbers(self: &Rc<Self>, push: Arc<ShapedPush>, reply: CommandReply) {
        match self.apply_numbers(&push) {
            Some((shard, change)) => {
                let key = push.key.clone();
                drop(push);
                let applied = Applied { shard, change, commit: None, outcome: Outcome::Applied };
                InProgressCommand { key, reply, task: self.clone() }.commit(applied);
            }
            None => {
                let rendered = Arc::new(push.to_push());
                drop(push);
                self.push(rendered, reply);
            }
        }
    }

    /// Applies a push of a known shape without a command. `None` if that is impossible: its group does not have the shape, the queue is
    /// full, or the change has to be stored.
    fn push_numbers_at_once(self: &Rc<Self>, push: &ShapedPush) -> Option<Outcome> {
        if self.outbox.is_some() {
            return None;
        }
        let _permit = self.mailboxes.queue_permit(self.core)?;
        let (shard, _) = self.apply_numbers(push)?;
        self.free_retired_series_of(&shard);
        Some(Outcome::Applied)
    }

    /// Applies a push of a known shape if its group has the shape and the shard is free.
    fn apply_numbers(&self, push: &ShapedPush) -> Option<(ShardGuard, Change)> {
        let mut shard = self.try_main_of(&push.key)?;
        let change = shard.push_numbers(push, now_seconds())?;
        Some((shard, change))
    }

    /// Deletes all groups of a shard.
    async fn wipe_shard(self: &Rc<Self>, mut shard: ShardGuard) {
        let mut next = Some(0);
        while let Some(from) = next {
            let keys;
            (keys, next) = shard.some_keys(from, WIPE_FAMILIES);
            for key in keys {
                shard = self.delete_without_reply(shard, key).await;
            }
            yield_now().await;
        }
        self.free_retired_series_of(&shard);
    }

    /// Deletes a group. Nothing waits for the commit of this change alone.
    async fn delete_without_reply(&self, shard: ShardGuard, key: Arc<str>) -> ShardGuard {
        let deleted = GroupingKey::from_text(key.clone());
        let edit = in_slices(async |pace| Shard::delete_in_slices(shard, &deleted, pace).await).await;
        let applied = finish_edit(edit).await;
        if let Some(outbox) = &self.outbox {
            let (change, completion) = (GroupChange::Delete, Completion::None);
            outbox.enqueue(PendingChange { key, change, commit: applied.commit, completion });
        }
        applied.shard
    }

    /// Waits until all changes of this core up to now are committed.
    async fn committed(&self) -> Result<(), CommitFailed> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let (tx, rx) = oneshot::channel();
        outbox.enqueue(PendingChange {
            key: "".into(),
            change: GroupChange::Unchanged,
            commit: None,
            completion: Completion::Committed(tx),
        });
        rx.await.unwrap_or(Err(CommitFailed))
    }

    /// Starts to free the retired series of the core, if it has any.
    fn free_retired_series_of(self: &Rc<Self>, shard: &Shard) {
        if shard.oldest_retired_series().is_some() && !self.freeing.replace(true) {
            spawn(self.clone().free_retired_series());
        }
    }

    /// Frees retired series when the collections and commits that reserve them have ended.
    async fn free_retired_series(self: Rc<Self>) {
        loop {
            let oldest = self.lock_main().await.oldest_retired_series();
            let Some(epoch) = oldest else { break };
            self.wait_until_past(epoch).await;
            while self.lock_main().await.free_retired_series(SLICE_BYTES) {
                yield_now().await;
            }
        }
        self.freeing.set(false);
    }

    /// Replies to a push that the shard rejected. With a store, the reply is sent in order, after those of earlier commands.
    pub(super) fn reply_rejected(&self, rejection: Rejection, key: Arc<str>, reply: CommandReply) {
        let completion = Completion::Command(reply, Outcome::Rejected(rejection));
        match &self.outbox {
            None => completion.complete(Ok(())),
            Some(outbox) => outbox.enqueue(PendingChange {
                key,
                change: GroupChange::Unchanged,
                commit: None,
                completion,
            }),
        }
    }
}

/// A command that the shard applies. Its edit, and then its record writer, hold the shard until the record is in the outbox; so records
/// reach the engine in the order of the commands.
struct InProgressCommand {
    key: GroupingKey,
    reply: CommandReply,
    task: Rc<ShardTask>,
}

impl InProgressCommand {
    /// Puts the group's record into the outbox; without a store, replies.
    fn commit(self, applied: Applied<ShardGuard>) {
        let Applied { shard, change, commit, outcome } = applied;
        let Self { key, reply, task } = self;
        task.free_retired_series_of(&shard);
        task.return_if_small(&key);
        let Some(outbox) = task.outbox.clone() else {
            drop(shard);
            return reply.send(Ok(outcome));
        };
        let buffer = outbox.spare_record();
        let completion = Completion::Command(reply, outcome);
        let enqueue = move |change| {
            outbox.enqueue(PendingChange { key: key.text().clone(), change, commit, completion });
        };
        match change {
            Change::Delete => enqueue(GroupChange::Delete),
            Change::Put(group, part) => {
                match RecordWriter::new(shard, group, part, buffer).advance(SLICE_BYTES) {
                    ControlFlow::Break((_shard, change)) => enqueue(change),
                    ControlFlow::Continue(writer) => {
                        spawn(async move {
                            let (_shard, change) = finish_record(writer).await;
                            enqueue(change);
                        });
                    }
                }
            }
        }
    }
}

async fn finish_edit(mut edit: TextEdit<ShardGuard>) -> Applied<ShardGuard> {
    loop {
        match edit.advance(SLICE_BYTES) {
            ControlFlow::Break(applied) => return applied,
            ControlFlow::Continue(rest) => edit = rest,
        }
        yield_now().await;
    }
}

async fn finish_record(mut writer: RecordWriter<ShardGuard>) -> (ShardGuard, GroupChange) {
    loop {
        yield_now().await;
        match writer.advance(SLICE_BYTES) {
            ControlFlow::Break(written) => return written,
            ControlFlow::Continue(rest) => writer = rest,
        }
    }
}

/// Takes a snapshot of each shard. Between two of them, commands are executed: each shard is consistent, and what one of them releases
/// stays reserved until the collection has ended, as between cores.
pub(super) async fn snapshot(task: Rc<ShardTask>, main: ShardGuard, tx: SnapshotReply) {
    let _reading = task.reading();
    let sides = task.shards.sides();
    let (mut snapshots, mut counts) = (Vec::with_capacity(1 + sides.len()), Counts::default());
    let mut add = async |shard: ShardGuard| {
        snapshots.push(in_slices(async |pace| shard.snapshot_in_slices(pace).await).await);
        counts += shard.counts();
    };
    add(main).await;
    // A group whose first push is still being applied is not shown yet.
    for side in sides.into_iter().filter(|side| !side.is_new()) {
        if let Some(side) = task.lock_side(side).await {
            add(side).await;
        }
    }
    if let Err((snapshots, _)) = tx.send((snapshots, counts)) {
        for snapshot in snapshots {
            drop_in_slices(snapshot).await;
        }
    }
}

/// Deletes all groups of a core.
async fn wipe(task: Rc<ShardTask>, tx: oneshot::Sender<Result<(), CommitFailed>>) {
    let _reading = task.reading();
    let main = task.lock_main().await;
    let sides = task.shards.sides();
    task.wipe_shard(main).await;
    for side in sides {
        if let Some(side) = task.lock_side(side).await {
            task.wipe_shard(side).await;
        }
    }
    // The client may have disconnected.
    let _ = tx.send(task.committed().await);
}

/// Deletes groups that were last pushed at a given time.
async fn delete_listed(
    task: Rc<ShardTask>,
    listed: Vec<(Arc<str>, f64)>,
    tx: oneshot::Sender<Result<usize, CommitFailed>>,
) {
    let mut deleted = 0;
    for (key, push_seconds) in listed {
        let shard = task.lock_shard_of(&GroupingKey::from_text(key.clone())).await;
        let group = shard.group_number(&key).map(|number| shard.group(number).times());
        if group.is_some_and(|times| times.push_seconds == push_seconds) {
            let shard = task.delete_without_reply(shard, key).await;
            task.free_retired_series_of(&shard);
            deleted += 1;
        }
        yield_now().await;
    }
    // The client may have disconnected.
    let _ = tx.send(task.committed().await.map(|()| deleted));
}

#[cfg(test)]
mod tests;
