//! Replacing the lines of many groups in a segment at once.

use std::sync::Arc;

use super::super::group_set::GroupSet;
use super::runs::Runs;
use super::segment::Segment;
use super::{FamilyText, measure};

/// Memory for a segment, which is used again and again.
#[derive(Debug, Default)]
pub struct Rewriting {
    text: Vec<u8>,
    runs: Runs,
}

/// What was rewritten.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// The first group after the segment.
    pub next: u32,
    /// How many groups got new lines.
    pub groups: usize,
    /// The bytes of the segment before.
    pub old_bytes: usize,
    /// The bytes of the segment after.
    pub new_bytes: usize,
    /// The lines of the groups before; 0 if they are not counted.
    pub old_lines: usize,
    /// The lines of the groups after; 0 if they are not counted.
    pub new_lines: usize,
}

impl FamilyText {
    /// The first entry with short lines of one of these groups, from a group number on.
    fn next_entry(&self, groups: &GroupSet, from: u32) -> Option<usize> {
        let start = self.entries.partition_point(|entry| entry.first <= from).saturating_sub(1);
        let has_any = |index: &usize| {
            let entry = &self.entries[*index];
            let last = entry.segment.runs.last().filter(|last| !entry.exclusive && *last >= from);
            last.is_some_and(|last| groups.has_any(entry.first.max(from)..=last))
        };
        (start..self.entries.len()).find(has_any)
    }
}

impl Rewriting {
    /// Replaces the lines of some groups in the first segment that may have one of them, from a group number on. Groups with long lines,
    /// and those without lines, stay as they are. `write` appends the new lines of a group, or returns `false` to keep the old ones. Lines
    /// are counted if `counts_lines` is set. A segment that would not change keeps its cached forms. `None` if there is no such segment.
    pub fn rewrite(
        &mut self,
        text: &mut FamilyText,
        groups: &GroupSet,
        from: u32,
        counts_lines: bool,
        mut write: impl FnMut(u32, &mut Vec<u8>) -> bool,
    ) -> Option<Rewritten> {
        let index = text.next_entry(groups, from)?;
        let entry = &mut text.entries[index];
        self.text.clear();
        self.runs.clear();
        let mut rewritten = Rewritten::default();
        for at in 0..entry.segment.runs.len() {
            let group = entry.segment.runs.group(at);
            rewritten.next = group.saturating_add(1);
            if group < from || !groups.contains(group) {
                continue;
            }
            self.copy_runs(&entry.segment, at);
            let before = self.text.len();
            if !write(group, &mut self.text) {
                self.text.truncate(before);
                continue;
            }
            if counts_lines {
                rewritten.old_lines += measure(&entry.segment.text[entry.segment.runs.range(at)]).1;
                rewritten.new_lines += measure(&self.text[before..]).1;
            }
            rewritten.groups += 1;
            self.runs.push(group, self.text.len());
        }
        self.copy_runs(&entry.segment, entry.segment.runs.len());
        (rewritten.old_bytes, rewritten.new_bytes) = (entry.segment.text.len(), self.text.len());
        if entry.segment.text != self.text {
            match Arc::get_mut(&mut entry.segment) {
                Some(segment) => segment.set(&self.text, &self.runs),
                None => {
                    let mut segment = Segment::with_exact_of(&entry.segment);
                    segment.set(&self.text, &self.runs);
                    entry.segment = Arc::new(segment);
                }
            }
            text.split_if_large(index);
            text.merge_if_small(index);
        }
        Some(rewritten)
    }

    /// Copies the runs after those that are there already, up to the run with this index.
    fn copy_runs(&mut self, segment: &Segment, end: usize) {
        let start = self.runs.len();
        if start >= end {
            return;
        }
        let (from, to) = (segment.runs.range(start).start, segment.runs.range(end - 1).end);
        self.runs.extend(&segment.runs, start..end, self.text.len());
        self.text.extend_from_slice(&segment.text[from..to]);
    }
}
