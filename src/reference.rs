//! A slow, simple reference implementation of a gateway: a map of groups, checked completely after every push. Tests and the fuzz
//! target `shard` compare shards with it.
//!
//! Several shards share a registry, as the cores do. [`Gateway`] drives them as `cores::shard_task` does, but on one thread, with
//! collections that begin, collect core by core, and end between the pushes, with snapshots that outlive their collection, and
//! with a store that commits late. [`Comparison`] plays the same steps on both and panics at the first difference.

mod bodies;
mod gateway;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use crate::exposition::escape::{Escaping, NameKind, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::Part;
use crate::shard::Shard;
use crate::shard::key::GroupingKey;
use crate::shard::limits::StateLimits;
use crate::shard::outcome::Outcome;
use crate::shard::push::Content;

pub use crate::shard::push::Mode;
#[cfg(test)]
pub(crate) use bodies::push_of;
#[cfg(not(test))]
use bodies::push_of;
use bodies::{NAMES, body};
#[cfg(not(test))]
use gateway::Gateway;
#[cfg(test)]
pub(crate) use gateway::{Gateway, in_slices};

/// The number of shards.
pub(crate) const CORES: usize = 2;
/// Snapshots that are kept after their collection.
const HELD_MAX: usize = 3;
/// How many bodies are remembered for [`Step::Known`].
const KNOWN_MAX: usize = 6;

/// A family of the reference implementation: its type, and its series with their values.
type ModelFamily = (MetricType, BTreeMap<String, String>);
type ModelGroup = BTreeMap<String, ModelFamily>;

/// Something that happens to a gateway. Numbers select from the lists below, modulo their length.
#[derive(Debug, Clone)]
pub enum Step {
    /// A push to a group.
    Push(Mode, usize, Vec<PushedFamily>),
    /// The last push to the group with other values, so that shapes are known. The first push to another group if there was none.
    Again(Mode, usize),
    /// One of the latest bodies, of any group, with other values, so that a group changes between shapes.
    Known(Mode, usize, usize),
    /// The last push to the group with a label more or less in one of its families, and other values. Does nothing if there was none.
    Vary(Mode, usize, usize, usize),
    /// A delete of a group.
    Delete(usize),
    /// Begins a collection, takes the snapshot of its next core, or ends it.
    Collect,
    /// Merges the pending numbers of a segment on each core.
    Merge,
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

const KEYS: [&[(&str, &str)]; 9] = [
    &[("job", "a")],
    &[("job", "b")],
    &[("job", "a"), ("zone", "x")],
    &[("job", "b"), ("zone", "y")],
    &[("job", "a"), ("rack", "1")],
    &[("job", "a"), ("instance", "")],
    &[("job", "a"), ("rack", "1"), ("zone", "x")],
    &[("job", "c")],
    &[("job", "d")],
];
/// The groups that have the label names of the first one. Three of them are on one core.
#[cfg(test)]
pub(crate) const OF_ONE_SET: [usize; 4] = [0, 1, 7, 8];

/// A gateway and the reference implementation, which do the same.
pub struct Comparison {
    gateway: Gateway,
    /// A gateway that parses and renders every body, to which the other one must be equal byte for byte.
    without_shapes: Gateway,
    groups: BTreeMap<GroupKey, ModelGroup>,
    names: [&'static str; 4],
    /// What the groups had since the running collection began.
    history: Vec<BTreeMap<GroupKey, ModelGroup>>,
    /// The families of the last push to a group, by its number.
    last: BTreeMap<usize, Vec<PushedFamily>>,
    /// The families of the latest pushes to any group.
    known: VecDeque<Vec<PushedFamily>>,
    /// The value of the next push's samples.
    value: usize,
    /// After so many steps, everything is compared.
    compare_every: usize,
}

impl Comparison {
    /// Both are empty. `names` selects the names of families: plain ones, or some that collide when they are escaped.
    pub fn new(names: usize) -> Self {
        Self::of(Gateway::new, names)
    }

    /// The same without limits on the whole.
    pub fn without_limits(names: usize) -> Self {
        Self::of(|| Gateway::with_limits(StateLimits::default()), names)
    }

    fn of(new: impl Fn() -> Gateway, names: usize) -> Self {
        let names = NAMES[names % NAMES.len()];
        let (gateway, without_shapes) = (new(), new().without_shapes());
        Self {
            gateway,
            without_shapes,
            groups: BTreeMap::new(),
            history: Vec::new(),
            names,
            last: BTreeMap::new(),
            known: VecDeque::new(),
            value: 0,
            compare_every: 1,
        }
    }

    /// Compares everything only after so many steps, and outcomes, records and limits after each one. Comparing takes most of the time.
    #[must_use]
    pub fn comparing_every(self, steps: usize) -> Self {
        Self { compare_every: steps, ..self }
    }

    /// Does the same in both and compares everything.
    ///
    /// # Panics
    /// There is a difference.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Collect => {
                // Both collections are equally far.
                if self.gateway.collect() {
                    self.without_shapes.collect();
                }
            }
            Step::Merge => self.both(Gateway::merge),
            Step::DropSnapshots => self.both(Gateway::drop_snapshots),
            Step::Commit(count) => self.both(|gateway| gateway.commit_some(*count)),
            Step::Restart => self.both(Gateway::restart),
            Step::Move(number) => self.both(|gateway| gateway.move_group(&key(*number))),
            Step::Delete(number) => {
                self.both(|gateway| gateway.delete(&key(*number)));
                self.groups.remove(&**key(*number).text());
            }
            Step::Push(mode, number, families) => self.push_and_remember(*mode, *number, families),
            Step::Known(mode, number, body) => {
                if let Some(families) = self.known.get(body % self.known.len().max(1)).cloned() {
                    self.push_and_remember(*mode, *number, &families);
                }
            }
            Step::Vary(mode, number, family, label) => {
                let Some(last) = self.last.get(&(*number % KEYS.len())).filter(|last| !last.is_empty())
                else {
                    return;
                };
                let mut families = last.clone();
                let family = family % families.len();
                let labels = &mut families[family].labels;
                if !labels.remove(label) {
                    labels.insert(*label);
                }
                self.push_and_remember(*mode, *number, &families);
            }
            Step::Again(mode, number) => {
                let last = self.last.get(&(*number % KEYS.len())).or_else(|| self.last.values().next());
                if let Some(families) = last.cloned() {
                    self.push(*mode, &key(*number), &families);
                }
            }
        }
        self.value += 1;
        self.compare_scrape();
        if self.value.is_multiple_of(self.compare_every) {
            self.compare();
        } else {
            self.compare_quickly();
        }
    }

    fn push_and_remember(&mut self, mode: Mode, number: usize, families: &[PushedFamily]) {
        self.push(mode, &key(number), families);
        self.last.insert(number % KEYS.len(), families.to_vec());
        self.known.push_back(families.to_vec());
        if self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
    }

    fn both(&mut self, mut act: impl FnMut(&mut Gateway)) {
        act(&mut self.gateway);
        act(&mut self.without_shapes);
    }

    fn push(&mut self, mode: Mode, key: &GroupingKey, families: &[PushedFamily]) {
        let body = body(self.names, families, self.value);
        let Some(push) = push_of(mode, key, &body) else { return };
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
        let reference = push_of(mode, key, &body).map(|push| self.without_shapes.push_body(push, &body));
        let outcome = self.gateway.push_body(push, &body);
        assert_eq!(Some(&outcome), reference.as_ref());
        match (outcome, is_admitted, is_accepted) {
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

    /// A scrape shows each group as it was at a moment between its beginning and its end: every push has other values.
    fn compare_scrape(&mut self) {
        if self.gateway.scrape.is_some() || self.gateway.collection.is_some() {
            self.history.push(self.groups.clone());
        }
        let Some(scrape) = self.gateway.scrape.take() else { return };
        let samples_of =
            |groups: &BTreeMap<GroupKey, ModelGroup>, key: &GroupKey| -> BTreeMap<String, String> {
                groups.get(key).into_iter().flatten().flat_map(|(_, (_, lines))| lines.clone()).collect()
            };
        let keys: BTreeSet<_> = self.history.iter().flat_map(BTreeMap::keys).collect();
        for key in keys {
            let states: BTreeSet<_> = self.history.iter().map(|groups| samples_of(groups, key)).collect();
            let is_shown = |(series, value): &(&String, &String)| scrape.get(*series) == Some(value);
            let shown = states.iter().flatten().filter(is_shown);
            let shown = shown.map(|(series, value)| (series.clone(), value.clone())).collect();
            assert!(states.contains(&shown), "a scrape shows a part of a push: {shown:?} of {states:?}");
        }
        self.history.clear();
    }

    fn compare_quickly(&self) {
        assert_eq!(self.gateway.records(), self.without_shapes.records());
        assert!(self.gateway.registry.limited().eq(self.without_shapes.registry.limited()));
        let counts = self.gateway.all_shards().map(Shard::counts);
        assert_eq!(counts.map(|counts| counts.groups).sum::<usize>(), self.groups.len());
    }

    fn compare(&self) {
        self.compare_quickly();
        assert!(self.gateway.all_groups().eq(self.without_shapes.all_groups()));
        if let Some(text) = self.gateway.all_text() {
            assert_eq!(Some(text), self.without_shapes.all_text());
        }
        let shown = self.gateway.shown();
        let mut wanted: BTreeMap<String, ModelFamily> = BTreeMap::new();
        for (name, (kind, lines)) in self.groups.values().flatten() {
            wanted.entry(name.clone()).or_insert_with(|| (*kind, BTreeMap::new())).1.extend(lines.clone());
        }
        assert_eq!(shown, wanted);
    }

    /// Ends everything that is running, and deletes all groups, which leaves nothing behind.
    ///
    /// # Panics
    /// Something is left.
    pub fn end(mut self) {
        self.compare();
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
        gateway.merge_all();
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
const HOMES: [usize; KEYS.len()] = [0, 1, 1, 0, 0, 0, 1, 0, 0];

fn key(number: usize) -> GroupingKey {
    static ALL: LazyLock<Vec<GroupingKey>> = LazyLock::new(|| {
        // The home core depends on a seed, so the names of jobs are chosen to have the same homes in every process. About one
        // suffix in 256 fits.
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
