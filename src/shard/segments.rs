//! The text of one family on one core. Pushes replace lines in it, and scrapes send it as it is.
//!
//! The lines are in segments of about 16 KB, in the order of the group numbers. A segment is small enough that replacing lines
//! moves few bytes and that compressing a changed segment is fast, and large enough that a scrape is a short list of ranges.

mod rewriting;
mod runs;
mod segment;

use std::sync::Arc;

pub use rewriting::Rewriting;
#[cfg(test)]
pub(super) use segment::Allocated;
use segment::shrink;
pub use segment::{Segment, own_segments};

/// A segment of several groups is split above this size.
pub const SEGMENT_BYTES_MAX: usize = 16 * 1024;
/// A segment below this size is merged with a neighbour.
const SEGMENT_BYTES_MIN: usize = SEGMENT_BYTES_MAX / 4;
/// New groups are added to a segment up to this size, and segments are merged up to it. The lines of a group become longer when its
/// numbers do. If segments were filled, that would split all of them.
const SEGMENT_BYTES_FILLED: usize = SEGMENT_BYTES_MAX / 4 * 3;
/// The lines of one group get their own segments above this size.
pub const RUN_BYTES_MAX: usize = 64 * 1024;

/// The text of one family on one core. Cloning costs a pointer per segment.
#[derive(Debug, Default, Clone)]
pub struct FamilyText {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The smallest group number in the segment.
    first: u32,
    /// The segment has lines of only this group, which may continue in the next entry.
    exclusive: bool,
    segment: Arc<Segment>,
}

/// Where the lines of a group are.
enum Location {
    /// In exclusive entries.
    Exclusive(std::ops::Range<usize>),
    /// In a run of an entry with several groups; both are indexes.
    Shared { entry: usize, run: usize },
    /// The group has no lines.
    Missing,
}

impl Entry {
    /// The index of a group's run, or the index at which it would be inserted.
    fn find(&self, group: u32) -> Result<usize, usize> {
        self.segment.runs.find(group)
    }
}

/// The new lines of one group in one family.
#[derive(Debug, Clone)]
pub enum NewLines<'a> {
    /// At most [`RUN_BYTES_MAX`]. Empty lines remove the group from the family.
    Run(&'a [u8]),
    /// The same with its protobuf, which the lines cannot reproduce.
    Exact(&'a [u8], &'a [u8]),
    /// Longer lines, already cut into segments.
    Segments(Vec<Arc<Segment>>),
}

/// The lines of one group in a family at one moment. The family may change afterwards.
#[derive(Debug, Clone)]
pub enum GroupLines {
    /// A copy of at most [`RUN_BYTES_MAX`].
    Copied(Vec<u8>),
    /// Longer lines: segments of this group only, shared with the family. Each ends at the end of a metric.
    Segments(Vec<Arc<Segment>>),
}

impl GroupLines {
    /// The lines in pieces, each of which ends at the end of a metric.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (copied, segments) = match self {
            Self::Copied(text) => (Some(&text[..]), &[][..]),
            Self::Segments(segments) => (None, &segments[..]),
        };
        copied.into_iter().chain(segments.iter().map(|segment| segment.text()))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Copied(text) => text.is_empty(),
            Self::Segments(segments) => segments.is_empty(),
        }
    }

    /// Frees lines until about `bytes_max` bytes are freed. Returns how many were.
    pub fn free(&mut self, bytes_max: usize) -> usize {
        match self {
            Self::Copied(text) => std::mem::take(text).len(),
            Self::Segments(segments) => {
                let mut bytes = 0;
                while bytes < bytes_max
                    && let Some(segment) = segments.pop()
                {
                    bytes += segment.text.len();
                }
                bytes
            }
        }
    }
}

impl NewLines<'_> {
    /// The bytes and the number of the lines.
    pub fn measure(&self) -> (usize, usize) {
        match self {
            Self::Run(text) | Self::Exact(text, _) => measure(text),
            Self::Segments(segments) => measure_segments(segments.iter()),
        }
    }

    /// The bytes of the protobuf.
    pub fn exact_len(&self) -> usize {
        match self {
            Self::Run(_) => 0,
            Self::Exact(_, exact) => exact.len(),
            Self::Segments(segments) => segments.iter().map(|segment| segment.exact_len()).sum(),
        }
    }
}

/// The bytes and the number of some lines.
pub fn measure(text: &[u8]) -> (usize, usize) {
    // Most texts are one line. Finding its end takes less time than counting to its end.
    let lines = match memchr::memchr(b'\n', text) {
        Some(end) => 1 + memchr::memchr_iter(b'\n', &text[end + 1..]).count(),
        None => 0,
    };
    (text.len(), lines)
}

/// The same for segments of one group, which know it.
fn measure_segments<'s>(segments: impl Iterator<Item = &'s Arc<Segment>>) -> (usize, usize) {
    segments
        .fold((0, 0), |(bytes, lines), segment| (bytes + segment.text.len(), lines + segment.lines as usize))
}

impl FamilyText {
    /// The segments in order.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Arc<Segment>> {
        self.entries.iter().map(|entry| &entry.segment)
    }

    /// The bytes of all lines.
    pub fn len(&self) -> usize {
        self.entries.iter().map(|entry| entry.segment.text.len()).sum()
    }

    /// Whether no group has lines.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The lines of a group; several slices if they are long.
    pub fn run(&self, group: u32) -> impl Iterator<Item = &[u8]> {
        self.run_at(self.locate(group))
    }

    /// The bytes and the number of a group's lines.
    pub fn measure(&self, group: u32) -> (usize, usize) {
        match self.locate(group) {
            Location::Exclusive(range) => {
                measure_segments(self.entries[range].iter().map(|entry| &entry.segment))
            }
            location => self.run_at(location).map(measure).next().unwrap_or_default(),
        }
    }

    /// The lines of a group. Long ones are shared, not copied.
    pub fn lines(&self, group: u32) -> GroupLines {
        match self.locate(group) {
            Location::Exclusive(range) => {
                GroupLines::Segments(self.entries[range].iter().map(|entry| entry.segment.clone()).collect())
            }
            location => GroupLines::Copied(self.run_at(location).collect::<Vec<_>>().concat()),
        }
    }

    /// Whether the lines of a group are long, so that they have segments of their own.
    pub fn is_long(&self, group: u32) -> bool {
        matches!(self.locate(group), Location::Exclusive(_))
    }

    /// The first segment of a group whose lines are long.
    pub fn first_of_long(&self, group: u32) -> Option<&Arc<Segment>> {
        match self.locate(group) {
            Location::Exclusive(range) => self.entries.get(range.start).map(|entry| &entry.segment),
            Location::Shared { .. } | Location::Missing => None,
        }
    }

    fn run_at(&self, location: Location) -> impl Iterator<Item = &[u8]> {
        let (range, shared) = match location {
            Location::Exclusive(range) => (range, None),
            Location::Shared { entry, run } => {
                let segment = &self.entries[entry].segment;
                (0..0, Some(&segment.text[segment.runs.range(run)]))
            }
            Location::Missing => (0..0, None),
        };
        self.entries[range].iter().map(|entry| entry.segment.text()).chain(shared)
    }

    /// The lines of a group, and its protobuf if they cannot reproduce it.
    pub fn lines_and_exact(&self, group: u32) -> (impl Iterator<Item = &[u8]>, Option<&Arc<[u8]>>) {
        let location = self.locate(group);
        let exact = match &location {
            Location::Exclusive(range) => {
                self.entries[range.start].segment.exact.first().map(|(_, exact)| exact)
            }
            Location::Shared { entry, .. } => self.entries[*entry].segment.exact_of(group),
            Location::Missing => None,
        };
        (self.run_at(location), exact)
    }

    /// The protobuf of a group, if its lines cannot reproduce it.
    pub fn exact(&self, group: u32) -> Option<Arc<[u8]>> {
        self.lines_and_exact(group).1.cloned()
    }

    /// Replaces the lines of a group, or removes the group. Returns the segments of its old lines, if they had their own: the caller
    /// drops them in slices.
    pub fn replace(&mut self, group: u32, new: NewLines<'_>) -> Vec<Arc<Segment>> {
        let mut replaced = Vec::new();
        let (new, exact, segments) = match new {
            NewLines::Run(new) => (new, None, Vec::new()),
            NewLines::Exact(new, exact) => (new, Some(exact), Vec::new()),
            NewLines::Segments(segments) => (&[][..], None, segments),
        };
        match self.locate(group) {
            Location::Shared { entry, run } if !new.is_empty() => {
                Arc::make_mut(&mut self.entries[entry].segment).splice(run, new, exact);
                self.split_if_large(entry);
                self.merge_if_small(entry);
            }
            location => {
                match location {
                    Location::Shared { entry, run } => self.remove_run(entry, run),
                    Location::Exclusive(range) => {
                        replaced = self.entries.drain(range).map(|entry| entry.segment).collect();
                    }
                    Location::Missing => {}
                }
                if !new.is_empty() {
                    self.insert_run(group, new, exact);
                }
                if !segments.is_empty() {
                    self.insert_segments(group, segments);
                }
            }
        }
        replaced
    }

    /// Whether all groups that have lines precede this one.
    fn ends_before(&self, group: u32) -> bool {
        let last_group = |entry: &Entry| entry.segment.runs.last().unwrap_or(entry.first);
        self.entries.last().is_none_or(|entry| last_group(entry) < group)
    }

    /// Appends gathered runs as a segment. Leaves `gathered` empty, with as much memory again.
    pub fn append(&mut self, gathered: &mut GatheredRuns) {
        let mut next = Segment::default();
        next.text.reserve_exact(gathered.segment.text.len().max(SEGMENT_BYTES_FILLED));
        let mut full = std::mem::replace(&mut gathered.segment, next);
        full.runs.shrink();
        shrink(&mut full.text);
        self.insert_shared(self.entries.len(), full);
    }

    /// Where a group's lines are.
    fn locate(&self, group: u32) -> Location {
        let end = self.entries.partition_point(|entry| entry.first <= group);
        let Some(last) = end.checked_sub(1) else { return Location::Missing };
        if self.entries[last].exclusive {
            let own = |entry: &&Entry| entry.first == group && entry.exclusive;
            let len = self.entries[..end].iter().rev().take_while(own).count();
            return if len > 0 { Location::Exclusive(end - len..end) } else { Location::Missing };
        }
        self.entries[last].find(group).map_or(Location::Missing, |run| Location::Shared { entry: last, run })
    }

    /// The entry that has a group's run or to which it would be added, unless that is an exclusive one.
    fn shared_entry(&self, group: u32) -> Option<usize> {
        let after = self.entries.partition_point(|entry| entry.first <= group);
        let index = after.checked_sub(1)?;
        (!self.entries[index].exclusive).then_some(index)
    }

    fn remove_run(&mut self, entry: usize, run: usize) {
        let segment = Arc::make_mut(&mut self.entries[entry].segment);
        segment.remove(run);
        match segment.runs.first() {
            None => {
                self.entries.remove(entry);
            }
            Some(first) => {
                self.entries[entry].first = first;
                self.merge_if_small(entry);
            }
        }
    }

    fn insert_run(&mut self, group: u32, new: &[u8], exact: Option<&[u8]>) {
        // To the entry of the run before it, or else after it, so that neighbours share a segment.
        let after = self.entries.partition_point(|entry| entry.first <= group);
        let shared = |index: &usize| self.entries.get(*index).is_some_and(|entry| !entry.exclusive);
        let Some(index) = after.checked_sub(1).filter(shared).or(Some(after).filter(shared)) else {
            let mut segment = Segment::default();
            segment.insert(0, group, new, exact);
            self.entries.insert(after, Entry { first: group, exclusive: false, segment: Arc::new(segment) });
            return;
        };
        let appended = self.entries[index].segment.runs.last().is_some_and(|last| last < group);
        if appended && self.entries[index].segment.text.len() + new.len() > SEGMENT_BYTES_FILLED {
            // New groups have rising numbers, so leave the filled segment as it is instead of splitting it in halves later.
            if let Some(filled) = Arc::get_mut(&mut self.entries[index].segment) {
                filled.runs.shrink();
            }
            let mut segment = Segment::default();
            segment.insert(0, group, new, exact);
            self.entries
                .insert(index + 1, Entry { first: group, exclusive: false, segment: Arc::new(segment) });
            return;
        }
        let at = self.entries[index].find(group).unwrap_or_else(|at| at);
        Arc::make_mut(&mut self.entries[index].segment).insert(at, group, new, exact);
        self.entries[index].first = self.entries[index].first.min(group);
        self.split_if_large(index);
    }

    fn insert_segments(&mut self, group: u32, segments: Vec<Arc<Segment>>) {
        let at = match self.shared_entry(group) {
            None => self.entries.partition_point(|entry| entry.first <= group),
            Some(index) => {
                let run = self.entries[index].find(group).unwrap_or_else(|at| at);
                if run < self.entries[index].segment.runs.len() {
                    let rest = Arc::make_mut(&mut self.entries[index].segment).split_off(run);
                    self.insert_shared(index + 1, rest);
                }
                index + 1
            }
        };
        let entry = |segment| Entry { first: group, exclusive: true, segment };
        self.entries.splice(at..at, segments.into_iter().map(entry));
    }

    fn insert_shared(&mut self, at: usize, segment: Segment) {
        let first = segment.runs.group(0);
        self.entries.insert(at, Entry { first, exclusive: false, segment: Arc::new(segment) });
    }

    fn split_if_large(&mut self, index: usize) {
        let segment = &self.entries[index].segment;
        if segment.text.len() <= SEGMENT_BYTES_MAX || segment.runs.len() < 2 {
            return;
        }
        let at = segment.runs.count_up_to(segment.text.len() / 2).clamp(1, segment.runs.len() - 1);
        let rest = Arc::make_mut(&mut self.entries[index].segment).split_off(at);
        self.insert_shared(index + 1, rest);
        // One half is still too large if it has a run that is larger than a segment.
        self.split_if_large(index + 1);
        self.split_if_large(index);
    }

    fn merge_if_small(&mut self, index: usize) {
        if self.entries[index].segment.text.len() >= SEGMENT_BYTES_MIN {
            return;
        }
        let fits = |left: usize| {
            self.entries.get(left).zip(self.entries.get(left + 1)).is_some_and(|(a, b)| {
                !a.exclusive
                    && !b.exclusive
                    && a.segment.text.len() + b.segment.text.len() <= SEGMENT_BYTES_FILLED
            })
        };
        let Some(left) = [index.checked_sub(1), Some(index)].into_iter().flatten().find(|left| fits(*left))
        else {
            return;
        };
        let right = self.entries.remove(left + 1).segment;
        Arc::make_mut(&mut self.entries[left].segment).append(&right);
    }
}

/// Runs of groups in the order of their numbers, gathered until they fill a segment. Has the effect of many calls of
/// [`FamilyText::replace`], for the cost of a copy.
#[derive(Debug, Default, Clone)]
pub struct GatheredRuns {
    segment: Segment,
}

impl GatheredRuns {
    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.segment.runs.is_empty()
    }

    /// The gathered lines.
    pub fn text(&self) -> &[u8] {
        &self.segment.text
    }

    /// The bytes of gathered protobuf.
    pub fn exact_len(&self) -> usize {
        self.segment.exact_len()
    }

    /// Adds the lines of a group after all others of the family, whose `text` has all earlier lines. Returns `false` and does
    /// nothing if the group does not belong there, or if there are too many lines. For `exact` see [`NewLines::Exact`].
    pub fn push(&mut self, text: &FamilyText, group: u32, lines: &[u8], exact: Option<&[u8]>) -> bool {
        let fits = match self.segment.runs.last() {
            None => lines.len() <= RUN_BYTES_MAX && text.ends_before(group),
            Some(last) => last < group && self.segment.text.len() + lines.len() <= SEGMENT_BYTES_FILLED,
        };
        if fits && !lines.is_empty() {
            self.segment.append_run(group, lines, exact);
        }
        fits
    }
}

#[cfg(test)]
mod tests;
