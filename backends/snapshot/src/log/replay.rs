//! What the log says: all its segments together, and where it ends.
//!
//! A batch is missing where a frame is torn or gone. If anything that is there says that the batch was on the disk (a *mark*:
//! in the manifest, in the head of a segment, in a later frame), that is damage, and the store is refused. If not, a loss of
//! power may have done it: the log is cut there, with a warning. Whoever goes on writes a new segment, whose first number says
//! what was cut, so that the next reader finds nothing odd.

use std::num::NonZeroUsize;
use std::ops::Range;

use sluicegate_engine::EngineError;

use crate::files::Folder;
use crate::log::segment::{self, Changes, FRAME_HEAD_BYTES, Segment};
use crate::manifest::{Manifest, damaged};
use crate::parallel::for_each;

/// The log, read.
#[derive(Debug)]
pub(crate) struct Replay {
    /// In their order; only what counts.
    pub segments: Vec<(Segment, Changes)>,
    /// The number of the last batch.
    pub last: u64,
    /// Batches up to this one are known to be on the disk.
    pub synced: u64,
    /// Bytes that were written into the segments.
    pub bytes: u64,
    /// Where batches stand that may not be on the disk, although they can be read.
    pub doubtful: Vec<Doubtful>,
    pub warnings: Vec<String>,
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Doubtful {
    pub segment: u64,
    pub bytes: Range<usize>,
    /// The last batch in it.
    pub last: u64,
}

impl Doubtful {
    fn of(segment: &Segment, frames: usize, synced: u64) -> Option<Self> {
        let frames = &segment.frames[..frames];
        let first = frames.iter().find(|frame| frame.sequence > synced)?;
        let last = frames.last()?;
        let bytes = first.payload.start - FRAME_HEAD_BYTES..last.payload.end;
        Some(Self { segment: segment.head.number, bytes, last: last.sequence })
    }
}

/// Which part of the log is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Segments from here,
    pub first: u64,
    /// up to this one,
    pub last: u64,
    /// and of them batches below this number.
    pub below: u64,
}

impl Replay {
    /// Reads all of the log.
    pub fn read(folder: &Folder, manifest: &Manifest, threads: NonZeroUsize) -> Result<Self, EngineError> {
        let replay = Self::read_part(
            folder,
            manifest,
            Part { first: manifest.log_first, last: manifest.log_last, below: u64::MAX },
            threads,
        )?;
        refuse_later_segments(folder, manifest)?;
        Ok(replay)
    }

    /// Reads a part of the log that begins where the archives end.
    pub fn read_part(
        folder: &Folder,
        manifest: &Manifest,
        part: Part,
        threads: NonZeroUsize,
    ) -> Result<Self, EngineError> {
        let count = (part.last + 1).saturating_sub(part.first) as usize;
        let segments = for_each(count, threads, |at, (): &mut ()| {
            Segment::read(folder, part.first + at as u64, manifest.store)
        })?;
        let mut log = Log { folder, reached: manifest.sequence, warnings: Vec::new() };
        let limits = limits(&segments, part.below);
        // The manifest may know of more than the part holds.
        let synced = marks(&segments, manifest.synced).min(part.below - 1);
        let counts = log.walk(&segments, &limits, synced)?;
        let reached = log.reached;
        if synced > reached {
            let name = segments
                .last()
                .map_or(crate::manifest::NAME.to_owned(), |last| segment::name(last.head.number));
            let what = format!("the log ends with batch {reached}, but batch {synced} was on the disk");
            return Err(damaged(folder, &name, &what));
        }
        let partitions = manifest.archives.len();
        let changes = for_each(count, threads, |at, (): &mut ()| {
            segment::changes(folder, &segments[at], counts[at], partitions)
        })?;
        let warnings = log.warnings;
        let bytes = segments.iter().map(|segment| segment.used() as u64).sum();
        let doubtful =
            segments.iter().zip(&counts).filter_map(|(s, frames)| Doubtful::of(s, *frames, synced));
        let doubtful = doubtful.collect();
        let mut kept: Vec<_> = segments.into_iter().zip(changes).collect();
        let wiped = kept.iter().rposition(|(_, changes)| changes.wiped).unwrap_or(0);
        kept.drain(..wiped);
        Ok(Self { segments: kept, last: reached, synced, bytes, doubtful, warnings })
    }

    /// Whether the archives do not count any more.
    pub fn wiped(&self) -> bool {
        self.segments.first().is_some_and(|(_, changes)| changes.wiped)
    }
}

struct Log<'a> {
    folder: &'a Folder,
    /// The last batch that was met in order.
    reached: u64,
    warnings: Vec<String>,
}

impl Log<'_> {
    /// Finds out how many frames of each segment count.
    fn walk(&mut self, segments: &[Segment], limits: &[u64], synced: u64) -> Result<Vec<usize>, EngineError> {
        let mut counts = vec![0; segments.len()];
        for (at, (segment, limit)) in segments.iter().zip(limits).enumerate() {
            if segment.head.first >= *limit {
                // All of it was cut by an earlier start.
                continue;
            }
            if segment.head.first != self.reached + 1 {
                self.cut(segments, at, None, synced)?;
                return Ok(counts);
            }
            let last = segment.last().min(limit - 1);
            counts[at] = (last + 1 - segment.head.first) as usize;
            self.reached = last;
            let is_cut = *limit != u64::MAX && last + 1 == *limit;
            if let Some(torn) = segment.torn.filter(|_| !is_cut) {
                self.cut(segments, at, Some(torn), synced)?;
                return Ok(counts);
            }
        }
        Ok(counts)
    }

    /// Ends the log behind `reached`, if nothing says that more was on the disk.
    fn cut(
        &mut self,
        segments: &[Segment],
        at: usize,
        torn: Option<usize>,
        synced: u64,
    ) -> Result<(), EngineError> {
        let missing = self.reached + 1;
        let name = segment::name(segments[at].head.number);
        let place = torn.map_or_else(
            || format!("batch {missing} is missing before it"),
            |byte| format!("batch {missing} is torn or gone at byte {byte}"),
        );
        if synced >= missing {
            let what = format!("{place}, but batches up to {synced} were on the disk");
            return Err(damaged(self.folder, &name, &what));
        }
        let behind = segments[at].beyond.1
            + segments[at + 1..].iter().map(|later| later.frames.len() + later.beyond.1).sum::<usize>()
            + if torn.is_none() { segments[at].frames.len() } else { 0 };
        self.warnings.push(format!(
            "{}: {place}; the log was cut there, with {behind} batches behind it. None of them was known to be on the disk, \
             so a loss of power explains it",
            self.folder.path(&name).display()
        ));
        Ok(())
    }
}

/// Below which number the batches of each segment count: a later segment begins where an earlier start has cut the log.
fn limits(segments: &[Segment], below: u64) -> Vec<u64> {
    let mut limit = below;
    let mut limits: Vec<u64> = segments
        .iter()
        .rev()
        .map(|segment| {
            let this = limit;
            limit = limit.min(segment.head.first);
            this
        })
        .collect();
    limits.reverse();
    limits
}

/// The highest number that anything says was on the disk.
fn marks(segments: &[Segment], manifest: u64) -> u64 {
    let of = |segment: &Segment| {
        let frame = segment.frames.last().map_or(0, |frame| frame.synced);
        segment.head.synced.max(segment.beyond.0).max(frame)
    };
    segments.iter().map(of).fold(manifest, u64::max)
}

/// A segment that the manifest does not know was begun by a process that died before it could use it. If it was used, the
/// manifest is an old one.
fn refuse_later_segments(folder: &Folder, manifest: &Manifest) -> Result<(), EngineError> {
    for name in folder.names()? {
        let number = name.strip_prefix("log-").and_then(|number| number.parse::<u64>().ok());
        let Some(number) = number.filter(|number| *number > manifest.log_last) else { continue };
        let used = Segment::read(folder, number, manifest.store)
            .map_or(true, |segment| !segment.frames.is_empty() || segment.torn.is_some());
        if used {
            let what = format!("does not know of {name}, which has batches in it: it is an old one");
            return Err(damaged(folder, crate::manifest::NAME, &what));
        }
    }
    Ok(())
}
