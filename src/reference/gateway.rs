//! Real shards that share a registry, driven on one thread as `cores::shard_task` drives them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sluicegate_engine::record::{Record, apply_patches};

use super::{CORES, GroupKey, HELD_MAX, ModelFamily, ModelGroup, is_consistent, series};
use crate::exposition::consistency::Inconsistency;
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::shard::key::GroupingKey;
use crate::shard::limits::StateLimits;
use crate::shard::outcome::Outcome;
use crate::shard::push::{Content, Push};
use crate::shard::registry::{Epoch, Registry, RunningEpoch};
use crate::shard::shapes::{ShapedPush, Shapes};
use crate::shard::{
    Applied, Change, Decision, DuplicateCheck, FAILURE_TIME, FamilySnapshot, FamilyView, GroupView, Lookups,
    PUSH_TIME, Pace, Persistence, PushAttempt, SeriesLookup, Shard, TextEdit,
};
use crate::storage::record_writer::RecordWriter;
use crate::storage::store::GroupChange;
use crate::storage::stored_group::StoredGroup;

/// What an applied command sends to the store.
struct StoredChange {
    key: GroupKey,
    change: GroupChange,
    commit: Option<RunningEpoch>,
    outcome: Outcome,
}

/// Runs a computation in slices of this cost. Also returns how many there were.
pub(crate) fn in_slices<T>(cost: usize, computation: impl AsyncFnOnce(&Pace) -> T) -> (T, usize) {
    let pace = Pace::slices(cost);
    let mut computation = pin!(computation(&pace));
    let mut context = Context::from_waker(Waker::noop());
    let mut slices = 1;
    loop {
        match computation.as_mut().poll(&mut context) {
            Poll::Ready(result) => return (result, slices),
            Poll::Pending => slices += 1,
        }
    }
}

/// Changes the text of a command and writes the record of its group, both in the smallest slices.
fn finish(key: &GroupingKey, mut edit: TextEdit<&mut Shard>) -> StoredChange {
    let applied = loop {
        match edit.advance(1) {
            ControlFlow::Break(applied) => break applied,
            ControlFlow::Continue(rest) => edit = rest,
        }
    };
    stored_change(key, applied)
}

/// Writes the record of a command's group in the smallest slices.
fn stored_change(key: &GroupingKey, applied: Applied<&mut Shard>) -> StoredChange {
    let Applied { shard, change, commit, outcome } = applied;
    let change = match change {
        Change::Delete => GroupChange::Delete,
        Change::Put(group, part) => {
            let mut writer = RecordWriter::new(shard, group, part, Vec::new());
            loop {
                match writer.advance(1) {
                    ControlFlow::Break((_, change)) => break change,
                    ControlFlow::Continue(rest) => writer = rest,
                }
            }
        }
    };
    StoredChange { key: key.text().to_string(), change, commit, outcome }
}

/// A side shard.
pub(crate) struct Side {
    /// The key of its group, or of the one with the same push times.
    pub(super) key: GroupingKey,
    pub(crate) shard: Shard,
}

/// A collection that is running.
pub(crate) struct Collection {
    running: RunningEpoch,
    snapshots: Vec<Vec<FamilySnapshot>>,
    /// The round that the next main shard must have merged, once it was asked.
    round: Option<u64>,
    /// The number of cores whose main shard has returned its snapshot.
    cores: usize,
    /// The side shards of the last of them that have not: their keys and numbers.
    sides: Vec<(Arc<str>, u32)>,
}

/// Shards with a store.
pub(crate) struct Gateway {
    pub(crate) registry: Arc<Registry>,
    limits: StateLimits,
    /// `None` if every body is parsed.
    shapes: Option<Shapes>,
    /// The main shards.
    pub(crate) shards: Vec<Shard>,
    /// The side shards, by [`GroupingKey::without_empty_instance`].
    pub(crate) sides: BTreeMap<Arc<str>, Side>,
    /// A running collection.
    pub(crate) collection: Option<Collection>,
    /// The samples of the collection that ended last, until they are checked.
    pub(super) scrape: Option<BTreeMap<String, String>>,
    /// Snapshots of earlier collections with the text that they had, as responses that are being sent.
    pub(super) held: VecDeque<Vec<(FamilySnapshot, Vec<u8>)>>,
    /// The records of the store.
    pub(super) store: BTreeMap<GroupKey, Vec<u8>>,
    /// Commits that have not ended.
    pub(crate) commits: Vec<RunningEpoch>,
    /// The time of the last push.
    pub(crate) now: f64,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        // A limit that is never reached, so that the totals are compared.
        Self::with_limits(StateLimits { bytes_max: Some(u64::MAX), ..StateLimits::default() })
    }

    pub(crate) fn with_limits(limits: StateLimits) -> Self {
        let registry = Registry::new([
            (PUSH_TIME, MetricType::Gauge, "pushed"),
            (FAILURE_TIME, MetricType::Gauge, "failed"),
        ]);
        let registry = Arc::new(registry.with_limits(limits));
        let shards =
            (0..CORES).map(|core| Shard::new(core as u32, registry.clone(), Persistence::Stored)).collect();
        Self {
            registry,
            limits,
            shapes: Some(Shapes::default()),
            shards,
            sides: BTreeMap::new(),
            collection: None,
            scrape: None,
            held: VecDeque::new(),
            store: BTreeMap::new(),
            commits: Vec::new(),
            now: 1.0,
        }
    }

    /// Parses every body.
    pub(super) fn without_shapes(mut self) -> Self {
        self.shapes = None;
        self
    }

    pub(crate) fn shard(&mut self, key: &GroupingKey) -> &mut Shard {
        match self.sides.get_mut(&key.without_empty_instance()) {
            Some(side) => &mut side.shard,
            None => &mut self.shards[key.home(CORES)],
        }
    }

    pub(super) fn all_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().chain(self.sides.values().map(|side| &side.shard))
    }

    /// Moves a group, or the one with the same push times, to a side shard, or back.
    pub(crate) fn move_group(&mut self, key: &GroupingKey) {
        let (home, place) = (key.home(CORES), key.without_empty_instance());
        let main = &mut self.shards[home];
        let keys = [Some(key.clone()), key.empty_instance_variant()];
        let Some(mut side) = self.sides.remove(&place) else {
            let mut side = Side { key: key.clone(), shard: main.new_side().expect("there are few") };
            for key in keys.iter().flatten() {
                in_slices(1, async |pace| main.move_group(key, &mut side.shard, pace).await);
            }
            if !side.shard.is_empty() {
                self.sides.insert(place, side);
            }
            return;
        };
        // Otherwise the collection would not contain the group: it has the main shard already.
        if self.collection.as_ref().is_some_and(|collection| !collection.sides.is_empty()) {
            self.sides.insert(place, side);
            return;
        }
        for key in keys.iter().flatten() {
            in_slices(1, async |pace| side.shard.move_group(key, main, pace).await);
        }
        assert!(side.shard.is_empty());
    }

    /// Applies a push, as a push of a known shape if its body has one.
    pub(crate) fn push_body(&mut self, mut push: Push, body: &str) -> Outcome {
        let (body, mut numbers) = (body.as_bytes(), Vec::new());
        let Some(shapes) = &self.shapes else { return self.push(push) };
        let Some(shape) = shapes.find(body, &push.key, usize::MAX, &mut numbers) else {
            if matches!(push.content, Content::Families(..)) {
                let mut learn = || shapes.learn(body, &push.key, NameRules::Utf8, usize::MAX, &mut numbers);
                // Otherwise few bodies of a short test would have a shape.
                let shape = learn().or_else(|| (self.now % 4.0 != 0.0).then(learn)?);
                push.shape = shape;
            }
            return self.push(push);
        };
        let key = push.key.clone();
        let shaped = ShapedPush { key, mode: push.mode, source: push.source, shape, numbers };
        // As in a running gateway, groups with side shards have no shape.
        if self.sides.contains_key(&shaped.key.without_empty_instance()) {
            return self.push(shaped.to_push());
        }
        let now = self.now + 1.0;
        let shard = &mut self.shards[shaped.key.home(CORES)];
        let Some(change) = shard.push_numbers(&shaped, now) else { return self.push(shaped.to_push()) };
        self.now = now;
        let applied = Applied { shard, change, commit: None, outcome: Outcome::Applied };
        let stored = stored_change(&shaped.key, applied);
        self.enqueue(stored)
    }

    pub(crate) fn push(&mut self, push: Push) -> Outcome {
        let (push, mut attempt) = (Arc::new(push), PushAttempt::default());
        self.now += 1.0;
        let now = self.now;
        for _ in 0..20 {
            let shard = self.shard(&push.key);
            let (decision, _) = in_slices(1, async |pace| {
                Shard::decide_in_slices(shard, &push, &mut attempt, now, pace).await
            });
            match decision {
                Decision::Apply(edit) => {
                    let stored = finish(&push.key, edit);
                    return self.enqueue(stored);
                }
                Decision::Reject(rejection) => return Outcome::Rejected(rejection),
                Decision::WaitFor(epoch) => self.wait(epoch),
                Decision::NeedsLookup(families) => {
                    if let Some(outcome) = self.look_up(&push, &families, &mut attempt) {
                        return outcome;
                    }
                    attempt.looked_up = families;
                }
            }
        }
        panic!("a push was never decided");
    }

    fn look_up(
        &mut self,
        push: &Arc<Push>,
        families: &[Arc<str>],
        attempt: &mut PushAttempt,
    ) -> Option<Outcome> {
        let now = self.now;
        let (registry, looked_up) = (self.registry.clone(), push.clone());
        let (mut lookups, _) =
            in_slices(1, async |pace| Lookups::new(registry, looked_up, families, pace).await);
        loop {
            let (batch, _) = in_slices(1, async |pace| lookups.next_batch(pace).await);
            if batch.is_empty() {
                return None;
            }
            for lookup in batch {
                while let Some(reason) = self.look_up_one(&lookup) {
                    let Some(reason) = reason else { continue };
                    let shard = self.shard(&push.key);
                    let (failed, _) = in_slices(1, async |pace| {
                        Shard::record_failure(shard, push, attempt, reason, now, pace).await
                    });
                    return Some(match failed {
                        Decision::Apply(edit) => {
                            let stored = finish(&push.key, edit);
                            self.enqueue(stored)
                        }
                        Decision::Reject(rejection) => Outcome::Rejected(rejection),
                        Decision::WaitFor(_) | Decision::NeedsLookup(_) => {
                            unreachable!("a failure is recorded at once")
                        }
                    });
                }
            }
        }
    }

    /// `None` if no group has the series, and `Some(None)` if it must be looked up again.
    fn look_up_one(&mut self, lookup: &SeriesLookup) -> Option<Option<Inconsistency>> {
        let lookups = std::slice::from_ref(lookup);
        let main = &self.shards[lookup.key.home(CORES)];
        let side = self.sides.get(&lookup.key.without_empty_instance()).map(|side| &side.shard);
        let mut check = DuplicateCheck::Free;
        for shard in [Some(main), side].into_iter().flatten() {
            if matches!(check, DuplicateCheck::Free) {
                check = in_slices(1, async |pace| shard.find_duplicates(lookups, pace).await).0;
            }
        }
        match check {
            DuplicateCheck::Free => None,
            DuplicateCheck::Found(reason) => Some(Some(reason)),
            DuplicateCheck::Retired(epoch) => {
                self.wait(epoch);
                Some(None)
            }
            DuplicateCheck::NotIndexed(run) => {
                in_slices(1, async |pace| run.index(pace).await);
                Some(None)
            }
        }
    }

    pub(crate) fn delete(&mut self, key: &GroupingKey) {
        let shard = self.shard(key);
        let (edit, _) = in_slices(1, async |pace| Shard::delete_in_slices(shard, key, pace).await);
        let stored = finish(key, edit);
        self.enqueue(stored);
        self.sides.retain(|_, side| !side.shard.is_empty());
    }

    /// Sends a change to the store.
    fn enqueue(&mut self, change: StoredChange) -> Outcome {
        match change.change {
            GroupChange::Put(record) => {
                self.store.insert(change.key, record);
            }
            GroupChange::Patch(patch) => {
                let record = self.store.get_mut(&change.key).expect("only stored groups are patched");
                let mut patched = Vec::new();
                apply_patches(record, &[&patch], &mut patched).expect("was encoded");
                *record = patched;
            }
            GroupChange::Delete => {
                self.store.remove(&change.key);
            }
            GroupChange::Unchanged => {}
        }
        self.commits.extend(change.commit);
        change.outcome
    }

    pub(crate) fn commit(&mut self) {
        self.commit_some(usize::MAX);
    }

    pub(super) fn commit_some(&mut self, count: usize) {
        let count = count.min(self.commits.len());
        self.registry.end_all(self.commits.drain(..count));
        for shard in &mut self.shards {
            shard.free_retired_series(1);
        }
    }

    /// A gateway that starts with the store of this one.
    pub(crate) fn restarted(&self) -> Self {
        let mut new = Self::with_limits(self.limits);
        for (text, record) in &self.store {
            let record = Record::decode(record).expect("was encoded");
            let mut again = Vec::new();
            record.encode(&mut again).expect("was encoded");
            assert_eq!(&again, &self.store[text], "written in slices as at once");
            let key = GroupingKey::from_text(text.as_str().into());
            let place = key.without_empty_instance();
            if self.sides.contains_key(&place) {
                let shard = new.shard(&key).new_side().expect("there are few");
                new.sides.insert(place, Side { key: key.clone(), shard });
            }
            StoredGroup::new(text, record)
                .load(new.shard(&key))
                .expect("accepted groups do not contradict each other");
        }
        new.shards.iter_mut().for_each(Shard::end_loading);
        new.sides.values_mut().for_each(|side| side.shard.end_loading());
        let mut hashes: Vec<u64> = new.all_shards().flat_map(Shard::series_hashes).collect();
        hashes.sort_unstable();
        assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "a series exists twice");
        new.store.clone_from(&self.store);
        if self.shapes.is_none() {
            new.shapes = None;
        }
        new
    }

    /// Replaces the gateway by one that starts with its store, and compares both.
    pub(super) fn restart(&mut self) {
        let gateway = self;
        gateway.merge_all();
        while gateway.collection.is_some() {
            gateway.collect();
        }
        gateway.commit();
        let restarted = gateway.restarted();
        assert_eq!(restarted.shown(), gateway.shown());
        let counts = |gateway: &Gateway| -> Vec<(usize, usize, usize)> {
            let of_core = |core: usize| {
                let sides = gateway.sides.values().filter(|side| side.key.home(CORES) == core);
                let mut counts = gateway.shards[core].counts();
                sides.for_each(|side| counts += side.shard.counts());
                (counts.groups, counts.series, counts.bytes)
            };
            (0..CORES).map(of_core).collect()
        };
        assert_eq!(counts(&restarted), counts(gateway));
        assert_eq!(restarted.registry.len(), gateway.registry.len());
        assert!(restarted.registry.limited().eq(gateway.registry.limited()), "the totals differ");
        *gateway = restarted;
    }

    /// Ends the collection and the commits. A push waits for nothing else.
    fn wait(&mut self, epoch: Epoch) {
        while self.collection.is_some() {
            self.collect();
        }
        self.commit();
        assert!(self.registry.is_past(epoch));
    }

    /// Continues a collection, or begins one. Returns `false` if only some pending numbers were merged.
    pub(crate) fn collect(&mut self) -> bool {
        match self.collection.take() {
            None => {
                let running = self.registry.begin_collection();
                self.collection =
                    Some(Collection { running, snapshots: vec![], round: None, cores: 0, sides: vec![] });
            }
            Some(mut collection) if collection.cores < CORES || !collection.sides.is_empty() => {
                let snapshot_of =
                    |shard: &Shard| in_slices(1, async |pace| shard.snapshot_in_slices(pace).await).0;
                if let Some((key, number)) = collection.sides.pop() {
                    let side = self.sides.get(&key).filter(|side| side.shard.number() == number);
                    collection.snapshots.extend(side.map(|side| snapshot_of(&side.shard)));
                } else {
                    let home = collection.cores;
                    let shard = &mut self.shards[home];
                    let round = *collection.round.get_or_insert_with(|| shard.next_merged().unwrap_or(0));
                    if !shard.is_merged(round) {
                        shard.merge(1);
                        self.collection = Some(collection);
                        return false;
                    }
                    collection.round = None;
                    collection.snapshots.push(snapshot_of(&self.shards[home]));
                    collection.cores += 1;
                    let sides = self.sides.iter().filter(|(_, side)| side.key.home(CORES) == home);
                    collection.sides = sides.map(|(key, side)| (key.clone(), side.shard.number())).collect();
                }
                self.collection = Some(collection);
            }
            Some(Collection { running, snapshots: handed, .. }) => {
                drop(running);
                check_snapshot(&handed);
                self.scrape =
                    Some(handed.iter().flatten().flat_map(|family| series(&text_of(family))).collect());
                if self.held.len() == HELD_MAX {
                    self.drop_snapshots();
                }
                self.held.push_back(
                    handed
                        .into_iter()
                        .flatten()
                        .map(|family| (text_of(&family), family))
                        .map(|(text, family)| (family, text))
                        .collect(),
                );
            }
        }
        true
    }

    /// Drops the snapshots of the oldest collection, which must not have changed.
    pub(super) fn drop_snapshots(&mut self) {
        for (family, text) in self.held.pop_front().into_iter().flatten() {
            assert_eq!(text_of(&family), text, "a snapshot of {} has changed", family.shared.name);
        }
    }

    /// The records of the store. Patches of numbers leave the families in the order of the last whole record, so they are sorted here.
    pub(super) fn records(&self) -> BTreeMap<&str, Record<'_>> {
        let mut records = BTreeMap::new();
        for (key, record) in &self.store {
            let mut record = Record::decode(record).expect("was encoded");
            record.families.sort_unstable_by_key(|family| family.name);
            records.insert(key.as_str(), record);
        }
        records
    }

    /// Copies of all groups, shard by shard.
    pub(super) fn all_groups(&self) -> impl Iterator<Item = GroupCopy> {
        self.all_shards().flat_map(copies).map(|group| GroupCopy {
            families: group.families.iter().map(FamilyCopy::of).collect(),
            key: group.key,
            times: [group.push_seconds, group.failure_seconds, group.created_seconds],
        })
    }

    /// All lines of all families. `None` if there are pending numbers.
    pub(super) fn all_text(&self) -> Option<Vec<Vec<u8>>> {
        let is_merged = self.all_shards().all(|shard| shard.next_merged().is_none());
        is_merged.then(|| {
            self.all_shards().map(|shard| shard.snapshot().iter().flat_map(text_of).collect()).collect()
        })
    }

    /// Merges the next segment of each main shard.
    pub(super) fn merge(&mut self) {
        for shard in &mut self.shards {
            shard.merge(1);
        }
    }

    pub(super) fn merge_all(&mut self) {
        self.shards.iter_mut().for_each(Shard::merge_all);
    }

    /// What a scrape would show now.
    pub(super) fn shown(&self) -> BTreeMap<String, ModelFamily> {
        let mut shown: BTreeMap<String, ModelFamily> = BTreeMap::new();
        for group in self.all_shards().flat_map(copies) {
            for family in group.families {
                let entry = shown.entry(family.shared.name.to_string());
                let (_, lines) = entry.or_insert_with(|| (family.kind, BTreeMap::new()));
                family.text.pieces().for_each(|piece| lines.extend(series(piece)));
            }
        }
        shown
    }
}

/// All groups of a shard with all families, also groups that are read in parts.
fn copies(shard: &Shard) -> Vec<GroupView> {
    let (mut copies, mut from) = (Vec::new(), Some(0));
    while let Some(number) = from {
        let slice = shard.copy_groups(number, usize::MAX);
        copies.extend(slice.groups);
        if let Some(large) = slice.large {
            let names = shard.families_of(&large, 0, usize::MAX);
            let families = shard.copy_families_of(&large, &names, usize::MAX);
            copies.push(GroupView { families: families.into_iter().flatten().collect(), ..large.head });
        }
        from = slice.next;
    }
    copies
}

/// What the API reads of a group.
#[derive(Debug, PartialEq)]
pub(super) struct GroupCopy {
    key: Arc<str>,
    /// Of the last successful, the last failed, and the first push.
    times: [f64; 3],
    families: Vec<FamilyCopy>,
}

#[derive(Debug, PartialEq)]
struct FamilyCopy {
    name: String,
    kind: MetricType,
    help: Option<Arc<str>>,
    push_seconds: f64,
    text: Vec<u8>,
    exact: Option<Arc<[u8]>>,
}

impl FamilyCopy {
    fn of(family: &FamilyView) -> Self {
        Self {
            name: family.shared.name.to_string(),
            kind: family.kind,
            help: family.help.clone(),
            push_seconds: family.push_seconds,
            text: family.text.pieces().collect::<Vec<_>>().concat(),
            exact: family.exact.clone(),
        }
    }
}

fn text_of(family: &FamilySnapshot) -> Vec<u8> {
    family.text.segments().flat_map(|segment| segment.text().to_vec()).collect()
}

/// Checks a scrape that was collected while pushes continued: each name has one type and is not a part of another, and no series
/// occurs twice.
fn check_snapshot(shards: &[Vec<FamilySnapshot>]) {
    let mut groups: BTreeMap<GroupKey, ModelGroup> = BTreeMap::new();
    for (shard, handed) in shards.iter().enumerate() {
        for family in handed {
            let text = text_of(family);
            let group = groups.entry(shard.to_string()).or_default();
            group.insert(family.shared.name.to_string(), (family.kind, series(&text)));
        }
    }
    assert!(is_consistent(&groups), "a scrape shows a state that never existed: {groups:#?}");
}
