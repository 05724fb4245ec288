//! The shapes that are known, for all cores.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::super::hash::hash_64;
use super::super::key::GroupingKey;
use super::Shape;
use super::skeleton::{Skeleton, fingerprint};
use crate::exposition::names::NameRules;

/// Longer bodies are parsed.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The most shapes, and the most memory for them.
const SHAPES_MAX: usize = 1024;
const SHAPES_BYTES_MAX: usize = 16 << 20;
/// The most shapes with the same fingerprint. Each of them may be compared with a body.
const CANDIDATES_MAX: usize = 8;
/// How many bodies are remembered to recognise the second one with the same pieces.
const SEEN_MAX: usize = 4096;
/// How many shapes can be made at once. Making one costs as much as two pushes.
const CREDITS_MAX: u32 = 4096;
/// So many pushes pay for a shape. A push without a shape counts more often, so that a fleet that has changed completely gets new ones.
const PUSHES_PER_CREDIT: u32 = 256;
const PAID_BY_UNKNOWN: u32 = 4;

/// The shapes of bodies that were pushed at least twice.
///
/// Reading is without a lock. Shapes are bounded in number and bytes, the least recently used are forgotten first, and making them is
/// bounded by the number of pushes: a fleet in which each push has a shape of its own pays little for that.
#[derive(Debug)]
pub struct Shapes {
    table: ArcSwap<Table>,
    /// Held while the table is replaced.
    replacing: Mutex<()>,
    /// Hashes of bodies that were pushed once, and of those that have no shape.
    seen: Box<[AtomicU64]>,
    without_shape: Box<[AtomicU64]>,
    credits: AtomicU32,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    shapes: usize,
    bytes: usize,
}

#[derive(Debug, Default, Clone)]
struct Table {
    by_fingerprint: HashMap<u64, SmallVec<[Arc<Shape>; 1]>>,
    shapes: usize,
    bytes: usize,
    /// The number of changes so far.
    generation: u64,
}

/// What a core counts until it pays for a shape.
#[derive(Debug, Default)]
pub struct Payments(u32);

impl Default for Shapes {
    fn default() -> Self {
        Self::with_limits(Limits { shapes: SHAPES_MAX, bytes: SHAPES_BYTES_MAX })
    }
}

impl Shapes {
    fn with_limits(limits: Limits) -> Self {
        let hashes = || std::iter::repeat_with(AtomicU64::default).take(SEEN_MAX).collect();
        Self {
            table: ArcSwap::default(),
            replacing: Mutex::default(),
            seen: hashes(),
            without_shape: hashes(),
            credits: AtomicU32::new(CREDITS_MAX),
            limits,
        }
    }

    /// The shape of a body for this group, if its lines have at most `bytes_max` bytes. Also reads the numbers of the body.
    pub fn find(
        &self,
        body: &[u8],
        key: &GroupingKey,
        bytes_max: usize,
        numbers: &mut Vec<f64>,
    ) -> Option<Arc<Shape>> {
        let table = self.table.load();
        if table.shapes == 0 || body.len() > BODY_BYTES_MAX {
            return None;
        }
        let candidates = table.by_fingerprint.get(&fingerprint(body)?)?;
        let bytes_max = bytes_max.saturating_sub(body.len());
        let shape = candidates
            .iter()
            .find(|shape| shape.is_for(key, bytes_max) && shape.skeleton.read_numbers(body, numbers))?;
        // Cores share the shape, so they write to it only if there is something new.
        if shape.last_used.load(Ordering::Relaxed) != table.generation {
            shape.last_used.store(table.generation, Ordering::Relaxed);
        }
        Some(shape.clone())
    }

    /// Makes a shape of a body that could be parsed and rendered for this group, if a body with the same pieces was seen before. Returns the
    /// shape if the body has it.
    pub fn learn(
        &self,
        body: &[u8],
        key: &GroupingKey,
        rules: NameRules,
        bytes_max: usize,
        numbers: &mut Vec<f64>,
    ) -> Option<Arc<Shape>> {
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        let skeleton = Skeleton::cut(body)?;
        let hash = skeleton.hash() ^ hash_64(key.names().as_bytes());
        let at = hash as usize % SEEN_MAX;
        if self.without_shape[at].load(Ordering::Relaxed) == hash
            || self.seen[at].swap(hash, Ordering::Relaxed) != hash
            || !self.take_credit()
        {
            return None;
        }
        match Shape::compile(skeleton, key, rules) {
            Some(shape) => self.insert(shape, fingerprint(body)?),
            None => self.without_shape[at].store(hash, Ordering::Relaxed),
        }
        self.find(body, key, bytes_max, numbers)
    }

    /// Counts a push, with a known shape or without.
    pub fn pay(&self, payments: &mut Payments, is_known: bool) {
        payments.0 += if is_known { 1 } else { PAID_BY_UNKNOWN };
        if payments.0 >= PUSHES_PER_CREDIT {
            payments.0 = 0;
            let add = |credits: u32| (credits < CREDITS_MAX).then_some(credits + 1);
            // Otherwise there are enough.
            let _ = self.credits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    fn take_credit(&self) -> bool {
        let take = |credits: u32| credits.checked_sub(1);
        self.credits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn insert(&self, shape: Shape, fingerprint: u64) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        table.generation += 1;
        let candidates = table.by_fingerprint.entry(fingerprint).or_default();
        let is_same = |known: &Arc<Shape>| {
            known.names == shape.names && known.skeleton.has_same_pieces(&shape.skeleton)
        };
        if candidates.iter().any(is_same) {
            // Another core was faster.
            return;
        }
        shape.last_used.store(table.generation, Ordering::Relaxed);
        let evicted = (candidates.len() >= CANDIDATES_MAX).then(|| least_recently_used(candidates.iter()));
        table.shapes += 1;
        table.bytes += shape.bytes();
        candidates.push(Arc::new(shape));
        evicted.flatten().into_iter().for_each(|id| table.evict(id));
        while table.shapes > 1 && (table.shapes > self.limits.shapes || table.bytes > self.limits.bytes) {
            let Some(id) = least_recently_used(table.by_fingerprint.values().flatten()) else { break };
            table.evict(id);
        }
        self.table.store(Arc::new(table));
    }
}

fn least_recently_used<'s>(shapes: impl Iterator<Item = &'s Arc<Shape>>) -> Option<u64> {
    shapes.min_by_key(|shape| (shape.last_used.load(Ordering::Relaxed), shape.id)).map(|shape| shape.id)
}

impl Table {
    fn evict(&mut self, id: u64) {
        let (mut shapes, mut bytes) = (self.shapes, self.bytes);
        self.by_fingerprint.retain(|_, candidates| {
            candidates.retain(|shape| {
                let stays = shape.id != id;
                if !stays {
                    shape.is_evicted.store(true, Ordering::Relaxed);
                    (shapes, bytes) = (shapes - 1, bytes - shape.bytes());
                }
                stays
            });
            !candidates.is_empty()
        });
        (self.shapes, self.bytes) = (shapes, bytes);
    }
}

#[cfg(test)]
mod tests;
