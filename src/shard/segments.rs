//! The text of one family on one core: where every scrape sends it from, and where every push splices it in place.
//!
//! Lines lie in segments of about 16 KB in the order of the groups' numbers. Small enough that a splice moves little and
//! that a changed segment is soon compressed again; large enough that a scrape is a short list of ranges.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::encoding::encode::{Form, Piece};
use crate::encoding::gzip::Deflated;
use crate::exposition::escape::may_have_quoted_names;
use crate::exposition::model::MetricType;
use crate::exposition::protobuf::{metrics_of_exact, metrics_of_lines};
use crate::exposition::text::ParseError;

use super::series::ends_metric;

/// Segments of several groups split above this.
pub const SEGMENT_BYTES_MAX: usize = 16 * 1024;
/// Segments below this are merged with a neighbour.
const SEGMENT_BYTES_MIN: usize = SEGMENT_BYTES_MAX / 4;
/// The step in which the memory of a segment grows.
const GROWTH_BYTES: usize = 1024;
/// A group's lines above this get segments of their own.
pub const RUN_BYTES_MAX: usize = 64 * 1024;

/// The text of one family on one core. Cloning costs a pointer per segment.
#[derive(Debug, Default, Clone)]
pub struct FamilyText {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The smallest group number inside.
    first: u32,
    /// One group's alone; such segments may follow each other.
    exclusive: bool,
    segment: Arc<Segment>,
}

/// Where the lines of a group are.
enum Place {
    /// In these entries, which are its own.
    Own(std::ops::Range<usize>),
    /// In a run of an entry that it shares with others.
    Shared(usize, usize),
    Nowhere,
}

impl Entry {
    /// Where a group's run is, or would be.
    fn find(&self, group: u32) -> Result<usize, usize> {
        let runs = &self.segment.runs;
        // Most families are in every group, so that groups stand where their numbers say: no search through cold memory.
        let guess = group.wrapping_sub(self.first) as usize;
        match runs.get(guess) {
            Some(run) if run.group == group => Ok(guess),
            _ => runs.binary_search_by_key(&group, |run| run.group),
        }
    }
}

/// Some lines of one family, and their other forms once somebody asked for them.
#[derive(Debug, Default)]
pub struct Segment {
    text: Vec<u8>,
    /// The groups inside, by number; empty in an exclusive segment.
    runs: Vec<Run>,
    /// Protobuf of the groups whose lines cannot give everything back, by number. The first exclusive segment of such a group
    /// has it all, under any number, and those behind it have an empty one.
    exact: Vec<(u32, Arc<[u8]>)>,
    deflated: OnceLock<Deflated>,
    pieces: OnceLock<Box<Pieces>>,
    quoted: OnceLock<bool>,
}

type Pieces = Mutex<Vec<(Form, Piece)>>;

/// So many forms of a segment are kept besides its text as gzip; the oldest goes first.
const PIECES_MAX: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Run {
    group: u32,
    end: u32,
}

impl Clone for Segment {
    /// A copy that is about to be changed: without other forms.
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

    /// The compressed form, if it was made since the text changed last.
    pub fn deflated(&self) -> Option<&Deflated> {
        self.deflated.get()
    }

    /// The compressed form, made now if need be and kept for the scrapes to come. Who comes second waits for the first.
    pub fn deflate_with(&self, deflate: impl FnOnce(&[u8]) -> Deflated) -> &Deflated {
        self.deflated.get_or_init(|| deflate(&self.text))
    }

    /// What is kept of another form, if it was made since the text changed last.
    pub fn piece(&self, form: Form) -> Option<Piece> {
        let pieces = self.pieces.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().find(|(known, _)| *known == form).map(|(_, piece)| piece.clone())
    }

    /// Keeps another form for the scrapes to come.
    pub fn keep_piece(&self, form: Form, piece: Piece) {
        let mut pieces = self.pieces.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|(known, _)| *known != form);
        if pieces.len() >= PIECES_MAX {
            pieces.remove(0);
        }
        pieces.push((form, piece));
    }

    /// Whether names in here may be quoted, if somebody looked since the text changed last.
    pub fn known_quoted(&self) -> Option<bool> {
        self.quoted.get().copied()
    }

    /// Whether names in here may be quoted.
    pub fn is_quoted(&self) -> bool {
        *self.quoted.get_or_init(|| may_have_quoted_names(&self.text))
    }

    /// Appends the metrics inside as fields of their protobuf family.
    ///
    /// # Errors
    /// If the lines are none of that family.
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

    /// Forgets the other forms of a text that was changed.
    fn forget(&mut self) {
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
        self.forget();
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

    /// Cuts off the runs from `index` on.
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
        give_back(&mut self.text);
        self.forget();
        Self { text, runs, exact, ..Self::default() }
    }

    /// Adds the run of a group behind all others. Doubles the memory until a segment is full: there will be more.
    fn append_run(&mut self, group: u32, lines: &[u8], exact: Option<&[u8]>) {
        let (len, wanted) = (self.text.len(), self.text.len() + lines.len());
        if self.text.capacity() < wanted {
            let doubled = (2 * self.text.capacity()).min(SEGMENT_BYTES_MAX);
            self.text.reserve_exact(doubled.max(wanted.next_multiple_of(GROWTH_BYTES)) - len);
        }
        self.text.extend_from_slice(lines);
        self.runs.push(Run { group, end: wanted as u32 });
        self.exact.extend(exact.map(|exact| (group, Arc::from(exact))));
        self.forget();
    }

    fn append(&mut self, other: &Self) {
        let at = self.text.len() as u32;
        reserve(&mut self.text, other.text.len());
        self.text.extend_from_slice(&other.text);
        self.runs.extend(other.runs.iter().map(|run| Run { group: run.group, end: run.end + at }));
        self.exact.extend(other.exact.iter().cloned());
        self.forget();
    }
}

/// As `Vec::splice`, but one move of the tail and one copy.
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
        give_back(text);
    }
}

/// Grows by 1 KB steps: doubling would leave a quarter of the memory empty.
fn reserve(text: &mut Vec<u8>, more: usize) {
    if text.capacity() - text.len() < more {
        let wanted = (text.len() + more).next_multiple_of(GROWTH_BYTES);
        text.reserve_exact(wanted - text.len());
    }
}

/// Gives memory back that a shrunken text does not need. Not for a little: the next splice may want it again.
fn give_back(text: &mut Vec<u8>) {
    const SLACK_BYTES_MAX: usize = 2048;
    if text.capacity() - text.len() > SLACK_BYTES_MAX {
        text.shrink_to(text.len() + SLACK_BYTES_MAX / 2);
    }
}

/// Runs of groups in the order of their numbers, gathered until they fill a segment: as many [`FamilyText::replace`], for the
/// price of a copy.
#[derive(Debug, Default, Clone)]
pub struct GatheredRuns {
    segment: Segment,
}

impl GatheredRuns {
    /// Whether nothing was gathered.
    pub fn is_empty(&self) -> bool {
        self.segment.runs.is_empty()
    }

    /// The lines gathered.
    pub fn text(&self) -> &[u8] {
        &self.segment.text
    }

    /// Adds the lines of a group behind all others of the family, whose `text` has what was gathered before. If that is not its
    /// place, or the lines are too many, does nothing and says so. `exact` as in [`NewLines::Exact`].
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
    /// At most [`RUN_BYTES_MAX`]; empty takes the group out of the family.
    Run(&'a [u8]),
    /// The same with the protobuf of what these lines cannot give back.
    Exact(&'a [u8], &'a [u8]),
    /// More than that, cut into segments beforehand.
    Segments(Vec<Arc<Segment>>),
}

/// Cuts a long run into segments of its own, where a metric ends. `exact` is the protobuf of what its lines cannot give back.
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

/// Where the line ends that has the byte before `at`.
fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at - 1..]).map_or(text.len(), |found| at + found)
}

impl FamilyText {
    /// The segments in order.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Arc<Segment>> {
        self.entries.iter().map(|entry| &entry.segment)
    }

    /// Bytes of all lines.
    pub fn len(&self) -> usize {
        self.entries.iter().map(|entry| entry.segment.text.len()).sum()
    }

    /// Whether no group has lines here.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The lines of a group, in one piece or several.
    pub fn run(&self, group: u32) -> impl Iterator<Item = &[u8]> {
        self.run_of(self.place(group))
    }

    fn run_of(&self, place: Place) -> impl Iterator<Item = &[u8]> {
        let (range, shared) = match place {
            Place::Own(range) => (range, None),
            Place::Shared(entry, run) => {
                let segment = &self.entries[entry].segment;
                (0..0, Some(&segment.text[segment.range_at(run)]))
            }
            Place::Nowhere => (0..0, None),
        };
        self.entries[range].iter().map(|entry| entry.segment.text()).chain(shared)
    }

    /// The lines of a group, in one piece or several, and the protobuf of what they cannot give back.
    pub fn whole(&self, group: u32) -> (impl Iterator<Item = &[u8]>, Option<&Arc<[u8]>>) {
        let place = self.place(group);
        let exact = match &place {
            Place::Own(range) => self.entries[range.start].segment.exact.first().map(|(_, exact)| exact),
            Place::Shared(entry, _) => self.entries[*entry].segment.exact_of(group),
            Place::Nowhere => None,
        };
        (self.run_of(place), exact)
    }

    /// The protobuf of a group whose lines cannot give everything back.
    pub fn exact(&self, group: u32) -> Option<Arc<[u8]>> {
        self.whole(group).1.cloned()
    }

    /// Replaces the lines of a group, or takes the group out.
    pub fn replace(&mut self, group: u32, new: NewLines<'_>) {
        let (new, exact, segments) = match new {
            NewLines::Run(new) => (new, None, Vec::new()),
            NewLines::Exact(new, exact) => (new, Some(exact), Vec::new()),
            NewLines::Segments(segments) => (&[][..], None, segments),
        };
        match self.place(group) {
            Place::Shared(entry, run) if !new.is_empty() => {
                Arc::make_mut(&mut self.entries[entry].segment).splice(run, new, exact);
                self.split_if_large(entry);
                self.merge_if_small(entry);
            }
            place => {
                match place {
                    Place::Shared(entry, run) => self.remove_run(entry, run),
                    Place::Own(range) => drop(self.entries.drain(range)),
                    Place::Nowhere => {}
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

    /// Whether all groups that have lines here come before this one.
    fn ends_before(&self, group: u32) -> bool {
        let last_group = |entry: &Entry| entry.segment.runs.last().map_or(entry.first, |run| run.group);
        self.entries.last().is_none_or(|entry| last_group(entry) < group)
    }

    /// Adds what was gathered, whose place is behind all others, as a segment. Leaves it empty, with room for as much again.
    pub fn append(&mut self, gathered: &mut GatheredRuns) {
        let mut next = Segment::default();
        next.text.reserve_exact(gathered.segment.text.len().max(SEGMENT_BYTES_MAX));
        next.runs.reserve_exact(gathered.segment.runs.len());
        let mut full = std::mem::replace(&mut gathered.segment, next);
        full.runs.shrink_to_fit();
        give_back(&mut full.text);
        self.insert_shared(self.entries.len(), full);
    }

    /// Where a group's lines are.
    fn place(&self, group: u32) -> Place {
        let end = self.entries.partition_point(|entry| entry.first <= group);
        let Some(last) = end.checked_sub(1) else { return Place::Nowhere };
        if self.entries[last].exclusive {
            let own = |entry: &&Entry| entry.first == group && entry.exclusive;
            let len = self.entries[..end].iter().rev().take_while(own).count();
            return if len > 0 { Place::Own(end - len..end) } else { Place::Nowhere };
        }
        self.entries[last].find(group).map_or(Place::Nowhere, |run| Place::Shared(last, run))
    }

    /// The entry a group's run is or would be in, if it is a shared one.
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
        // The run before it, else the one behind it, so that neighbours share a segment.
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
            // Groups come with rising numbers: leave the full segment full instead of halving it.
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
        // A run larger than a segment leaves a half that is too large.
        self.split_if_large(index + 1);
        self.split_if_large(index);
    }

    fn merge_if_small(&mut self, index: usize) {
        if self.entries[index].segment.text.len() >= SEGMENT_BYTES_MIN {
            return;
        }
        // Room is left, so that the next growth does not split it again.
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
