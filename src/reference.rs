//! A slow, simple reference implementation of a gateway: a map of groups, checked completely after every push. Tests and the fuzz
//! target `shard` compare shards with it.
//!
//! Several shards share a registry, as the cores do. [`Gateway`] drives them as `cores::shard_task` does, but on one thread, with
//! collections that begin, collect core by core, and end between the pushes, with snapshots that outlive their collection, and
//! with a store that commits late. [`Comparison`] plays the same steps on both and panics at the first difference.

mod bodies;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use sluicegate_engine::record::{Record, apply_patches};

use crate::exposition::consistency::Inconsistency;
use crate::exposition::escape::{Escaping, NameKind, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::Part;
use crate::shard::key::GroupingKey;
use crate::shard::limits::StateLimits;
use crate::shard::outcome::Outcome;
use crate::shard::push::{Content, Push};
use crate::shard::registry::{Epoch, Registry, RunningEpoch};
use crate::shard::{
    Applied, Change, Decision, DuplicateCheck, FAILURE_TIME, FamilySnapshot, Lookups, PUSH_TIME, Pace,
    Persistence, PushAttempt, SeriesLookup, Shard, TextEdit,
};
use crate::storage::record_writer::RecordWriter;
use crate::storage::store::GroupChange;
use crate::storage::stored_group::StoredGroup;

pub use crate::shard::push::Mode;
#[cfg(test)]
pub(crate) use bodies::push_of;
#[cfg(not(test))]
use bodies::push_of;
use bodies::{NAMES, body};

/// The number of shards.
pub(crate) const CORES: usize = 2;
/// Snapshots that are kept after their collection.
const HELD_MAX: usize = 3;

/// A family of the reference implementation: its type, and its series with their values.
type ModelFamily = (MetricType, BTreeMap<String, String>);
type ModelGroup = BTreeMap<String, ModelFamily>;

/// Something that happens to a gateway. Numbers select from the lists below, modulo their length.
#[derive(Debug, Clone)]
pub enum Step {
    /// A push to a group.
    Push(Mode, usize, Vec<PushedFamily>),
    /// A delete of a group.
    Delete(usize),
    /// Begins a collection, takes the snapshot of its next core, or ends it.
    Collect,
    /// Drops the snapshots of the oldest collection.
    DropSnapshots,
    /// The store commits this many of the changes that were sent to it, oldest first.
    Commit(usize),
    /// The gateway starts again with what its store contains.
    Restart,
    /// A group gets a side shard, or returns to the main shard.
    Move(usize),
}

/// A family of a body.
#[derive(Debug, Clone)]
pub struct PushedFamily {
    /// The name.
    pub name: usize,
    /// The type.
    pub kind: usize,
    /// The help text; 0 for none.
    pub help: usize,
    /// The labels of its series.
    pub labels: BTreeSet<usize>,
    /// The number of further series, so that segments are split and joined.
    pub bulk: usize,
}

const KEYS: [&[(&str, &str)]; 7] = [
    &[("job", "a")],
    &[("job", "b")],
    &[("job", "a"), ("zone", "x")],
    &[("job", "b"), ("zone", "y")],
    &[("job", "a"), ("rack", "1")],
    &[("job", "a"), ("instance", "")],
    &[("job", "a"), ("rack", "1"), ("zone", "x")],
];
/// A gateway and the reference implementation, which do the same.
pub struct Comparison {
    gateway: Gateway,
    groups: BTreeMap<GroupKey, ModelGroup>,
    names: [&'static str; 4],
    /// The value of the next push's samples.
    value: usize,
}

impl Comparison {
    /// Both are empty. `names` selects the names of families: plain ones, or some that collide when they are escaped.
    pub fn new(names: usize) -> Self {
        Self { gateway: Gateway::new(), groups: BTreeMap::new(), names: NAMES[names % NAMES.len()], value: 0 }
    }

    /// Does the same in both and compares everything.
    ///
    /// # Panics
    /// There is a difference.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Collect => self.gateway.collect(),
            Step::DropSnapshots => self.gateway.drop_snapshots(),
            Step::Commit(count) => self.gateway.commit_some(*count),
            Step::Restart => self.restart(),
            Step::Move(number) => self.gateway.move_group(&key(*number)),
            Step::Delete(number) => {
                self.gateway.delete(&key(*number));
                self.groups.remove(&**key(*number).text());
            }
            Step::Push(mode, number, families) => self.push(*mode, &key(*number), families),
        }
        self.value += 1;
        self.compare();
    }

    fn push(&mut self, mode: Mode, key: &GroupingKey, families: &[PushedFamily]) {
        let Some(push) = push_of(mode, key, &body(self.names, families, self.value)) else { return };
        let is_admitted =
            key.empty_instance_variant().is_none_or(|variant| !self.groups.contains_key(&**variant.text()));
        let mut after = self.groups.clone();
        let group = after.entry(key.text().to_string()).or_default();
        if mode == Mode::Replace {
            group.clear();
        }
        let is_sound = if let Content::Families(_, rendered) = &push.content {
            for family in rendered.families() {
                let lines = series(rendered.text(family));
                group.insert(rendered.name(family).to_owned(), (family.kind, lines));
            }
            true
        } else {
            false
        };
        let is_accepted = is_sound && is_consistent(&after);
        match (self.gateway.push(push), is_admitted, is_accepted) {
            (Outcome::Rejected(_), false, _) => {}
            (Outcome::Applied, true, true) => self.groups = after,
            (Outcome::Inconsistent(_), true, false) => {
                self.groups.entry(key.text().to_string()).or_default();
            }
            (outcome, ..) => {
                panic!("{outcome:?}, but admitted: {is_admitted}, accepted: {is_accepted}; {after:#?}")
            }
        }
    }

    fn compare(&self) {
        let mut shown = self.gateway.shown();
        let times = shown.remove(PUSH_TIME).map_or(0, |(_, lines)| lines.len());
        assert_eq!(times, self.groups.len());
        shown.remove(FAILURE_TIME);
        let mut wanted: BTreeMap<String, ModelFamily> = BTreeMap::new();
        for (name, (kind, lines)) in self.groups.values().flatten() {
            wanted.entry(name.clone()).or_insert_with(|| (*kind, BTreeMap::new())).1.extend(lines.clone());
        }
        assert_eq!(shown, wanted);
        let counts = self.gateway.all_shards().map(Shard::counts);
        assert_eq!(counts.map(|counts| counts.groups).sum::<usize>(), self.groups.len());
    }

    /// Replaces the gateway by one that starts with its store, and compares both.
    fn restart(&mut self) {
        let gateway = &mut self.gateway;
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

    /// Ends everything that is running, and deletes all groups, which leaves nothing behind.
    ///
    /// # Panics
    /// Something is left.
    pub fn end(mut self) {
        let gateway = &mut self.gateway;
        while gateway.collection.is_some() {
            gateway.collect();
        }
        while !gateway.held.is_empty() {
            gateway.drop_snapshots();
        }
        for number in 0..KEYS.len() {
            gateway.delete(&key(number));
        }
        gateway.commit();
        assert!(gateway.store.is_empty() && gateway.sides.is_empty());
        assert!(gateway.registry.limited().all(|(_, total, _)| total == 0), "the totals are not zero");
        for shard in &mut gateway.shards {
            while shard.free_retired_series(1) {}
            assert_eq!(shard.oldest_retired_series(), None);
            let counts = shard.counts();
            assert_eq!((counts.groups, counts.series, counts.segments, counts.bytes), (0, 0, 0, 0));
        }
        assert_eq!(gateway.registry.len(), 2);
        // Each core may keep the set that was asked for last.
        assert!(gateway.registry.sets_len() <= CORES);
    }
}

/// The shards on which the groups live, in every process.
const HOMES: [usize; KEYS.len()] = [0, 1, 1, 0, 0, 0, 1];

fn key(number: usize) -> GroupingKey {
    static ALL: LazyLock<Vec<GroupingKey>> = LazyLock::new(|| {
        // The home core depends on a seed, so the names of jobs are chosen to have the same homes in every process. About one
        // suffix in 64 fits.
        let with_suffix = |suffix: usize| KEYS.map(|labels| key_of(labels, suffix)).into();
        let fits = |keys: &Vec<GroupingKey>| keys.iter().map(|key| key.home(CORES)).eq(HOMES);
        (0..).map(with_suffix).find(fits).expect("some suffix fits")
    });
    ALL[number % KEYS.len()].clone()
}

fn key_of(labels: &[(&str, &str)], suffix: usize) -> GroupingKey {
    GroupingKey::new(labels.iter().map(|(name, value)| {
        let value = if *name == "job" { format!("{value}{suffix}") } else { (*value).to_owned() };
        ((*name).to_owned(), value)
    }))
}

/// The series of rendered lines with their values.
fn series(text: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(text).expect("lines are UTF-8");
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(s, v)| (s.to_owned(), v.to_owned())).collect()
}

/// The rules, applied to all groups after the push.
fn is_consistent(groups: &BTreeMap<GroupKey, ModelGroup>) -> bool {
    let mut kinds: BTreeMap<&str, MetricType> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (name, (kind, lines)) in groups.values().flatten() {
        if *kinds.entry(name).or_insert(*kind) != *kind || !lines.keys().all(|line| seen.insert(line)) {
            return false;
        }
    }
    Escaping::ALL.into_iter().all(|scheme| {
        let shown = |name: &str| escape(name, scheme, NameKind::Metric).into_owned();
        let kinds_shown: BTreeMap<String, MetricType> =
            kinds.iter().map(|(name, kind)| (shown(name), *kind)).collect();
        let is_free = |(name, kind): (&String, &MetricType)| {
            let parts = Part::ALL.into_iter().filter(|part| part.is_part_of(*kind));
            parts.into_iter().all(|part| !kinds_shown.contains_key(&*format!("{name}{}", part.suffix())))
        };
        kinds_shown.len() == kinds.len() && kinds_shown.iter().all(is_free)
    })
}

type GroupKey = String;

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
    let Applied { shard, change, commit, outcome } = loop {
        match edit.advance(1) {
            ControlFlow::Break(applied) => break applied,
            ControlFlow::Continue(rest) => edit = rest,
        }
    };
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
    key: GroupingKey,
    pub(crate) shard: Shard,
}

/// A collection that is running.
pub(crate) struct Collection {
    running: RunningEpoch,
    snapshots: Vec<Vec<FamilySnapshot>>,
    /// The number of cores whose main shard has returned its snapshot.
    cores: usize,
    /// The side shards of the last of them that have not: their keys and numbers.
    sides: Vec<(Arc<str>, u32)>,
}

/// Shards with a store.
pub(crate) struct Gateway {
    pub(crate) registry: Arc<Registry>,
    /// The main shards.
    pub(crate) shards: Vec<Shard>,
    /// The side shards, by [`GroupingKey::without_empty_instance`].
    pub(crate) sides: BTreeMap<Arc<str>, Side>,
    /// A running collection.
    pub(crate) collection: Option<Collection>,
    /// Snapshots of earlier collections with the text that they had, as responses that are being sent.
    held: VecDeque<Vec<(FamilySnapshot, Vec<u8>)>>,
    /// The records of the store.
    store: BTreeMap<GroupKey, Vec<u8>>,
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
            shards,
            sides: BTreeMap::new(),
            collection: None,
            held: VecDeque::new(),
            store: BTreeMap::new(),
            commits: Vec::new(),
            now: 1.0,
        }
    }

    pub(crate) fn shard(&mut self, key: &GroupingKey) -> &mut Shard {
        match self.sides.get_mut(&key.without_empty_instance()) {
            Some(side) => &mut side.shard,
            None => &mut self.shards[key.home(CORES)],
        }
    }

    fn all_shards(&self) -> impl Iterator<Item = &Shard> {
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
        let mut lookups = Lookups::new(self.registry.clone(), push.clone(), families);
        loop {
            let (batch, _) = in_slices(1, async |pace| lookups.next_batch(pace).await);
            if batch.is_empty() {
                return None;
            }
            for lookup in batch {
                while let Some(reason) = self.look_up_one(&lookup) {
                    let Some(reason) = reason else { continue };
                    return Some(
                        match Shard::record_failure(self.shard(&push.key), push, attempt, reason, now) {
                            Decision::Apply(edit) => {
                                let stored = finish(&push.key, edit);
                                self.enqueue(stored)
                            }
                            Decision::Reject(rejection) => Outcome::Rejected(rejection),
                            Decision::WaitFor(_) | Decision::NeedsLookup(_) => {
                                unreachable!("a failure is recorded at once")
                            }
                        },
                    );
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

    fn commit_some(&mut self, count: usize) {
        let count = count.min(self.commits.len());
        self.registry.end_all(self.commits.drain(..count));
        for shard in &mut self.shards {
            shard.free_retired_series(1);
        }
    }

    /// A gateway that starts with the store of this one.
    pub(crate) fn restarted(&self) -> Self {
        let mut new = Self::new();
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
        new
    }

    /// Ends the collection and the commits. A push waits for nothing else.
    fn wait(&mut self, epoch: Epoch) {
        while self.collection.is_some() {
            self.collect();
        }
        self.commit();
        assert!(self.registry.is_past(epoch));
    }

    pub(crate) fn collect(&mut self) {
        match self.collection.take() {
            None => {
                let running = self.registry.begin_collection();
                self.collection = Some(Collection { running, snapshots: vec![], cores: 0, sides: vec![] });
            }
            Some(mut collection) if collection.cores < CORES || !collection.sides.is_empty() => {
                let snapshot_of =
                    |shard: &Shard| in_slices(1, async |pace| shard.snapshot_in_slices(pace).await).0;
                if let Some((key, number)) = collection.sides.pop() {
                    let side = self.sides.get(&key).filter(|side| side.shard.number() == number);
                    collection.snapshots.extend(side.map(|side| snapshot_of(&side.shard)));
                } else {
                    let home = collection.cores;
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
    }

    /// Drops the snapshots of the oldest collection, which must not have changed.
    fn drop_snapshots(&mut self) {
        for (family, text) in self.held.pop_front().into_iter().flatten() {
            assert_eq!(text_of(&family), text, "a snapshot of {} has changed", family.shared.name);
        }
    }

    /// What a scrape would show now.
    fn shown(&self) -> BTreeMap<String, (MetricType, BTreeMap<String, String>)> {
        let mut shown: BTreeMap<String, ModelFamily> = BTreeMap::new();
        for handed in self.all_shards().flat_map(Shard::snapshot) {
            let entry = shown.entry(handed.shared.name.to_string());
            let family = entry.or_insert_with(|| (handed.kind, BTreeMap::new()));
            for segment in handed.text.segments() {
                family.1.extend(series(segment.text()));
            }
        }
        shown
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
