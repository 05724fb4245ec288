//! A segment: some lines of one family, with cached forms of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::encoding::encode::{Form, Piece};
use crate::exposition::escape::may_have_quoted_names;
use crate::exposition::model::MetricType;
use crate::exposition::protobuf::{metrics_of_exact, metrics_of_lines};
use crate::exposition::text::ParseError;

use super::super::duplicates::SeriesIndex;
use super::super::series::ends_metric;
use super::runs::Runs;
use super::{SEGMENT_BYTES_FILLED, SEGMENT_BYTES_MAX};

/// The memory of a segment grows by multiples of this, and that of a shorter one by multiples of the smaller number: a very large group has
/// a segment for each family, most of which have one line.
const GROWTH_BYTES: usize = 512;
const SHORT_GROWTH_BYTES: usize = 64;
const SHORT_BYTES_MAX: usize = 1024;

/// Some lines of one family, and cached forms of them.
#[derive(Debug, Default)]
pub struct Segment {
    pub(super) text: Vec<u8>,
    /// The groups, sorted by number. Empty in an exclusive segment.
    pub(super) runs: Runs,
    /// The protobuf of groups whose lines cannot reproduce it, sorted by number. In exclusive segments the number has no meaning:
    /// the first segment has the whole protobuf, the others an empty one.
    pub(super) exact: Vec<(u32, Arc<[u8]>)>,
    /// The number of lines in an exclusive segment, otherwise 0.
    pub(super) lines: u32,
    /// See [`Segment::id`]; 0 if it has none yet.
    id: AtomicU64,
    pieces: OnceLock<Box<Pieces>>,
    quoted: OnceLock<bool>,
    /// In the first segment of a long run, the series of the whole run.
    series: OnceLock<Box<SeriesIndex>>,
}

type Pieces = Mutex<Vec<(Form, Piece)>>;

/// How many pieces of a segment are cached. The oldest is evicted first.
pub(super) const PIECES_MAX: usize = 4;

impl Clone for Segment {
    /// A copy to be changed, so without cached forms.
    fn clone(&self) -> Self {
        let (text, runs, exact) = (self.text.clone(), self.runs.clone(), self.exact.clone());
        Self { text, runs, exact, lines: self.lines, ..Self::default() }
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

    /// A number that no other text has or had. It changes with the text.
    pub fn id(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let known = self.id.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        // Another core may have been faster.
        self.id.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(id)
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

    /// The series of the long run that begins with this segment, if they are indexed.
    pub(in super::super) fn series_index(&self) -> Option<&SeriesIndex> {
        self.series.get().map(|index| &**index)
    }

    /// Caches the index of the run that begins with this segment.
    pub(in super::super) fn cache_series_index(&self, index: SeriesIndex) {
        // Another look-up may have made the same index.
        let _ = self.series.set(Box::new(index));
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
            let Ok(index) = self.runs.find(*group) else { continue };
            let range = self.runs.range(index);
            metrics_of_lines(out, name, kind, &self.text[done..range.start])?;
            out.extend_from_slice(metrics_of_exact(exact));
            done = range.end;
        }
        metrics_of_lines(out, name, kind, &self.text[done..])
    }

    pub(super) fn exact_of(&self, group: u32) -> Option<&Arc<[u8]>> {
        let at = self.exact.binary_search_by_key(&group, |(group, _)| *group).ok()?;
        Some(&self.exact[at].1)
    }

    pub(super) fn exact_len(&self) -> usize {
        self.exact.iter().map(|(_, exact)| exact.len()).sum()
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
        self.id = AtomicU64::default();
        self.pieces = OnceLock::new();
        self.quoted = OnceLock::new();
        self.series = OnceLock::new();
    }

    /// Replaces the lines of the run at `index`.
    pub(super) fn splice(&mut self, index: usize, new: &[u8], exact: Option<&[u8]>) {
        self.set_exact(self.runs.group(index), exact);
        let range = self.runs.range(index);
        let old_len = range.len();
        if old_len == new.len() {
            self.text[range].copy_from_slice(new);
        } else {
            replace_range(&mut self.text, range, new);
            self.runs.resize(index, new.len());
        }
        self.clear_caches();
    }

    /// No lines yet, and the protobuf of another segment.
    pub(super) fn with_exact_of(other: &Self) -> Self {
        Self { exact: other.exact.clone(), ..Self::default() }
    }

    /// Replaces all lines and runs.
    pub(super) fn set(&mut self, text: &[u8], runs: &Runs) {
        self.text.clear();
        reserve(&mut self.text, text.len());
        self.text.extend_from_slice(text);
        shrink(&mut self.text);
        self.runs.set(runs);
        self.clear_caches();
    }

    pub(super) fn insert(&mut self, index: usize, group: u32, new: &[u8], exact: Option<&[u8]>) {
        let start = index.checked_sub(1).map_or(0, |before| self.runs.range(before).end);
        self.runs.insert(index, group, start);
        self.splice(index, new, exact);
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.splice(index, &[], None);
        self.runs.remove(index);
    }

    /// Removes and returns the runs from `index` on.
    pub(super) fn split_off(&mut self, index: usize) -> Self {
        let at = index.checked_sub(1).map_or(0, |before| self.runs.range(before).end);
        let runs = self.runs.split_off(index);
        let first = runs.first().unwrap_or(u32::MAX);
        let exact = self.exact.split_off(self.exact.partition_point(|(group, _)| *group < first));
        let text = self.text.split_off(at);
        shrink(&mut self.text);
        self.clear_caches();
        Self { text, runs, exact, ..Self::default() }
    }

    /// Adds the run of a group after all others. Doubles the memory until the segment is full, because more runs will follow.
    pub(super) fn append_run(&mut self, group: u32, lines: &[u8], exact: Option<&[u8]>) {
        let (len, wanted) = (self.text.len(), self.text.len() + lines.len());
        if self.text.capacity() < wanted {
            let doubled = (2 * self.text.capacity()).min(SEGMENT_BYTES_FILLED);
            self.text.reserve_exact(doubled.max(grown(wanted)) - len);
        }
        self.text.extend_from_slice(lines);
        self.runs.push(group, wanted);
        self.exact.extend(exact.map(|exact| (group, Arc::from(exact))));
        self.clear_caches();
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.runs.extend(&other.runs, 0..other.runs.len(), self.text.len());
        reserve(&mut self.text, other.text.len());
        self.text.extend_from_slice(&other.text);
        self.exact.extend(other.exact.iter().cloned());
        self.clear_caches();
    }
}

/// The bytes of memory of a segment beside its lines.
#[cfg(test)]
pub(in super::super) struct Allocated {
    /// For longer lines.
    pub room_bytes: usize,
    pub runs_bytes: usize,
}

#[cfg(test)]
impl Segment {
    pub(in super::super) fn allocated(&self) -> Allocated {
        let room_bytes = self.text.capacity() - self.text.len();
        Allocated { room_bytes, runs_bytes: self.runs.allocated_bytes() }
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

/// Grows the memory in steps, because doubling would leave a quarter of it empty on average.
fn reserve(text: &mut Vec<u8>, more: usize) {
    if text.capacity() - text.len() < more {
        text.reserve_exact(grown(text.len() + more) - text.len());
    }
}

/// The memory for so many bytes.
fn grown(bytes: usize) -> usize {
    bytes.next_multiple_of(if bytes < SHORT_BYTES_MAX { SHORT_GROWTH_BYTES } else { GROWTH_BYTES })
}

/// Frees memory that a shorter text does not need, but not a little, which the next change may need again.
pub(super) fn shrink(text: &mut Vec<u8>) {
    const SLACK_BYTES_MAX: usize = 2 * GROWTH_BYTES;
    if text.capacity() - text.len() > SLACK_BYTES_MAX {
        text.shrink_to(text.len() + SLACK_BYTES_MAX / 2);
    }
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
            lines: memchr::memchr_iter(b'\n', piece).count() as u32,
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
