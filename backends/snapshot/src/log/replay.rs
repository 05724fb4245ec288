//! Replay: what all segments of the log say together, and where the log ends.
//!
//! A batch is missing if its frame is torn or gone. If a *mark* (in the manifest, in the header of a segment, in a later frame)
//! says that the batch had reached the disk, the store is damaged, and reading it is an error. Otherwise a power failure
//! explains the loss: the log is cut there, with a warning. The next run begins a new segment, whose first batch number shows
//! where the log was cut, so later reads see no gap.

use std::num::NonZeroUsize;
use std::ops::{Range, RangeInclusive};

use sluicegate_engine::EngineError;

use super::changes::SegmentChanges;
use super::segment::{self, Segment};
use crate::files::Folder;
use crate::manifest::{self, Manifest};
use crate::parallel::map_indexes;

/// The content of the log, without the records themselves.
#[derive(Debug)]
pub(crate) struct Replay {
    /// In the order of the log.
    pub segments: Vec<ReplayedSegment>,
    /// The number of the last batch.
    pub last_sequence: u64,
    /// The highest mark: batches up to this one are on the disk.
    pub synced: u64,
    /// The bytes that frames take up.
    pub bytes: u64,
    /// The parts of segments that may not be on the disk, although they can be read.
    pub unsynced: Vec<UnsyncedRange>,
    pub warnings: Vec<String>,
}

/// A segment with the changes in it that count.
#[derive(Debug)]
pub(crate) struct ReplayedSegment {
    pub segment: Segment,
    pub changes: SegmentChanges,
}

/// A part of a segment that can be read, but that no mark covers: after a restart it may be in the page cache only.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnsyncedRange {
    /// The number of the segment.
    pub segment: u64,
    pub bytes: Range<usize>,
    /// The number of the last batch in the range.
    pub last_sequence: u64,
}

impl UnsyncedRange {
    fn in_segment(segment: &Segment, frames: usize, synced: u64) -> Option<Self> {
        let frames = &segment.frames[..frames];
        let first = frames.iter().find(|frame| frame.sequence > synced)?;
        let last = frames.last()?;
        Some(Self {
            segment: segment.header.number,
            bytes: first.start()..last.payload.end,
            last_sequence: last.sequence,
        })
    }
}

/// The part of the log to read.
#[derive(Debug, Clone)]
pub(crate) struct LogPart {
    pub segments: RangeInclusive<u64>,
    /// Only batches below this number count.
    pub sequence_end: u64,
}

impl Replay {
    /// Reads the whole log.
    pub fn read(folder: &Folder, manifest: &Manifest, threads: NonZeroUsize) -> Result<Self, EngineError> {
        let part = LogPart { segments: manifest.segments(), sequence_end: u64::MAX };
        let replay = Self::read_part(folder, manifest, &part, threads)?;
        check_for_later_segments(folder, manifest)?;
        Ok(replay)
    }

    /// Reads a part of the log, which must begin where the archives end.
    pub fn read_part(
        folder: &Folder,
        manifest: &Manifest,
        part: &LogPart,
        threads: NonZeroUsize,
    ) -> Result<Self, EngineError> {
        let (first, last) = (*part.segments.start(), *part.segments.end());
        let count = (last + 1).saturating_sub(first) as usize;
        let segments = map_indexes(count, threads, |at, (): &mut ()| {
            Segment::read(folder, first + at as u64, manifest.store_id)
        })?;
        // The manifest's mark may be beyond the end of the part.
        let synced = segments.iter().map(Segment::synced).fold(manifest.synced, u64::max);
        let synced = synced.min(part.sequence_end - 1);
        let mut log = LogReader { folder, synced, last_sequence: manifest.archived, warnings: Vec::new() };
        let frame_counts = log.count_frames(&segments, part.sequence_end)?;
        let last_sequence = log.last_sequence;
        if synced > last_sequence {
            let name = segments.last().map_or_else(|| manifest::NAME.to_owned(), Segment::file_name);
            let what = format!("the log ends with batch {last_sequence}, but batch {synced} was on the disk");
            return Err(folder.damaged(&name, &what));
        }
        let warnings = log.warnings;
        let changes = map_indexes(count, threads, |at, (): &mut ()| {
            SegmentChanges::read(folder, &segments[at], frame_counts[at], manifest.archives.len())
        })?;
        let unsynced = segments
            .iter()
            .zip(&frame_counts)
            .filter_map(|(segment, frames)| UnsyncedRange::in_segment(segment, *frames, synced))
            .collect();
        let bytes = segments.iter().map(|segment| segment.used_bytes() as u64).sum();
        let segments = segments
            .into_iter()
            .zip(changes)
            .map(|(segment, changes)| ReplayedSegment { segment, changes })
            .collect();
        Ok(Self { segments, last_sequence, synced, bytes, unsynced, warnings })
    }
}

/// Follows the batches through the segments.
struct LogReader<'a> {
    folder: &'a Folder,
    /// The highest mark.
    synced: u64,
    /// The last batch found so far, without a gap before it.
    last_sequence: u64,
    warnings: Vec<String>,
}

impl LogReader<'_> {
    /// Returns how many frames of each segment count.
    fn count_frames(&mut self, segments: &[Segment], sequence_end: u64) -> Result<Vec<usize>, EngineError> {
        let ends = sequence_ends(segments, sequence_end);
        let mut counts = vec![0; segments.len()];
        for (at, (segment, end)) in segments.iter().zip(ends).enumerate() {
            let first = segment.header.first_sequence;
            if first >= end {
                // An earlier start cut all of it.
                continue;
            }
            if first != self.last_sequence + 1 {
                self.cut(&segments[at..], Gap::BeforeSegment)?;
                break;
            }
            let last = segment.last_sequence().min(end - 1);
            counts[at] = (last + 1 - first) as usize;
            self.last_sequence = last;
            let was_cut_here = end != u64::MAX && last + 1 == end;
            if let Some(offset) = segment.torn_at.filter(|_| !was_cut_here) {
                self.cut(&segments[at..], Gap::AtByte(offset))?;
                break;
            }
        }
        Ok(counts)
    }

    /// Ends the log at a gap in or before the first of `segments`.
    ///
    /// # Errors
    /// A mark says that more batches had reached the disk.
    fn cut(&mut self, segments: &[Segment], gap: Gap) -> Result<(), EngineError> {
        let Some((first, later)) = segments.split_first() else { return Ok(()) };
        let missing = self.last_sequence + 1;
        let place = match gap {
            Gap::BeforeSegment => format!("batch {missing} is missing before it"),
            Gap::AtByte(offset) => format!("batch {missing} is torn or missing at byte {offset}"),
        };
        if self.synced >= missing {
            let what = format!("{place}, but batches up to {} were on the disk", self.synced);
            return Err(first.damaged(self.folder, &what));
        }
        let all_frames = |segment: &Segment| segment.frames.len() + segment.beyond.count;
        let dropped_in_first = match gap {
            Gap::BeforeSegment => all_frames(first),
            Gap::AtByte(_) => first.beyond.count,
        };
        let dropped = dropped_in_first + later.iter().map(all_frames).sum::<usize>();
        self.warnings.push(format!(
            "{}: {place}; the log was cut there and {dropped} later batches were dropped. None of them was known to be on the \
             disk, so a power failure explains it",
            self.folder.path(&first.file_name()).display()
        ));
        Ok(())
    }
}

/// Where the batches stop being contiguous.
#[derive(Debug, Clone, Copy)]
enum Gap {
    BeforeSegment,
    /// Within the segment, at this offset.
    AtByte(usize),
}

/// For each segment the number below which its batches count: a later segment begins where an earlier start cut the log.
fn sequence_ends(segments: &[Segment], sequence_end: u64) -> Vec<u64> {
    let mut end = sequence_end;
    let mut ends = Vec::with_capacity(segments.len());
    for segment in segments.iter().rev() {
        ends.push(end);
        end = end.min(segment.header.first_sequence);
    }
    ends.reverse();
    ends
}

/// Checks that no batches are in segments after those in the manifest. A process that died before it could use a new segment
/// may have left an empty one, but batches mean that the manifest is an older copy.
fn check_for_later_segments(folder: &Folder, manifest: &Manifest) -> Result<(), EngineError> {
    for name in folder.names()? {
        let number = segment::number_in(&name).filter(|number| *number > manifest.last_segment);
        let Some(number) = number else { continue };
        let is_used = Segment::read(folder, number, manifest.store_id)
            .map_or(true, |segment| !segment.frames.is_empty() || segment.torn_at.is_some());
        if is_used {
            let what = format!("an older copy: {name}, which contains batches, is not listed");
            return Err(folder.damaged(manifest::NAME, &what));
        }
    }
    Ok(())
}
