//! Shards compared with a slow, simple reference implementation: a map of groups, checked completely after every push.
//!
//! Several shards share a registry, as the cores do. The test drives them as `cores::shard_task` does, but on one thread, with
//! collections that begin, collect core by core, and end between the pushes, and with a store that commits late.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use sluicegate_engine::record::Record;

use super::key::GroupingKey;
use super::outcome::Outcome;
use super::push::{Content, Mode, Push};
use super::registry::{Epoch, Registry, RunningEpoch};
use super::{
    Applied, Change, Decision, DuplicateCheck, FAILURE_TIME, FamilySnapshot, PUSH_TIME, Persistence,
    PushAttempt, Shard, TextEdit,
};
use crate::exposition::escape::Escaping;
use crate::exposition::escape::{NameKind, escape};
use crate::exposition::model::MetricType;
use crate::exposition::names::{NameRules, Part};
use crate::exposition::render::{RenderError, render};
use crate::exposition::text::parse;
use crate::storage::record_writer::RecordWriter;
use crate::storage::stored_group::StoredGroup;

const CORES: usize = 2;

/// A family of the reference implementation: its type, and its series with their values.
type ModelFamily = (MetricType, BTreeMap<String, String>);
type ModelGroup = BTreeMap<String, ModelFamily>;

#[derive(Debug, Clone)]
enum Step {
    Push(Mode, usize, Vec<(usize, usize, BTreeSet<usize>)>),
    Delete(usize),
    /// Begins a collection, takes the snapshot of its next core, or ends it.
    Collect,
    /// The store commits everything that was sent to it.
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
/// Names that are parts of each other, and names that collide or are parts of each other when escaped.
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

/// A body in the text format. Of several families with one name, the first is used.
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

/// `None` if the body does not parse, because a name is a part of its own histogram.
fn push_of(mode: Mode, key: &GroupingKey, body: &str) -> Option<Push> {
    let families = parse(body.as_bytes(), NameRules::Utf8).ok()?;
    let content = match render(&families, &key.labels(), NameRules::Utf8, usize::MAX) {
        Ok(rendered) => Content::new(rendered),
        Err(RenderError::Inconsistent(reason)) => Content::Inconsistent(reason),
        Err(RenderError::TooLarge) => unreachable!("there is no limit"),
    };
    Some(Push { key: key.clone(), mode, source: None, content })
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
    /// `None` deletes the group.
    record: Option<Vec<u8>>,
    commit: Option<RunningEpoch>,
    outcome: Outcome,
}

/// Changes the text of a command and writes the record of its group, both in the smallest slices.
fn finish(key: &GroupingKey, mut edit: TextEdit<&mut Shard>) -> StoredChange {
    let Applied { shard, change, commit, outcome } = loop {
        match edit.advance(1) {
            ControlFlow::Break(applied) => break applied,
            ControlFlow::Continue(rest) => edit = rest,
        }
    };
    let record = match change {
        Change::Delete => None,
        Change::Put(group) => {
            let mut writer = RecordWriter::new(shard, group, Vec::new());
            loop {
                match writer.advance(1) {
                    ControlFlow::Break((_, record)) => break Some(record),
                    ControlFlow::Continue(rest) => writer = rest,
                }
            }
        }
    };
    StoredChange { key: key.text().to_string(), record, commit, outcome }
}

struct Gateway {
    registry: Arc<Registry>,
    shards: Vec<Shard>,
    /// A running collection and its snapshots so far.
    collection: Option<(RunningEpoch, Vec<Vec<FamilySnapshot>>)>,
    /// The records of the store.
    store: BTreeMap<GroupKey, Vec<u8>>,
    /// Commits that have not ended.
    commits: Vec<RunningEpoch>,
    now: f64,
}

impl Gateway {
    fn new() -> Self {
        let registry = Arc::new(Registry::new([
            (PUSH_TIME, MetricType::Gauge, "pushed"),
            (FAILURE_TIME, MetricType::Gauge, "failed"),
        ]));
        let shards =
            (0..CORES).map(|core| Shard::new(core as u32, registry.clone(), Persistence::Stored)).collect();
        Self { registry, shards, collection: None, store: BTreeMap::new(), commits: Vec::new(), now: 1.0 }
    }

    fn shard(&mut self, key: &GroupingKey) -> &mut Shard {
        &mut self.shards[key.home(CORES)]
    }

    fn push(&mut self, push: Push) -> Outcome {
        let (push, mut attempt) = (Arc::new(push), PushAttempt::default());
        self.now += 1.0;
        let now = self.now;
        for _ in 0..20 {
            match Shard::decide(self.shard(&push.key), &push, &mut attempt, now) {
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
        for lookup in self.shard(&push.key).duplicate_lookups(push, families) {
            let lookup = [lookup];
            loop {
                match self.shard(&lookup[0].key).find_duplicates(&lookup) {
                    DuplicateCheck::Free => break,
                    DuplicateCheck::Retired(epoch) => self.wait(epoch),
                    DuplicateCheck::Found(reason) => {
                        let edit = Shard::record_failure(self.shard(&push.key), push, attempt, reason, now);
                        let stored = finish(&push.key, edit);
                        return Some(self.enqueue(stored));
                    }
                }
            }
        }
        None
    }

    fn delete(&mut self, key: &GroupingKey) {
        let stored = finish(key, Shard::delete(self.shard(key), key));
        self.enqueue(stored);
    }

    /// Sends a change to the store.
    fn enqueue(&mut self, change: StoredChange) -> Outcome {
        match change.record {
            Some(record) => self.store.insert(change.key, record),
            None => self.store.remove(&change.key),
        };
        self.commits.extend(change.commit);
        change.outcome
    }

    fn commit(&mut self) {
        self.registry.end_all(self.commits.drain(..));
    }

    /// A gateway that starts with the store of this one.
    fn restarted(&self) -> Self {
        let mut new = Self::new();
        for (text, record) in &self.store {
            let record = Record::decode(record).expect("was encoded");
            let mut again = Vec::new();
            record.encode(&mut again).expect("was encoded");
            assert_eq!(&again, &self.store[text], "written in slices as at once");
            let key = GroupingKey::from_text(text.as_str().into());
            StoredGroup::new(text, record)
                .load(new.shard(&key))
                .expect("accepted groups do not contradict each other");
        }
        new.shards.iter_mut().for_each(Shard::end_loading);
        let mut hashes: Vec<u64> = new.shards.iter().flat_map(Shard::series_hashes).collect();
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

    fn collect(&mut self) {
        match self.collection.take() {
            None => self.collection = Some((self.registry.begin_collection(), Vec::new())),
            Some((running, mut handed)) if handed.len() < CORES => {
                handed.push(self.shards[handed.len()].snapshot());
                self.collection = Some((running, handed));
            }
            Some((running, handed)) => {
                drop(running);
                check_snapshot(&handed);
            }
        }
    }

    /// What a scrape would show now.
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

/// Checks a scrape that was collected while pushes continued: each name has one type and is not a part of another, and no series
/// occurs twice.
fn check_snapshot(cores: &[Vec<FamilySnapshot>]) {
    let mut groups: BTreeMap<GroupKey, ModelGroup> = BTreeMap::new();
    for (core, handed) in cores.iter().enumerate() {
        for family in handed {
            let text: Vec<u8> = family.text.segments().flat_map(|segment| segment.text().to_vec()).collect();
            let group = groups.entry(core.to_string()).or_default();
            group.insert(family.shared.name.to_string(), (family.kind, series(&text)));
        }
    }
    assert!(is_consistent(&groups), "a scrape shows a state that never existed: {groups:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn shards_behave_like_the_reference_implementation(steps in steps(), names in prop::sample::select(&NAMES[..])) {
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
                    let is_admitted = key.empty_instance_variant().is_none_or(|variant| !model.contains_key(&**variant.text()));
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
                        (Outcome::Rejected(_), false, _) => {}
                        (Outcome::Applied, true, true) => model = after,
                        (Outcome::Inconsistent(_), true, false) => {
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
        // Deleting all groups leaves nothing behind.
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
        // Each core may keep the set that was asked for last.
        prop_assert!(gateway.registry.sets_len() <= CORES);
    }
}

fn pairs(job: &str, zone: Option<&str>) -> GroupingKey {
    let zone = zone.map(|zone| ("zone".to_owned(), zone.to_owned()));
    GroupingKey::new([("job".to_owned(), job.to_owned())].into_iter().chain(zone))
}

fn put(key: &GroupingKey, body: &str) -> Push {
    push_of(Mode::Replace, key, body).expect("is readable")
}

/// Clients choose label names, so a set must not outlive the groups, the announcements and the retired slots that use it.
#[test]
fn sets_of_label_names_are_freed_with_their_last_group() {
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&pairs("stays", None), "m 1\n")), Outcome::Applied);
    for number in 0..500 {
        let labels = [("job".to_owned(), "a".to_owned()), (format!("name{number}"), "x".to_owned())];
        let key = GroupingKey::new(labels);
        if number % 3 == 0 {
            gateway.collect();
        }
        assert_eq!(gateway.push(put(&key, "m 1\n")), Outcome::Applied);
        gateway.delete(&key);
        if number % 2 == 0 {
            gateway.commit();
        }
        // The set that stays, one that each core has not released yet, and those that a commit or collection retires.
        assert!(gateway.registry.sets_len() <= 1 + CORES + 3, "{} sets", gateway.registry.sets_len());
    }
}

/// A series released on a core that was already collected must not appear as another group's series on a core that was not.
#[test]
fn a_retired_series_keeps_its_duplicate_out_of_the_same_scrape() {
    let job = (0..)
        .map(|number| format!("job{number}"))
        .find(|job| (pairs(job, None).home(CORES), pairs(job, Some("x")).home(CORES)) == (0, 1));
    let job = job.expect("some job has its groups on both cores");
    let mut gateway = Gateway::new();
    // Keeps both sets of label names in the family.
    for key in [pairs("other", None), pairs("other", Some("y"))] {
        assert_eq!(gateway.push(put(&key, "m{a=\"1\"} 1\n")), Outcome::Applied);
    }
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"x\"} 1\n")), Outcome::Applied);
    let duplicate = || put(&pairs(&job, Some("x")), "m 1\n");
    assert!(matches!(gateway.push(duplicate()), Outcome::Inconsistent(_)), "the series exists");
    gateway.collect();
    gateway.collect();
    gateway.delete(&pairs(&job, None));
    assert!(gateway.collection.is_some());
    assert_eq!(gateway.push(duplicate()), Outcome::Applied);
    assert!(gateway.collection.is_none(), "the push waited for the scrape that shows the retired series");
}

/// The same, if the whole set of label names left the family with the series. The other set was then alone, and its groups once
/// added new series without a look-up.
#[test]
fn a_retired_series_outlives_its_set_of_label_names() {
    let job = (0..)
        .map(|number| format!("job{number}"))
        .find(|job| (pairs(job, Some("x")).home(CORES), pairs(job, None).home(CORES)) == (0, 1));
    let job = job.expect("some job has its groups on both cores");
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&pairs(&job, Some("x")), "m 1\n")), Outcome::Applied);
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"y\"} 1\n")), Outcome::Applied);
    gateway.commit();
    gateway.collect();
    gateway.collect();
    gateway.delete(&pairs(&job, Some("x")));
    assert!(gateway.collection.is_some());
    assert_eq!(gateway.push(put(&pairs(&job, None), "m{zone=\"x\"} 1\n")), Outcome::Applied);
    assert!(gateway.collection.is_none(), "the push waited for the scrape that shows the retired series");
}

/// Otherwise a store could contain both the group that released a name and the one that claimed it.
#[test]
fn a_claim_waits_for_the_commit_of_the_release() {
    let job_on = |wanted: usize| {
        let jobs = (0..).map(|number| format!("job{number}"));
        jobs.into_iter()
            .find(|job| pairs(job, None).home(CORES) == wanted)
            .expect("some job has its group on that core")
    };
    let (first, second) = (pairs(&job_on(0), None), pairs(&job_on(1), None));
    let mut gateway = Gateway::new();
    assert_eq!(gateway.push(put(&first, "# TYPE m gauge\nm 1\n")), Outcome::Applied);
    gateway.delete(&first);
    assert_eq!(gateway.commits.len(), 1, "the released name is reserved until the commit");
    let claim = Arc::new(put(&second, "# TYPE m counter\nm 1\n"));
    let mut attempt = PushAttempt::default();
    let Decision::WaitFor(epoch) = Shard::decide(gateway.shard(&second), &claim, &mut attempt, 9.0) else {
        panic!("the name was claimed before the delete was committed");
    };
    assert!(!gateway.registry.is_past(epoch));
    gateway.commit();
    assert!(gateway.registry.is_past(epoch));
    let decision = Shard::decide(gateway.shard(&second), &claim, &mut attempt, 9.0);
    assert!(matches!(decision, Decision::Apply(_)));
    // The core itself need not wait, because its changes reach the store in order.
    assert_eq!(gateway.push(put(&first, "# TYPE n gauge\nn 1\n")), Outcome::Applied);
    gateway.delete(&first);
    let again = Arc::new(put(&first, "# TYPE n counter\nn 1\n"));
    let decision = Shard::decide(gateway.shard(&first), &again, &mut attempt, 9.0);
    assert!(matches!(decision, Decision::Apply(_)));
}
