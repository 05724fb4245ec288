//! Shards against a slow, obvious model: a list of groups, checked whole after every push.
//!
//! Several shards share a registry as cores do, and are driven as `cores::shard_task` drives them, but by one thread and with
//! collections that begin, collect core by core, and end between the pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use sluicegate_engine::record::Record;

use super::key::GroupingKey;
use super::push::{Content, Mode, Outcome, Push};
use super::registry::{Epoch, Registry, RunningEpoch};
use super::restore::StoredGroup;
use super::stored::ToStore;
use super::{
    Decision, DuplicateCheck, FAILURE_TIME, FamilySnapshot, PUSH_TIME, PushAttempt, Shard, TextEdit,
};
use crate::exposition::escape::Escaping;
use crate::exposition::escape::{NameKind, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::{NameRules, Part};
use crate::exposition::render::render;
use crate::exposition::text::parse;

const CORES: usize = 2;

/// A family of the model: its type and its series with their values.
type ModelFamily = (MetricType, BTreeMap<String, String>);
type ModelGroup = BTreeMap<String, ModelFamily>;

#[derive(Debug, Clone)]
enum Step {
    Push(Mode, usize, Vec<(usize, usize, BTreeSet<usize>)>),
    Delete(usize),
    /// Begins a collection, or lets the running one ask its next core, or ends it.
    Collect,
    /// The store has everything that was sent to it.
    Commit,
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
/// Names that are parts of each other, and names that become one, or parts of each other, where they are escaped.
const NAMES: [[&str; 4]; 2] = [["m", "m_count", "m_sum", "n"], ["m.x", "m_x", "m-x_count", "m_dot_x"]];
const TYPES: [&str; 4] = ["gauge", "counter", "histogram", "summary"];
const LABELS: [&str; 5] = ["", "zone=\"x\"", "rack=\"1\"", "rack=\"1\",zone=\"x\"", "zone=\"y\""];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let family = (0..4_usize, 0..TYPES.len(), prop::collection::btree_set(0..LABELS.len(), 1..3));
    let mode = prop_oneof![Just(Mode::Replace), Just(Mode::Merge)];
    let push = (mode, 0..KEYS.len(), prop::collection::vec(family, 0..3))
        .prop_map(|(mode, key, families)| Step::Push(mode, key, families));
    let step = prop_oneof![6 => push, 2 => (0..KEYS.len()).prop_map(Step::Delete), 3 => Just(Step::Collect), 1 => Just(Step::Commit)];
    prop::collection::vec(step, 1..60)
}

fn key(number: usize) -> GroupingKey {
    GroupingKey::new(KEYS[number].iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// A body as a job would write it; families of one name are merged by taking the first.
fn body(names: [&str; 4], families: &[(usize, usize, BTreeSet<usize>)], value: usize) -> String {
    let mut body = String::new();
    let mut named = BTreeSet::new();
    for (name, kind, labels) in families {
        if !named.insert(*name) {
            continue;
        }
        let (name, kind) = (names[*name], TYPES[*kind]);
        let is_plain = NameKind::Metric.is_plain(name);
        let quoted = if is_plain { name.to_owned() } else { format!("\"{name}\"") };
        body.push_str(&format!("# TYPE {quoted} {kind}\n"));
        let suffix = if matches!(kind, "histogram" | "summary") { "_count" } else { "" };
        for labels in labels {
            let start = if is_plain { format!("{name}{suffix}{{") } else { format!("{{\"{name}{suffix}\",") };
            body.push_str(&format!("{start}{}}} {value}\n", LABELS[*labels]));
        }
    }
    body
}

/// `None` for a body that cannot be read: one that names the parts of its own histogram.
fn push_of(mode: Mode, key: &GroupingKey, body: &str) -> Option<Push> {
    let families = parse(body.as_bytes(), NameRules::Utf8).ok()?;
    let content = match render(&families, &key.labels(), NameRules::Utf8, usize::MAX) {
        Ok(rendered) => Content::new(rendered),
        Err(problem) => Content::Refused(problem.to_string()),
    };
    Some(Push { key: key.clone(), mode, source: None, content })
}

/// Series of rendered lines: the part before the value, of all lines.
fn series(text: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(text).expect("lines are UTF-8");
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(s, v)| (s.to_owned(), v.to_owned())).collect()
}

/// The rules, told the long way: all groups, after the push.
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
            let parts = Part::ALL.into_iter().filter(|part| part.is_made_by(*kind));
            parts.into_iter().all(|part| !kinds_shown.contains_key(&*format!("{name}{}", part.suffix())))
        };
        kinds_shown.len() == kinds.len() && kinds_shown.iter().all(is_free)
    })
}

type GroupKey = String;

struct Gateway {
    registry: Arc<Registry>,
    shards: Vec<Shard>,
    /// A running collection and what it has so far.
    collection: Option<(RunningEpoch, Vec<Vec<FamilySnapshot>>)>,
    /// What the store would give back, and which commits it has not ended.
    store: BTreeMap<GroupKey, Vec<u8>>,
    commits: Vec<RunningEpoch>,
    now: f64,
}

impl Gateway {
    fn new() -> Self {
        let registry = Arc::new(Registry::new([
            (PUSH_TIME, MetricType::Gauge, "pushed"),
            (FAILURE_TIME, MetricType::Gauge, "failed"),
        ]));
        let shards = (0..CORES).map(|core| Shard::new(core as u32, registry.clone(), true)).collect();
        Self { registry, shards, collection: None, store: BTreeMap::new(), commits: Vec::new(), now: 1.0 }
    }

    fn shard(&mut self, key: &GroupingKey) -> &mut Shard {
        &mut self.shards[key.home(CORES)]
    }

    fn push(&mut self, push: Push) -> Outcome {
        let (push, mut tries) = (Arc::new(push), PushAttempt::default());
        self.now += 1.0;
        let now = self.now;
        for _ in 0..20 {
            match self.shard(&push.key).decide(&push, &mut tries, now) {
                Decision::Apply(work) => return self.carry_out(&push.key, work),
                Decision::WaitFor(epoch) => self.wait(epoch),
                Decision::NeedsLookup(families) => {
                    if let Some(outcome) = self.look_up(&push, &families, &mut tries) {
                        return outcome;
                    }
                    tries.looked_up = families;
                }
            }
        }
        panic!("a push never came to its end");
    }

    fn look_up(
        &mut self,
        push: &Arc<Push>,
        families: &[Arc<str>],
        tries: &mut PushAttempt,
    ) -> Option<Outcome> {
        let now = self.now;
        for lookup in self.shard(&push.key).duplicate_lookups(push, families) {
            let lookup = [lookup];
            loop {
                match self.shard(&lookup[0].key).find_duplicates(&lookup) {
                    DuplicateCheck::Free => break,
                    DuplicateCheck::Retired(epoch) => self.wait(epoch),
                    DuplicateCheck::Found(reason) => {
                        let work = self.shard(&push.key).reject(push, tries, reason, now);
                        return Some(self.carry_out(&push.key, work));
                    }
                }
            }
        }
        None
    }

    fn delete(&mut self, key: &GroupingKey) {
        let work = self.shard(key).delete(key);
        self.carry_out(key, work);
    }

    /// Changes the text, and sends the store what it has to hear.
    fn carry_out(&mut self, key: &GroupingKey, mut work: TextEdit) -> Outcome {
        let shard = self.shard(key);
        while !shard.step(&mut work, 1) {}
        let record = match shard.to_store(&work, Vec::new()) {
            ToStore::Nothing => return work.outcome,
            ToStore::Delete => None,
            ToStore::Put(mut writing) => {
                while !shard.write_record(&mut writing, 1) {}
                Some(writing.into_bytes())
            }
        };
        let text = key.text().to_string();
        match record {
            Some(record) => self.store.insert(text, record),
            None => self.store.remove(&text),
        };
        self.commits.extend(work.commit);
        work.outcome
    }

    fn commit(&mut self) {
        self.registry.end_all(self.commits.drain(..));
    }

    /// A gateway that starts with what the store of this one holds.
    fn restarted(&self) -> Self {
        let mut new = Self::new();
        for (text, record) in &self.store {
            let record = Record::decode(record).expect("was encoded");
            let mut again = Vec::new();
            record.encode(&mut again).expect("was encoded");
            assert_eq!(&again, &self.store[text], "written in pieces as in one");
            let key = GroupingKey::from_text(text.as_str().into());
            new.shard(&key)
                .restore(&StoredGroup::new(text, record))
                .expect("groups that were accepted do not contradict each other");
        }
        new.shards.iter_mut().for_each(Shard::end_restoring);
        let mut hashes: Vec<u64> = new.shards.iter().flat_map(Shard::series_hashes).collect();
        hashes.sort_unstable();
        assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "no series is there twice");
        new.store.clone_from(&self.store);
        new
    }

    /// What a push waits for is that the collection and the commits end; nothing else may make it wait.
    fn wait(&mut self, epoch: Epoch) {
        while self.collection.is_some() {
            self.collect();
        }
        self.commit();
        assert!(self.registry.is_past(epoch));
    }

    fn collect(&mut self) {
        match self.collection.take() {
            None => self.collection = Some((self.registry.begin_collection(), Vec::new())),
            Some((running, mut handed)) if handed.len() < CORES => {
                handed.push(self.shards[handed.len()].snapshot());
                self.collection = Some((running, handed));
            }
            Some((running, handed)) => {
                drop(running);
                check_cut(&handed);
            }
        }
    }

    /// Everything a scrape would show now.
    fn shown(&self) -> BTreeMap<String, (MetricType, BTreeMap<String, String>)> {
        let mut shown: BTreeMap<String, ModelFamily> = BTreeMap::new();
        for handed in self.shards.iter().flat_map(Shard::snapshot) {
            let entry = shown.entry(handed.shared.name.to_string());
            let family = entry.or_insert_with(|| (handed.kind, BTreeMap::new()));
            for segment in handed.text.segments() {
                family.1.extend(series(segment.text()));
            }
        }
        shown
    }
}

/// A scrape that was collected while pushes went on shows one type a name, no name that is a part of another, and no series
/// twice.
fn check_cut(cores: &[Vec<FamilySnapshot>]) {
    let mut groups: BTreeMap<GroupKey, ModelGroup> = BTreeMap::new();
    for (core, handed) in cores.iter().enumerate() {
        for family in handed {
            let text: Vec<u8> = family.text.segments().flat_map(|segment| segment.text().to_vec()).collect();
            let group = groups.entry(core.to_string()).or_default();
            group.insert(family.shared.name.to_string(), (family.kind, series(&text)));
        }
    }
    assert!(is_consistent(&groups), "a scrape shows what never was: {groups:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn shards_do_as_the_model(steps in steps(), names in prop::sample::select(&NAMES[..])) {
        let mut gateway = Gateway::new();
        let mut model: BTreeMap<GroupKey, ModelGroup> = BTreeMap::new();
        let steps_are_odd = steps.len() % 2 == 1;
        for (value, step) in steps.into_iter().enumerate() {
            match step {
                Step::Collect => gateway.collect(),
                Step::Commit => gateway.commit(),
                Step::Delete(number) => {
                    gateway.delete(&key(number));
                    model.remove(&**key(number).text());
                }
                Step::Push(mode, number, families) => {
                    let key = key(number);
                    let Some(push) = push_of(mode, &key, &body(names, &families, value)) else { continue };
                    let is_admitted = key.empty_instance_variant().is_none_or(|twin| !model.contains_key(&**twin.text()));
                    let mut after = model.clone();
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
                    let accepted = is_sound && is_consistent(&after);
                    match (gateway.push(push), is_admitted, accepted) {
                        (Outcome::NotAdmitted(_), false, _) => {}
                        (Outcome::Done, true, true) => model = after,
                        (Outcome::Refused(_), true, false) => {
                            model.entry(key.text().to_string()).or_default();
                        }
                        (outcome, ..) => prop_assert!(
                            false, "{outcome:?}, but admitted: {is_admitted}, accepted: {accepted}; {:#?}", after
                        ),
                    }
                }
            }
            let mut shown = gateway.shown();
            let times = shown.remove(PUSH_TIME).map_or(0, |(_, lines)| lines.len());
            prop_assert_eq!(times, model.len());
            shown.remove(FAILURE_TIME);
            let mut wanted: BTreeMap<String, ModelFamily> = BTreeMap::new();
            for (name, (kind, lines)) in model.values().flatten() {
                wanted.entry(name.clone()).or_insert_with(|| (*kind, BTreeMap::new())).1.extend(lines.clone());
            }
            prop_assert_eq!(shown, wanted);
            let counts = gateway.shards.iter().map(Shard::counts);
            prop_assert_eq!(counts.map(|counts| counts.groups).sum::<usize>(), model.len());
        }
        while gateway.collection.is_some() {
            gateway.collect();
        }
        gateway.commit();
        let restarted = gateway.restarted();
        prop_assert_eq!(restarted.shown(), gateway.shown());
        let counts = |gateway: &Gateway| -> Vec<(usize, usize, usize)> {
            gateway.shards.iter().map(Shard::counts).map(|c| (c.groups, c.series, c.bytes)).collect()
        };
        prop_assert_eq!(counts(&restarted), counts(&gateway));
        prop_assert_eq!(restarted.registry.len(), gateway.registry.len());
        let mut gateway = if steps_are_odd { restarted } else { gateway };
        // Nothing is left behind when all groups are gone.
        for number in 0..KEYS.len() {
            gateway.delete(&key(number));
        }
        gateway.commit();
        prop_assert!(gateway.store.is_empty());
        for shard in &gateway.shards {
            let counts = shard.counts();
            prop_assert_eq!((counts.groups, counts.series, counts.segments, counts.bytes), (0, 0, 0, 0));
        }
        prop_assert_eq!(gateway.registry.len(), 2);
    }
}

fn pairs(job: &str, zone: Option<&str>) -> GroupingKey {
    let zone = zone.map(|zone| ("zone".to_owned(), zone.to_owned()));
    GroupingKey::new([("job".to_owned(), job.to_owned())].into_iter().chain(zone))
}

fn put(key: &GroupingKey, body: &str) -> Push {
    push_of(Mode::Replace, key, body).expect("is readable")
}

/// A series given up on a core that was already collected must not come back as another group's on a core that was not.
#[test]
fn a_ghost_keeps_its_twin_out_of_the_same_scrape() {
    let job = (0..)
        .map(|number| format!("job{number}"))
        .find(|job| (pairs(job, None).home(CORES), pairs(job, Some("x")).home(CORES)) == (0, 1));
    let job = job.expect("some job has its groups on both cores");
    let mut gateway = Gateway::new();
    // Both sets of label names stay in the family, whatever happens to the twins.
    for key in [pairs("other", None), pairs("other", Some("y"))] {
        assert_eq!(gateway.push(put(&key, "m{a=\"1\"} 1\n")), Outcome::Done);
    }
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"x\"} 1\n")), Outcome::Done);
    let twin = || put(&pairs(&job, Some("x")), "m 1\n");
    assert!(matches!(gateway.push(twin()), Outcome::Refused(_)), "the twin is there");
    gateway.collect();
    gateway.collect();
    gateway.delete(&pairs(&job, None));
    assert!(gateway.collection.is_some());
    assert_eq!(gateway.push(twin()), Outcome::Done);
    assert!(gateway.collection.is_none(), "the push waited for the scrape that shows the ghost");
}

/// So must one whose whole set of label names left the family with it: the other set was then alone, and its groups, which had
/// been there before, took new series without looking.
#[test]
fn a_ghost_outlives_its_set_of_label_names() {
    let job = (0..)
        .map(|number| format!("job{number}"))
        .find(|job| (pairs(job, Some("x")).home(CORES), pairs(job, None).home(CORES)) == (0, 1));
    let job = job.expect("some job has its groups on both cores");
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&pairs(&job, Some("x")), "m 1\n")), Outcome::Done);
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"y\"} 1\n")), Outcome::Done);
    gateway.commit();
    gateway.collect();
    gateway.collect();
    gateway.delete(&pairs(&job, Some("x")));
    assert!(gateway.collection.is_some());
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"x\"} 1\n")), Outcome::Done);
    assert!(gateway.collection.is_none(), "the push waited for the scrape that shows the ghost");
}

/// What a group gave up is not another core's before the store has the one who gave it up: else a store could come back with both.
#[test]
fn a_claim_waits_for_the_commit_that_gave_up() {
    let job_on = |wanted: usize| {
        let jobs = (0..).map(|number| format!("job{number}"));
        jobs.into_iter()
            .find(|job| pairs(job, None).home(CORES) == wanted)
            .expect("some job has its group there")
    };
    let (first, second) = (pairs(&job_on(0), None), pairs(&job_on(1), None));
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&first, "# TYPE m gauge\nm 1\n")), Outcome::Done);
    gateway.delete(&first);
    assert_eq!(gateway.commits.len(), 1, "giving a name up is committed before others may have it");
    let claim = Arc::new(put(&second, "# TYPE m counter\nm 1\n"));
    let mut tries = PushAttempt::default();
    let Decision::WaitFor(epoch) = gateway.shard(&second).decide(&claim, &mut tries, 9.0) else {
        panic!("the name was taken before the store had the delete");
    };
    assert!(!gateway.registry.is_past(epoch));
    gateway.commit();
    assert!(gateway.registry.is_past(epoch));
    assert!(matches!(gateway.shard(&second).decide(&claim, &mut tries, 9.0), Decision::Apply(_)));
    // The core itself sends in order, so it does not wait.
    assert_eq!(gateway.push(put(&first, "# TYPE n gauge\nn 1\n")), Outcome::Done);
    gateway.delete(&first);
    let again = Arc::new(put(&first, "# TYPE n counter\nn 1\n"));
    assert!(matches!(gateway.shard(&first).decide(&again, &mut tries, 9.0), Decision::Apply(_)));
}
