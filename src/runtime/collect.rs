//! Scrapes: collecting from all cores as one cut, compressing what changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::join_all;

use crate::api::scrape::Unit;
use crate::exposition::gzip::{Deflated, Member};
use crate::shard::registry::{Moment, Registry};
use crate::shard::{Counts, Handed};

use super::home::Order;
use super::mailbox::Mailboxes;
use super::workers::Workers;

/// Units that one worker compresses at one go; about a millisecond of work.
const BATCH_BYTES: usize = 256 * 1024;

/// Says that a collection runs; ends it when dropped, also when the client left in the middle.
struct Collection<'r> {
    registry: &'r Registry,
    began: Moment,
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        self.registry.end_collection(self.began);
    }
}

/// Asks all cores for what they hold. `None` if the gateway is ending.
pub async fn collect(registry: &Registry, mailboxes: &Mailboxes) -> Option<Vec<(Vec<Handed>, Counts)>> {
    let _collection = Collection { registry, began: registry.begin_collection() };
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

/// Compressed forms of copied units, by a hash of their text. Segments keep theirs themselves.
#[derive(Debug, Default)]
pub struct CopiedUnits {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Of the scrape before: what nobody asks for again is dropped with it.
    old: HashMap<u128, Deflated>,
    new: HashMap<u128, Deflated>,
}

impl CopiedUnits {
    fn get(&self, hash: u128) -> Option<Deflated> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.new.get(&hash).or_else(|| kept.old.get(&hash)).cloned()?;
        kept.new.insert(hash, found.clone());
        Some(found)
    }

    fn keep(&self, hash: u128, deflated: Deflated) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).new.insert(hash, deflated);
    }

    /// Forgets what was not asked for since the last call.
    fn turn(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.old = std::mem::take(&mut kept.new);
    }
}

/// An exposition as one gzip member. `None` if a worker failed.
pub async fn compress(units: Vec<Unit>, workers: &Workers, copied: &Arc<CopiedUnits>) -> Option<Vec<Bytes>> {
    let mut pieces: Vec<Option<Deflated>> = Vec::with_capacity(units.len());
    let mut missing: Vec<(usize, Unit)> = Vec::new();
    for (at, unit) in units.into_iter().enumerate() {
        let known = match &unit {
            Unit::Segment(segment) => segment.deflated().cloned(),
            Unit::Copied(text) => copied.get(hash(text)),
        };
        if known.is_none() {
            missing.push((at, unit));
        }
        pieces.push(known);
    }
    let mut batches = Vec::new();
    for batch in cut_into_batches(missing) {
        let copied = copied.clone();
        batches.push(workers.run(move |deflater| {
            let deflate = |(at, unit): (usize, Unit)| match &unit {
                Unit::Segment(segment) => (at, segment.deflate_with(|text| deflater.deflate([text])).clone()),
                Unit::Copied(text) => {
                    let deflated = deflater.deflate([&text[..]]);
                    copied.keep(hash(text), deflated.clone());
                    (at, deflated)
                }
            };
            batch.into_iter().map(deflate).collect::<Vec<_>>()
        }));
    }
    for batch in join_all(batches).await {
        for (at, deflated) in batch? {
            pieces[at] = Some(deflated);
        }
    }
    copied.turn();
    let mut member = Member::with_capacity(pieces.len());
    for piece in &pieces {
        member.push(piece.as_ref()?);
    }
    Some(member.finish().buffers)
}

fn cut_into_batches(units: Vec<(usize, Unit)>) -> Vec<Vec<(usize, Unit)>> {
    let mut batches: Vec<Vec<(usize, Unit)>> = Vec::new();
    let mut room = 0;
    for (at, unit) in units {
        let bytes = unit.text().len();
        if bytes > room {
            batches.push(Vec::new());
            room = BATCH_BYTES.max(bytes);
        }
        room -= bytes;
        batches.last_mut().expect("one was just begun").push((at, unit));
    }
    batches
}

fn hash(text: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(text)
}
