//! Replacing the lines of many groups in a segment at once.

use std::sync::Arc;

use super::FamilyText;
use super::runs::Runs;
use super::segment::Segment;

/// Memory for a segment, which is used again and again.
#[derive(Debug, Default)]
pub struct Rewriting {
    text: Vec<u8>,
    runs: Runs,
}

/// What was rewritten.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// How many groups are done.
    pub groups: usize,
    /// The bytes of the segment before and after.
    pub old_bytes: usize,
    /// The bytes of the segment after.
    pub new_bytes: usize,
}

impl Rewriting {
    /// Replaces the lines of the first of these groups, and of those after it whose lines are in the same segment. Groups are sorted by
    /// number, and only those that have short lines are written. `write` appends the new lines of a group, or returns `false` to keep the
    /// old ones. A segment that would not change keeps its cached forms.
    pub fn rewrite<G>(
        &mut self,
        text: &mut FamilyText,
        groups: &[G],
        number_of: impl Fn(&G) -> u32,
        mut write: impl FnMut(&G, &mut Vec<u8>) -> bool,
    ) -> Rewritten {
        let Some(first) = groups.first() else { return Rewritten::default() };
        let Some(index) = text.shared_entry(number_of(first)) else {
            return Rewritten { groups: 1, ..Rewritten::default() };
        };
        let next = text.entries.get(index + 1).map_or(u32::MAX, |entry| entry.first);
        let count = groups.partition_point(|group| number_of(group) < next);
        let entry = &mut text.entries[index];
        self.text.clear();
        self.runs.clear();
        for group in &groups[..count] {
            let Ok(at) = entry.find(number_of(group)) else { continue };
            self.copy_runs(&entry.segment, at);
            let before = self.text.len();
            if !write(group, &mut self.text) {
                self.text.truncate(before);
                self.copy_runs(&entry.segment, at + 1);
                continue;
            }
            self.runs.push(number_of(group), self.text.len());
        }
        self.copy_runs(&entry.segment, entry.segment.runs.len());
        let (old_bytes, new_bytes) = (entry.segment.text.len(), self.text.len());
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
        Rewritten { groups: count, old_bytes, new_bytes }
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
