//! Changing text in slices, after the tables have changed.
//!
//! A command is decided and applied to the tables in one step. Its lines may be many, so the text follows in slices. In between,
//! the lines are half in the old and half in the new state: [`TextEdit`] therefore keeps the shard, which the caller gets back
//! in [`Applied`].

use std::collections::VecDeque;
use std::ops::{ControlFlow, DerefMut};
use std::sync::Arc;

use crate::exposition::number::write_float;

use super::key::GroupingKey;
use super::outcome::Outcome;
use super::pace::CHANGE;
use super::push::{Mode, Push};
use super::registry::RunningEpoch;
use super::segments::{NewLines, RUN_BYTES_MAX, own_segments};
use super::slab::Number;
use super::{FAILURE_TIME_NUMBER, Shard};

/// A command that is decided and in the tables, and whose text is not complete yet. `S` is a guard of the shard.
#[derive(Debug)]
#[must_use = "the shard's text is inconsistent until the edit has ended"]
pub struct TextEdit<S> {
    shard: S,
    edit: Edit,
}

/// A command whose text is complete.
#[derive(Debug)]
pub struct Applied<S> {
    /// The shard. A store must learn of commands in their order, so the change has to be on its way to the store before the
    /// shard is released.
    pub shard: S,
    /// What a store has to record.
    pub change: Change,
    /// Reserves what the command released until the store has recorded the change. The caller drops it then.
    pub commit: Option<RunningEpoch>,
    /// The response, once the change is recorded.
    pub outcome: Outcome,
}

/// What a command did to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The group with this number was created or changed. See [`Shard::group`].
    Put(u32, ChangedPart),
    /// The group does not exist any more. Also reported for a group that did not exist before, because the response must not
    /// overtake the commit of the delete that removed it.
    Delete,
}

/// Which part of a group a command may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedPart {
    /// Any.
    All,
    /// The times, and families whose push time is that of the group. No family was removed.
    LastPush,
    /// The times.
    Times,
}

impl ChangedPart {
    pub(super) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Replace => Self::All,
            Mode::Merge => Self::LastPush,
        }
    }
}

/// The part of a [`TextEdit`] beside the shard.
#[derive(Debug)]
pub(super) struct Edit {
    pub target: Target,
    pub splices: Splices,
    /// The push with the lines of [`Lines::Pushed`].
    pub push: Option<Arc<Push>>,
    pub commit: Option<RunningEpoch>,
    pub outcome: Outcome,
}

/// The group whose text changes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// The group stays.
    Put(Number),
    /// The group is removed when its text is.
    Delete(Number),
    /// There was no group to delete.
    Missing,
}

/// Splices in order. They are in chunks that are freed one by one, because there may be millions of splices.
#[derive(Debug)]
pub(super) struct Splices {
    chunks: VecDeque<VecDeque<Splice>>,
}

/// The new lines of the group in one family.
#[derive(Debug)]
pub(super) struct Splice {
    pub family: Number,
    pub lines: Lines,
}

#[derive(Debug)]
pub(super) enum Lines {
    /// Those of the push's family with this index.
    Pushed(usize),
    /// A push time in Unix seconds.
    Time(f64),
    None,
}

impl Splices {
    const CHUNK_LEN: usize = 4096;

    /// No splices, with memory for some.
    pub fn with_capacity(splices: usize) -> Self {
        let first = VecDeque::with_capacity(splices.min(Self::CHUNK_LEN));
        Self { chunks: VecDeque::from([first]) }
    }

    pub fn push_back(&mut self, splice: Splice) {
        match self.chunks.back_mut().filter(|chunk| chunk.len() < Self::CHUNK_LEN) {
            Some(chunk) => chunk.push_back(splice),
            None => {
                let mut chunk = VecDeque::with_capacity(Self::CHUNK_LEN);
                chunk.push_back(splice);
                self.chunks.push_back(chunk);
            }
        }
    }

    fn pop_front(&mut self) -> Option<Splice> {
        loop {
            if let Some(splice) = self.chunks.front_mut()?.pop_front() {
                return Some(splice);
            }
            self.chunks.pop_front();
        }
    }
}

impl<S: DerefMut<Target = Shard>> TextEdit<S> {
    pub(super) fn new(shard: S, edit: Edit) -> Self {
        Self { shard, edit }
    }

    /// Changes text until about `bytes_max` bytes were written. Continues with the rest, or breaks with the applied command.
    pub fn advance(mut self, bytes_max: usize) -> ControlFlow<Applied<S>, Self> {
        if !self.shard.advance(&mut self.edit, bytes_max) {
            return ControlFlow::Continue(self);
        }
        let Self { shard, edit: Edit { target, push, commit, outcome, .. } } = self;
        let part = push.map_or(ChangedPart::Times, |push| ChangedPart::of(push.mode));
        let change = match target {
            Target::Put(group) => Change::Put(group, part),
            Target::Delete(_) | Target::Missing => Change::Delete,
        };
        ControlFlow::Break(Applied { shard, change, commit, outcome })
    }

    /// Changes all of the text at once.
    pub fn finish(self) -> Applied<S> {
        let mut edit = self;
        loop {
            match edit.advance(usize::MAX) {
                ControlFlow::Break(applied) => return applied,
                ControlFlow::Continue(rest) => edit = rest,
            }
        }
    }
}

impl Target {
    fn group(self) -> Option<Number> {
        match self {
            Self::Put(group) | Self::Delete(group) => Some(group),
            Self::Missing => None,
        }
    }
}

impl Shard {
    /// Changes text until about `bytes_max` bytes were written. Returns whether the edit has ended.
    fn advance(&mut self, edit: &mut Edit, bytes_max: usize) -> bool {
        /// The cost of a splice beside its bytes, in bytes.
        const SPLICE_BYTES: usize = CHANGE;
        let Some(group) = edit.target.group() else { return true };
        let mut bytes = 0;
        loop {
            if bytes >= bytes_max {
                return false;
            }
            // Long lines that were replaced are freed in slices, too.
            if let Some(segment) = self.replaced.pop() {
                bytes += segment.text().len();
            } else if let Some(splice) = edit.splices.pop_front() {
                bytes += SPLICE_BYTES + self.splice(group, &splice, edit.push.as_deref());
            } else {
                break;
            }
        }
        if let Target::Delete(group) = edit.target
            && let Some(group) = self.groups.remove(group)
        {
            self.sets.remove_group(group.set, &self.registry);
        }
        self.settle_totals();
        true
    }

    fn splice(&mut self, group: Number, splice: &Splice, push: Option<&Push>) -> usize {
        let mut time = Vec::new();
        let lines = match (&splice.lines, push) {
            (Lines::Pushed(index), Some(push)) => push.lines(&push.families()[*index]),
            (Lines::Time(seconds), _) => {
                let name = &self.families[splice.family].shared.name;
                let labels = GroupingKey::from_text(self.groups[group].key.clone()).series_labels();
                write_time(&mut time, name, labels.as_bytes(), *seconds);
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

    /// Replaces the lines of a group in a family, and updates the counts. Returns the number of bytes of the new lines.
    pub(super) fn replace_lines(&mut self, group: Number, family: Number, lines: NewLines<'_>) -> usize {
        let text = Arc::make_mut(&mut self.families[family].text);
        let (old_bytes, old_lines) = text.measure(group);
        let (new_bytes, new_lines) = lines.measure();
        if self.registry.totals().is_some() {
            let old_exact = text.lines_and_exact(group).1.map_or(0, |exact| exact.len());
            self.extra_bytes += lines.exact_len() as i64 - old_exact as i64;
        }
        let old_segments = text.segments().len();
        let replaced = text.replace(group, lines);
        if !replaced.is_empty() {
            self.replaced.extend(replaced);
        }
        let counts = &mut self.counts;
        counts.bytes = counts.bytes + new_bytes - old_bytes;
        counts.series = counts.series + new_lines - old_lines;
        counts.segments = counts.segments + text.segments().len() - old_segments;
        new_bytes
    }

    /// Adds the lines of a group that has none in a family, and updates the counts.
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
}

/// Writes a group's line in a push-time family. `labels` are those of [`GroupingKey::series_labels`].
pub(super) fn write_time(out: &mut Vec<u8>, name: &str, labels: &[u8], seconds: f64) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'{');
    out.extend_from_slice(labels);
    out.extend_from_slice(b"} ");
    write_float(out, seconds);
    out.push(b'\n');
}
