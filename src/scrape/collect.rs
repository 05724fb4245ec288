//! Scrapes: collecting from all cores as one cut, compressing what changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::join_all;

use super::merge::Unit;
use super::translate::{Part, Plan, Source};
use crate::encoding::encode::{Coding, Form, Piece, PieceEncoder};
use crate::encoding::gzip::Member;
use crate::shard::registry::Registry;
use crate::shard::segments::Segment;
use crate::shard::{Counts, FamilySnapshot};

use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::Order;
use crate::cores::workers::Workers;

/// Units that one worker compresses at one go; about a millisecond of work.
const BATCH_BYTES: usize = 256 * 1024;
/// Up to here the core compresses by itself: it takes no longer than to wake a worker, about a tenth of a millisecond.
const CORE_BYTES_MAX: usize = 48 * 1024;

/// Asks all cores for what they hold. `None` if the gateway is ending.
pub async fn collect(
    registry: &Arc<Registry>,
    mailboxes: &Mailboxes,
) -> Option<Vec<(Vec<FamilySnapshot>, Counts)>> {
    // Also ends when the client disconnects, because this future is then dropped.
    let _collection = registry.begin_collection();
    let answers = (0..mailboxes.cores()).map(|core| {
        let (answer, told) = oneshot::channel();
        mailboxes.order(core, Order::Collect(answer));
        told
    });
    let answers: Vec<_> = answers.collect();
    join_all(answers).await.into_iter().collect::<Result<_, _>>().ok()
}

/// A place among the scrapes that may be answered at one time.
pub struct ScrapePlace {
    scrapes: Arc<AtomicUsize>,
}

impl ScrapePlace {
    /// Takes a place, unless all are taken.
    pub fn take(scrapes: &Arc<AtomicUsize>, places_max: Option<usize>) -> Option<Self> {
        let place = Self { scrapes: scrapes.clone() };
        let before = scrapes.fetch_add(1, Ordering::Relaxed);
        places_max.is_none_or(|max| before < max).then_some(place)
    }
}

impl Drop for ScrapePlace {
    fn drop(&mut self) {
        self.scrapes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Compressed forms of copied units, by form and a hash of their bytes. Segments keep theirs themselves.
#[derive(Debug, Default)]
pub struct CopiedUnits {
    kept: Mutex<Kept>,
}

/// A form that was not asked for in so many scrapes is forgotten.
const FORGOTTEN_AFTER_SCRAPES: u64 = 64;

#[derive(Debug, Default)]
struct Kept {
    forms: HashMap<Form, Generations>,
    scrapes: u64,
}

#[derive(Debug, Default)]
struct Generations {
    /// Of the scrape before: what nobody asks for again is dropped with it.
    old: HashMap<u128, Piece>,
    new: HashMap<u128, Piece>,
    /// The number of the last scrape.
    scrape: u64,
}

impl CopiedUnits {
    fn get(&self, form: Form, hash: u128) -> Option<Piece> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.forms.get_mut(&form)?;
        let found = kept.new.get(&hash).or_else(|| kept.old.get(&hash)).cloned()?;
        kept.new.insert(hash, found.clone());
        Some(found)
    }

    fn keep(&self, form: Form, hash: u128, piece: Piece) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forms.entry(form).or_default().new.insert(hash, piece);
    }

    /// Forgets what was not asked for since the last call for this form.
    fn turn(&self, form: Form) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.scrapes += 1;
        let scrape = kept.scrapes;
        let generations = kept.forms.entry(form).or_default();
        generations.old = std::mem::take(&mut generations.new);
        generations.scrape = scrape;
        kept.forms.retain(|_, generations| generations.scrape + FORGOTTEN_AFTER_SCRAPES > scrape);
    }
}

/// Makes the pieces of another form which are not known yet, and puts them together. `None` if a worker failed.
pub async fn make_units(mut plan: Plan, workers: &Workers) -> Option<Vec<Unit>> {
    let sources = std::mem::take(&mut plan.sources);
    let mut parts: Vec<Option<Part>> = sources.iter().map(Source::known).collect();
    let missing = sources.into_iter().enumerate().filter(|(at, _)| parts[*at].is_none()).collect();
    let batches = cut_into_batches(missing, Source::text_len).into_iter().map(|batch| {
        workers.run(move |encoder| {
            let make = |(at, source): (usize, Source)| Ok((at, source.make(encoder)?));
            batch.into_iter().map(make).collect::<Result<Vec<_>, String>>()
        })
    });
    for batch in join_all(batches.collect::<Vec<_>>()).await {
        let made = batch?;
        if let Err(problem) = &made {
            tracing::error!(error = %problem, "lines cannot be translated");
        }
        for (at, part) in made.ok()? {
            parts[at] = Some(part);
        }
    }
    Some(plan.assemble(parts.into_iter().collect::<Option<_>>()?))
}

/// An exposition as one compressed body. `None` if a worker failed.
///
/// Little is compressed here, by `encoder`; more by the workers.
pub async fn compress(
    units: Vec<Unit>,
    form: Form,
    encoder: &RefCell<PieceEncoder>,
    workers: &Workers,
    copied: &Arc<CopiedUnits>,
) -> Option<Vec<Bytes>> {
    let mut pieces: Vec<Option<Piece>> = Vec::with_capacity(units.len());
    let mut missing: Vec<(usize, Unit)> = Vec::new();
    for (at, unit) in units.into_iter().enumerate() {
        let known = match &unit {
            Unit::Segment(segment) => known_segment(segment, form),
            Unit::Copied(bytes) => copied.get(form, hash(bytes)),
            Unit::Made(piece) => Some(piece.clone()),
        };
        if known.is_none() {
            missing.push((at, unit));
        }
        pieces.push(known);
    }
    if missing.iter().map(|(_, unit)| unit.len()).sum::<usize>() <= CORE_BYTES_MAX {
        for (at, unit) in missing {
            pieces[at] = Some(pack(unit, form, &mut encoder.borrow_mut(), copied));
        }
    } else {
        let batches = cut_into_batches(missing, Unit::len).into_iter().map(|batch| {
            let copied = copied.clone();
            workers.run(move |encoder| {
                let pack = |(at, unit)| (at, pack(unit, form, encoder, &copied));
                batch.into_iter().map(pack).collect::<Vec<_>>()
            })
        });
        for batch in join_all(batches).await {
            for (at, piece) in batch? {
                pieces[at] = Some(piece);
            }
        }
    }
    copied.turn(form);
    stitch(pieces)
}

/// Puts compressed pieces together. `None` if one is missing.
fn stitch(pieces: Vec<Option<Piece>>) -> Option<Vec<Bytes>> {
    let mut member = Member::with_capacity(pieces.len());
    let mut frames = Vec::new();
    for piece in pieces {
        match piece? {
            Piece::Gzip(deflated) => member.push(&deflated),
            Piece::Zstd { frame, .. } => frames.push(frame),
            Piece::Plain(_) => return None,
        }
    }
    Some(if frames.is_empty() { member.finish() } else { frames })
}

/// The compressed text of a segment, if it was made before.
fn known_segment(segment: &Segment, form: Form) -> Option<Piece> {
    match form.coding {
        Coding::Gzip => segment.deflated().cloned().map(Piece::Gzip),
        Coding::Zstd | Coding::Identity => segment.piece(form),
    }
}

/// Compresses a unit and keeps the outcome where the next scrape finds it.
fn pack(unit: Unit, form: Form, encoder: &mut PieceEncoder, copied: &CopiedUnits) -> Piece {
    match unit {
        Unit::Segment(segment) if form.coding == Coding::Gzip => {
            Piece::Gzip(segment.deflate_with(|text| encoder.deflate(text)).clone())
        }
        Unit::Segment(segment) => {
            let piece = encoder.encode(form.coding, Bytes::copy_from_slice(segment.text()));
            segment.cache_piece(form, piece.clone());
            piece
        }
        Unit::Copied(bytes) => {
            let piece = encoder.encode(form.coding, bytes.clone());
            copied.keep(form, hash(&bytes), piece.clone());
            piece
        }
        Unit::Made(piece) => piece,
    }
}

fn cut_into_batches<T>(items: Vec<(usize, T)>, len: impl Fn(&T) -> usize) -> Vec<Vec<(usize, T)>> {
    let mut batches: Vec<Vec<(usize, T)>> = Vec::new();
    let mut room = 0;
    for (at, item) in items {
        let bytes = len(&item);
        if bytes > room || batches.is_empty() {
            batches.push(Vec::new());
            room = BATCH_BYTES.max(bytes);
        }
        room -= bytes;
        batches.last_mut().expect("one was just begun").push((at, item));
    }
    batches
}

fn hash(text: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(text)
}
