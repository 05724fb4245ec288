//! The text of one family on one core. Pushes replace lines in it, and scrapes send it as it is.
//!
//! The lines are in segments of about 16 KB, in the order of the group numbers. A segment is small enough that replacing lines
//! moves few bytes and that compressing a changed segment is fast, and large enough that a scrape is a short list of ranges.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::encoding::encode::{Form, Piece};
use crate::encoding::gzip::Deflated;
use crate::exposition::escape::may_have_quoted_names;
use crate::exposition::model::MetricType;
use crate::exposition::protobuf::{metrics_of_exact, metrics_of_lines};
use crate::exposition::text::ParseError;

use super::series::ends_metric;

/// A segment of several groups is split above this size.
pub const SEGMENT_BYTES_MAX: usize = 16 * 1024;
/// A segment below this size is merged with a neighbour.
const SEGMENT_BYTES_MIN: usize = SEGMENT_BYTES_MAX / 4;
/// The memory of a segment grows by multiples of this.
const GROWTH_BYTES: usize = 1024;
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
        let runs = &self.segment.runs;
        // Most families are in every group, so the index follows from the number. A search would touch cold memory.
        let guess = group.wrapping_sub(self.first) as usize;
        match runs.get(guess) {
            Some(run) if run.group == group => Ok(guess),
            _ => runs.binary_search_by_key(&group, |run| run.group),
        }
    }
}

/// Some lines of one family, and cached forms of them.
#[derive(Debug, Default)]
pub struct Segment {
    text: Vec<u8>,
    /// The groups, sorted by number. Empty in an exclusive segment.
    runs: Vec<Run>,
    /// The protobuf of groups whose lines cannot reproduce it, sorted by number. In exclusive segments the number has no meaning:
    /// the first segment has the whole protobuf, the others an empty one.
    exact: Vec<(u32, Arc<[u8]>)>,
    deflated: OnceLock<Deflated>,
    pieces: OnceLock<Box<Pieces>>,
    quoted: OnceLock<bool>,
}

type Pieces = Mutex<Vec<(Form, Piece)>>;

/// How many pieces of a segment are cached beside its text as gzip. The oldest is evicted first.
const PIECES_MAX: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Run {
    group: u32,
    end: u32,
}

impl Clone for Segment {
    /// A copy to be changed, so without cached forms.
    fn clone(&self) -> Self {
        let (text, runs, exact) = (self.text.clone(), self.runs.clone(), self.exact.clone());
        Self { text, runs, exact, ..Self::default() }
    }
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Segment {
    /// The lines.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The compressed form, if it is cached.
    pub fn deflated(&self) -> Option<&Deflated> {
        self.deflated.get()
    }

    /// The compressed form. If it is not cached, compresses and caches it; a concurrent caller waits for the first one.
    pub fn deflate_with(&self, deflate: impl FnOnce(&[u8]) -> Deflated) -> &Deflated {
        self.deflated.get_or_init(|| deflate(&self.text))
    }

    /// The segment in another form, if it is cached.
    pub fn piece(&self, form: Form) -> Option<Piece> {
        let pieces = self.pieces.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().find(|(known, _)| *known == form).map(|(_, piece)| piece.clone())
    }

    /// Caches another form.
    pub fn cache_piece(&self, form: Form, piece: Piece) {
        let mut pieces = self.pieces.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|(known, _)| *known != form);
        if pieces.len() >= PIECES_MAX {
            pieces.remove(0);
        }
        pieces.push((form, piece));
    }

    /// Whether the lines may contain quoted names, if that is cached.
    pub fn known_quoted(&self) -> Option<bool> {
        self.quoted.get().copied()
    }

    /// Whether the lines may contain quoted names.
    pub fn is_quoted(&self) -> bool {
        *self.quoted.get_or_init(|| may_have_quoted_names(&self.text))
    }

    /// Appends the metrics as fields of their protobuf family.
    ///
    /// # Errors
    /// Returns an error if the lines are not lines of that family.
    pub fn write_metrics(&self, out: &mut Vec<u8>, name: &str, kind: MetricType) -> Result<(), ParseError> {
        if self.runs.is_empty() {
            return match self.exact.first() {
                Some((_, exact)) => {
                    out.extend_from_slice(metrics_of_exact(exact));
                    Ok(())
                }
                None => metrics_of_lines(out, name, kind, &self.text),
            };
        }
        let mut done = 0;
        for (group, exact) in &self.exact {
            let Ok(index) = self.find(*group) else { continue };
            let range = self.range_at(index);
            metrics_of_lines(out, name, kind, &self.text[done..range.start])?;
            out.extend_from_slice(metrics_of_exact(exact));
            done = range.end;
        }
        metrics_of_lines(out, name, kind, &self.text[done..])
    }

    fn find(&self, group: u32) -> Result<usize, usize> {
        self.runs.binary_search_by_key(&group, |run| run.group)
    }

    fn exact_of(&self, group: u32) -> Option<&Arc<[u8]>> {
        let at = self.exact.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        Some(&self.exact[at].1)
    }

    fn set_exact(&mut self, group: u32, exact: Option<&[u8]>) {
        let exact = exact.map(Arc::from);
        match (self.exact.binary_search_by_key(&group, |(group, _)| *group), exact) {
            (Ok(at), Some(exact)) => self.exact[at].1 = exact,
            (Ok(at), None) => {
                self.exact.remove(at);
            }
            (Err(at), Some(exact)) => self.exact.insert(at, (group, exact)),
            (Err(_), None) => {}
        }
    }

    /// Clears the caches, because the text has changed.
    fn clear_caches(&mut self) {
        self.deflated = OnceLock::new();
        self.pieces = OnceLock::new();
        self.quoted = OnceLock::new();
    }

    fn range_at(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.runs[index - 1].end as usize };
        start..self.runs[index].end as usize
    }

    /// Replaces the lines of the run at `index`.
    fn splice(&mut self, index: usize, new: &[u8], exact: Option<&[u8]>) {
        self.set_exact(self.runs[index].group, exact);
        let range = self.range_at(index);
        let old_len = range.len();
        if old_len == new.len() {
            self.text[range].copy_from_slice(new);
        } else {
            replace_range(&mut self.text, range, new);
            for run in &mut self.runs[index..] {
                run.end = run.end - old_len as u32 + new.len() as u32;
            }
        }
        self.clear_caches();
    }

    fn insert(&mut self, index: usize, group: u32, new: &[u8], exact: Option<&[u8]>) {
        let start = if index == 0 { 0 } else { self.runs[index - 1].end };
        self.runs.insert(index, Run { group, end: start });
        self.splice(index, new, exact);
    }

    fn remove(&mut self, index: usize) {
        self.splice(index, &[], None);
        self.runs.remove(index);
    }

    /// Removes and returns the runs from `index` on.
    fn split_off(&mut self, index: usize) -> Self {
        let at = if index == 0 { 0 } else { self.runs[index - 1].end };
        let mut runs = self.runs.split_off(index);
        let first = runs.first().map_or(u32::MAX, |run| run.group);
        let exact = self.exact.split_off(self.exact.partition_point(|(group, _)| *group < first));
        for run in &mut runs {
            run.end -= at;
        }
        let text = self.text.split_off(at as usize);
        self.runs.shrink_to_fit();
        shrink(&mut self.text);
        self.clear_caches();
        Self { text, runs, exact, ..Self::default() }
    }

    /// Adds the run of a group after all others. Doubles the memory until the segment is full, because more runs will follow.
    fn append_run(&mut self, group: u32, lines: &[u8], exact: Option<&[u8]>) {
        let (len, wanted) = (self.text.len(), self.text.len() + lines.len());
        if self.text.capacity() < wanted {
            let doubled = (2 * self.text.capacity()).min(SEGMENT_BYTES_MAX);
            self.text.reserve_exact(doubled.max(wanted.next_multiple_of(GROWTH_BYTES)) - len);
        }
        self.text.extend_from_slice(lines);
        self.runs.push(Run { group, end: wanted as u32 });
        self.exact.extend(exact.map(|exact| (group, Arc::from(exact))));
        self.clear_caches();
    }

    fn append(&mut self, other: &Self) {
        let at = self.text.len() as u32;
        reserve(&mut self.text, other.text.len());
        self.text.extend_from_slice(&other.text);
        self.runs.extend(other.runs.iter().map(|run| Run { group: run.group, end: run.end + at }));
        self.exact.extend(other.exact.iter().cloned());
        self.clear_caches();
    }
}

/// Like `Vec::splice`, but with one move of the tail and one copy.
fn replace_range(text: &mut Vec<u8>, range: std::ops::Range<usize>, new: &[u8]) {
    let (old_len, tail) = (range.len(), range.end..text.len());
    if new.len() > old_len {
        let more = new.len() - old_len;
        reserve(text, more);
        text.resize(text.len() + more, 0);
    }
    text.copy_within(tail.clone(), range.start + new.len());
    text[range.start..range.start + new.len()].copy_from_slice(new);
    if new.len() < old_len {
        text.truncate(range.start + new.len() + tail.len());
        shrink(text);
    }
}

/// Grows the memory in steps of 1 KB, because doubling would leave a quarter of it empty on average.
fn reserve(text: &mut Vec<u8>, more: usize) {
    if text.capacity() - text.len() < more {
        let wanted = (text.len() + more).next_multiple_of(GROWTH_BYTES);
        text.reserve_exact(wanted - text.len());
    }
}

/// Frees memory that a shorter text does not need, but not a little, which the next change may need again.
fn shrink(text: &mut Vec<u8>) {
    const SLACK_BYTES_MAX: usize = 2048;
    if text.capacity() - text.len() > SLACK_BYTES_MAX {
        text.shrink_to(text.len() + SLACK_BYTES_MAX / 2);
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

    /// Adds the lines of a group after all others of the family, whose `text` has all earlier lines. Returns `false` and does
    /// nothing if the group does not belong there, or if there are too many lines. For `exact` see [`NewLines::Exact`].
    pub fn push(&mut self, text: &FamilyText, group: u32, lines: &[u8], exact: Option<&[u8]>) -> bool {
        let fits = match self.segment.runs.last() {
            None => lines.len() <= RUN_BYTES_MAX && text.ends_before(group),
            Some(last) => last.group < group && self.segment.text.len() + lines.len() <= SEGMENT_BYTES_MAX,
        };
        if fits && !lines.is_empty() {
            self.segment.append_run(group, lines, exact);
        }
        fits
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

/// Cuts a long run into segments, each of which ends at the end of a metric. `exact` is its protobuf, if the lines cannot
/// reproduce it.
pub fn own_segments(name: &str, kind: MetricType, text: &[u8], exact: Option<&[u8]>) -> Vec<Arc<Segment>> {
    let mut segments = Vec::with_capacity(text.len() / SEGMENT_BYTES_MAX + 1);
    let mut exact = exact.map(Arc::from);
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = line_end(rest, rest.len().min(2 * SEGMENT_BYTES_MAX));
        while end < rest.len() && !ends_metric(name, kind, &rest[..end]) {
            end = line_end(rest, end + 1);
        }
        let (piece, after) = rest.split_at(end);
        let own_exact = exact.as_ref().map(|exact| (0, Arc::clone(exact)));
        exact = exact.map(|_| Arc::default());
        segments.push(Arc::new(Segment {
            text: piece.to_vec(),
            exact: own_exact.into_iter().collect(),
            ..Segment::default()
        }));
        rest = after;
    }
    segments
}

/// The end of the line that contains the byte before `at`.
fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at - 1..]).map_or(text.len(), |found| at + found)
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

    fn run_at(&self, location: Location) -> impl Iterator<Item = &[u8]> {
        let (range, shared) = match location {
            Location::Exclusive(range) => (range, None),
            Location::Shared { entry, run } => {
                let segment = &self.entries[entry].segment;
                (0..0, Some(&segment.text[segment.range_at(run)]))
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

    /// Replaces the lines of a group, or removes the group.
    pub fn replace(&mut self, group: u32, new: NewLines<'_>) {
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
                    Location::Exclusive(range) => drop(self.entries.drain(range)),
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
    }

    /// Whether all groups that have lines precede this one.
    fn ends_before(&self, group: u32) -> bool {
        let last_group = |entry: &Entry| entry.segment.runs.last().map_or(entry.first, |run| run.group);
        self.entries.last().is_none_or(|entry| last_group(entry) < group)
    }

    /// Appends gathered runs as a segment. Leaves `gathered` empty, with as much memory again.
    pub fn append(&mut self, gathered: &mut GatheredRuns) {
        let mut next = Segment::default();
        next.text.reserve_exact(gathered.segment.text.len().max(SEGMENT_BYTES_MAX));
        next.runs.reserve_exact(gathered.segment.runs.len());
        let mut full = std::mem::replace(&mut gathered.segment, next);
        full.runs.shrink_to_fit();
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
                self.entries[entry].first = first.group;
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
        let appended = self.entries[index].segment.runs.last().is_some_and(|last| last.group < group);
        if appended && self.entries[index].segment.text.len() + new.len() > SEGMENT_BYTES_MAX {
            // New groups have rising numbers, so leave the full segment as it is instead of splitting it in halves.
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
        let first = segment.runs[0].group;
        self.entries.insert(at, Entry { first, exclusive: false, segment: Arc::new(segment) });
    }

    fn split_if_large(&mut self, index: usize) {
        let segment = &self.entries[index].segment;
        if segment.text.len() <= SEGMENT_BYTES_MAX || segment.runs.len() < 2 {
            return;
        }
        let half = (segment.text.len() / 2) as u32;
        let at = segment.runs.partition_point(|run| run.end <= half).clamp(1, segment.runs.len() - 1);
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
        // Leaves room, so that the next growth does not split the segment again.
        let fits = |left: usize| {
            self.entries.get(left).zip(self.entries.get(left + 1)).is_some_and(|(a, b)| {
                !a.exclusive
                    && !b.exclusive
                    && a.segment.text.len() + b.segment.text.len() <= SEGMENT_BYTES_MAX * 3 / 4
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

#[cfg(test)]
mod tests;
