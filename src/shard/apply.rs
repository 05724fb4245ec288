//! Applying what was planned: the tables at once, the text in slices.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::exposition::number::write_float;

use super::duplicates::RetiredSeries;
use super::key::GroupingKey;
use super::list::Refusal;
use super::plan::{PushAttempt, Step, find_held};
use super::push::{Mode, Outcome, Push, PushedFamily};
use super::registry::{RunningEpoch, SetId, SharedFamily};
use super::segments::{NewLines, RUN_BYTES_MAX, own_segments};
use super::series::has_new_series;
use super::stored::{ToStore, Writing};
use super::tables::{Group, GroupFamily, Number};
use super::{FAILURE_TIME_NUMBER, PUSH_TIME_NUMBER, Shard};

/// Text still to be changed by a command that is decided. Until [`Shard::step`] says that it ended, the shard must not be asked
/// for anything else: its lines are half of the one and half of the other state.
#[derive(Debug)]
pub struct TextEdit {
    group: Number,
    splices: VecDeque<Splice>,
    push: Option<Arc<Push>>,
    /// The group is gone when the text is.
    removes_group: bool,
    /// Reserves what the command released until the store has recorded the command. The caller drops it then.
    pub commit: Option<RunningEpoch>,
    /// What to answer then.
    pub outcome: Outcome,
}

#[derive(Debug)]
struct Splice {
    family: Number,
    lines: Lines,
}

#[derive(Debug)]
enum Lines {
    /// Those of the push's family at this place.
    Pushed(usize),
    Time(f64),
    None,
}

impl TextEdit {
    /// What to answer. Lets go of the push.
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// Nothing to do but to answer.
    pub(super) fn ended(outcome: Outcome) -> Self {
        Self::on(0, outcome)
    }

    fn on(group: Number, outcome: Outcome) -> Self {
        Self { group, splices: VecDeque::new(), push: None, removes_group: false, commit: None, outcome }
    }
}

impl Shard {
    /// What a store must hear of a command whose text is whole. `spare` is memory to write it into.
    pub fn to_store(&self, work: &TextEdit, spare: Vec<u8>) -> ToStore {
        match work.outcome {
            Outcome::Done if work.push.is_none() => ToStore::Delete,
            Outcome::Done | Outcome::Refused(_) => ToStore::Put(Writing::new(work.group, spare)),
            Outcome::NotAdmitted(_) | Outcome::TooLarge => ToStore::Nothing,
        }
    }

    /// Changes text until about `bytes_max` bytes were written. True when the work is done.
    pub fn step(&mut self, work: &mut TextEdit, bytes_max: usize) -> bool {
        /// What a splice costs beside its bytes, as bytes.
        const SPLICE_BYTES: usize = 1024;
        let mut bytes = 0;
        while let Some(splice) = work.splices.pop_front() {
            let push = work.push.as_deref();
            bytes += SPLICE_BYTES + self.splice(work.group, &splice, push);
            if bytes >= bytes_max && !work.splices.is_empty() {
                return false;
            }
        }
        if std::mem::take(&mut work.removes_group)
            && let Some(group) = self.groups.remove(work.group)
        {
            self.groups_by_key.remove(&group.key);
        }
        true
    }

    fn splice(&mut self, group: Number, splice: &Splice, push: Option<&Push>) -> usize {
        let mut time = Vec::new();
        let lines = match (&splice.lines, push) {
            (Lines::Pushed(index), Some(push)) => push.lines(&push.families()[*index]),
            (Lines::Time(seconds), _) => {
                let name = &self.families[splice.family].shared.name;
                let labels = GroupingKey::from_text(self.groups[group].key.clone()).series_labels();
                write_time(&mut time, name, &labels, *seconds);
                NewLines::Run(&time)
            }
            (Lines::None | Lines::Pushed(_), _) => NewLines::Run(&[]),
        };
        let bytes = self.replace_lines(group, splice.family, lines);
        if self.families[splice.family].holders == 0 && splice.family > FAILURE_TIME_NUMBER {
            self.remove_family(splice.family);
        }
        bytes
    }

    /// Replaces the lines of a group in a family, and counts. Returns the bytes of the new ones.
    fn replace_lines(&mut self, group: Number, family: Number, lines: NewLines<'_>) -> usize {
        let text = Arc::make_mut(&mut self.families[family].text);
        let (old_bytes, old_lines) = measure(text.run(group));
        let (new_bytes, new_lines) = match &lines {
            NewLines::Run(new) | NewLines::Exact(new, _) => measure([*new]),
            NewLines::Segments(segments) => measure(segments.iter().map(|segment| segment.text())),
        };
        let old_segments = text.segments().len();
        text.replace(group, lines);
        let counts = &mut self.counts;
        counts.bytes = counts.bytes + new_bytes - old_bytes;
        counts.series = counts.series + new_lines - old_lines;
        counts.segments = counts.segments + text.segments().len() - old_segments;
        new_bytes
    }

    /// Adds the lines of a group that is new in a family, and counts.
    pub(super) fn add_lines(&mut self, group: Number, family: Number, lines: &[u8], exact: Option<&[u8]>) {
        let local = &self.families[family];
        let new = match exact {
            _ if lines.len() > RUN_BYTES_MAX => {
                NewLines::Segments(own_segments(&local.shared.name, local.kind, lines, exact))
            }
            Some(exact) => NewLines::Exact(lines, exact),
            None => NewLines::Run(lines),
        };
        self.replace_lines(group, family, new);
    }

    /// Takes a push into the tables. What it takes at the registry was taken before.
    pub(super) fn take_in(
        &mut self,
        push: &Arc<Push>,
        group: Option<Number>,
        set: SetId,
        admitted: &AdmittedPlan,
        now_seconds: f64,
    ) -> TextEdit {
        let now = self.next_seconds(now_seconds);
        let mut splices = VecDeque::with_capacity(admitted.steps.len() + admitted.dropped.len() + 2);
        let group = group.unwrap_or_else(|| {
            splices.push_back(Splice { family: FAILURE_TIME_NUMBER, lines: Lines::Time(0.0) });
            self.add_group(&push.key, set, now)
        });
        let bytes_bound = self.bytes_bound_after(push, Some(group));
        for held in &admitted.dropped {
            self.give_up(group, held, set);
            splices.push_back(Splice { family: held.family, lines: Lines::None });
        }
        let mut held = Vec::with_capacity(admitted.steps.len());
        for step in &admitted.steps {
            let pushed = &push.families()[step.pushed];
            let family = step.local.unwrap_or_else(|| {
                let shared = step.change.and_then(|change| admitted.families[change].clone());
                self.add_family(
                    shared.expect("a family new to the core was taken at the registry"),
                    pushed.kind,
                )
            });
            if step.held.is_some() {
                self.retire_series(group, family, Some((push, pushed)));
            }
            let help = push.help(pushed);
            let local = &mut self.families[family];
            local.kind = pushed.kind;
            if step.held.is_none() {
                local.take(set);
            }
            let help = match &step.held {
                Some(old) if step.same_help => old.help,
                old => {
                    let place = local.take_help(help);
                    old.iter().for_each(|old| local.drop_help(old.help));
                    place
                }
            };
            held.push(GroupFamily { family, help, push_seconds: now });
            splices.push_back(Splice { family, lines: Lines::Pushed(step.pushed) });
        }
        if push.mode == Mode::Merge {
            held.sort_unstable_by_key(|held| held.family);
            let named = held.clone();
            let stays = |family| find_held(&named, family).is_none();
            held.extend(self.groups[group].held.iter().filter(|old| stays(old.family)));
        }
        held.sort_unstable_by_key(|held| held.family);
        held.shrink_to_fit();
        let entry = &mut self.groups[group];
        entry.held = held;
        entry.push_seconds = now;
        entry.bytes_bound = bytes_bound;
        splices.push_back(Splice { family: PUSH_TIME_NUMBER, lines: Lines::Time(now) });
        TextEdit { splices, push: Some(push.clone()), ..TextEdit::on(group, Outcome::Done) }
    }

    /// Gives a group its failure time; creates it if need be.
    pub(super) fn refuse(&mut self, push: &Push, reason: String, now_seconds: f64) -> TextEdit {
        let key = &push.key;
        let now = self.next_seconds(now_seconds);
        let mut splices = VecDeque::with_capacity(2);
        let group = match self.groups_by_key.get(key.text()) {
            Some(group) => *group,
            None => {
                let set = self.set_id(&key.names());
                splices.push_back(Splice { family: PUSH_TIME_NUMBER, lines: Lines::Time(0.0) });
                self.add_group(key, set, now)
            }
        };
        self.groups[group].failure_seconds = now;
        self.groups[group].refusal = Some(Refusal::new(&reason, push.source));
        splices.push_back(Splice { family: FAILURE_TIME_NUMBER, lines: Lines::Time(now) });
        TextEdit { splices, ..TextEdit::on(group, Outcome::Refused(reason)) }
    }

    /// Refuses a push for a reason that only its caller could find: a twin on another core.
    pub fn reject(
        &mut self,
        push: &Push,
        attempt: &mut PushAttempt,
        reason: String,
        now_seconds: f64,
    ) -> TextEdit {
        self.abandon(attempt);
        self.refuse(push, reason, now_seconds)
    }

    /// Deletes a group, or nothing if there is none. Never refused.
    pub fn delete(&mut self, key: &GroupingKey) -> TextEdit {
        let Some(group) = self.groups_by_key.get(key.text()).copied() else {
            return TextEdit::ended(Outcome::Done);
        };
        let set = self.groups[group].set;
        let held = std::mem::take(&mut self.groups[group].held);
        let changes: Vec<_> = held.iter().filter_map(|held| self.drop_of(held, set)).collect();
        let gives_up =
            !changes.is_empty() || held.iter().any(|held| self.loses_series(group, held.family, None));
        let commit = (self.is_stored && gives_up).then(|| self.registry.begin_commit());
        if !changes.is_empty() {
            let given_up = self.registry.change(self.core, &changes, &[]);
            debug_assert!(given_up.is_ok(), "giving up contradicts nobody");
        }
        let mut splices = VecDeque::with_capacity(held.len() + 2);
        for held in held {
            self.give_up(group, &held, set);
            splices.push_back(Splice { family: held.family, lines: Lines::None });
        }
        for family in [PUSH_TIME_NUMBER, FAILURE_TIME_NUMBER] {
            splices.push_back(Splice { family, lines: Lines::None });
        }
        TextEdit { splices, removes_group: true, commit, ..TextEdit::on(group, Outcome::Done) }
    }

    fn give_up(&mut self, group: Number, held: &GroupFamily, set: SetId) {
        self.retire_series(group, held.family, None);
        let family = &mut self.families[held.family];
        family.give_up(set);
        family.drop_help(held.help);
    }

    /// Keeps the lines that a group is about to give up, while a scrape may have them, or the store, and another core could get
    /// a twin of them there, too.
    fn retire_series(&mut self, group: Number, family: Number, new: Option<(&Push, &PushedFamily)>) {
        if !self.loses_series(group, family, new) {
            return;
        }
        let Some(at) = self.registry.retirement_epoch() else { return };
        let local = &self.families[family];
        let text = local.text.run(group).collect::<Vec<_>>().concat();
        let (family, key) = (local.shared.name.clone(), self.groups[group].key.clone());
        self.retired_series.push(RetiredSeries { at, family, key, text });
    }

    /// Whether a group that gets these lines in a family, or none, loses a series that another group could take.
    pub(super) fn loses_series(
        &self,
        group: Number,
        family: Number,
        new: Option<(&Push, &PushedFamily)>,
    ) -> bool {
        let local = &self.families[family];
        if !local.shared.has_several_sets() {
            return false;
        }
        let Some((push, pushed)) = new else { return true };
        let old = local.text.run(group).collect::<Vec<_>>().concat();
        local.kind != pushed.kind || has_new_series(&local.shared.name, local.kind, push.text(pushed), &old)
    }

    pub(super) fn add_group(&mut self, key: &GroupingKey, set: SetId, created_seconds: f64) -> Number {
        let group = Group {
            key: key.text().clone(),
            set,
            push_seconds: 0.0,
            failure_seconds: 0.0,
            created_seconds,
            refusal: None,
            bytes_bound: 0,
            held: Vec::new(),
        };
        let number = self.groups.insert(group);
        self.groups_by_key.insert(key.text().clone(), number);
        number
    }

    fn next_seconds(&mut self, now_seconds: f64) -> f64 {
        self.latest_seconds = self.latest_seconds.max(now_seconds);
        self.latest_seconds
    }
}

/// What a push was given to take in.
pub(super) struct AdmittedPlan {
    pub steps: Vec<Step>,
    pub dropped: Vec<GroupFamily>,
    /// The families new to this core, by [`Step::change`].
    pub families: Vec<Option<Arc<SharedFamily>>>,
}

/// Bytes and lines.
pub(super) fn measure<'t>(pieces: impl IntoIterator<Item = &'t [u8]>) -> (usize, usize) {
    pieces.into_iter().fold((0, 0), |(bytes, lines), piece| {
        (bytes + piece.len(), lines + memchr::memchr_iter(b'\n', piece).count())
    })
}

/// Writes a group's line in a push-time family; the labels as [`GroupingKey::series_labels`] gives them.
pub(super) fn write_time(out: &mut Vec<u8>, name: &str, labels: &str, seconds: f64) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'{');
    out.extend_from_slice(labels.as_bytes());
    out.extend_from_slice(b"} ");
    write_float(out, seconds);
    out.push(b'\n');
}
