//! Encoding: units become the pieces of a response, compressed if the client accepts it.
//!
//! Only units that are not in the cache are translated or compressed: small amounts on the core, larger ones in batches on the worker
//! threads.

use std::cell::RefCell;

use bytes::Bytes;
use futures_util::future::join_all;

use super::cache::PieceCache;
use super::merge::{Unit, plain};
use super::translate::{Part, Plan, Source, TranslateError};
use crate::cores::workers::Workers;
use crate::encoding::encode::{Coding, Form, Piece, PieceEncoder};
use crate::encoding::gzip::Member;

/// How much a worker processes at a time; about a millisecond of work.
const BATCH_BYTES: usize = 256 * 1024;
/// Up to this size the core compresses by itself, in about a tenth of a millisecond: waking a worker takes as long.
const CORE_BYTES_MAX: usize = 48 * 1024;

/// A worker failed. The log has the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encoding the scrape failed")]
pub(crate) struct EncodeFailed;

/// Encodes the scrapes of one core.
pub(crate) struct Encoder {
    encoder: RefCell<PieceEncoder>,
    workers: Workers,
    cache: PieceCache,
}

impl Encoder {
    pub(crate) fn new(workers: Workers, cache: PieceCache) -> Self {
        Self { encoder: RefCell::default(), workers, cache }
    }

    /// Translates the segments of a plan that are not cached in its form, and assembles the units.
    ///
    /// # Errors
    /// If a worker failed.
    pub(crate) async fn translate(&self, mut plan: Plan) -> Result<Vec<Unit>, EncodeFailed> {
        let sources = std::mem::take(&mut plan.sources);
        let mut parts: Vec<Option<Part>> = sources.iter().map(Source::cached).collect();
        let missing = sources.into_iter().enumerate().filter(|(at, _)| parts[*at].is_none()).collect();
        let batches = into_batches(missing, Source::text_len).into_iter().map(|batch| {
            self.workers.run(move |encoder| {
                let translate = |(at, source): (usize, Source)| Ok((at, source.translate(encoder)?));
                batch.into_iter().map(translate).collect::<Result<Vec<_>, TranslateError>>()
            })
        });
        for batch in join_all(batches.collect::<Vec<_>>()).await {
            let translated = batch.ok_or(EncodeFailed)?.map_err(|error| {
                tracing::error!(%error, "cannot translate rendered lines");
                EncodeFailed
            })?;
            for (at, part) in translated {
                parts[at] = Some(part);
            }
        }
        let parts = parts.into_iter().collect::<Option<Vec<_>>>().ok_or(EncodeFailed)?;
        Ok(plan.assemble(parts))
    }

    /// Turns units into the pieces of one response body.
    ///
    /// # Errors
    /// If a worker failed.
    pub(crate) async fn encode(&self, units: Vec<Unit>, form: Form) -> Result<Vec<Bytes>, EncodeFailed> {
        if form.coding == Coding::Identity {
            return units.into_iter().map(plain).collect::<Option<_>>().ok_or(EncodeFailed);
        }
        let mut pieces: Vec<Option<Piece>> = Vec::with_capacity(units.len());
        let mut missing: Vec<(usize, Unit)> = Vec::new();
        for (at, unit) in units.into_iter().enumerate() {
            let cached = self.cache.get(&unit, form);
            if cached.is_none() {
                missing.push((at, unit));
            }
            pieces.push(cached);
        }
        if missing.iter().map(|(_, unit)| unit.len()).sum::<usize>() <= CORE_BYTES_MAX {
            let encoder = &mut self.encoder.borrow_mut();
            for (at, unit) in missing {
                pieces[at] = Some(self.cache.encode(unit, form, encoder));
            }
        } else {
            for (at, piece) in self.encode_on_workers(missing, form).await? {
                pieces[at] = Some(piece);
            }
        }
        self.cache.end_scrape(form);
        stitch(pieces).ok_or(EncodeFailed)
    }

    async fn encode_on_workers(
        &self,
        units: Vec<(usize, Unit)>,
        form: Form,
    ) -> Result<Vec<(usize, Piece)>, EncodeFailed> {
        let batches = into_batches(units, Unit::len).into_iter().map(|batch| {
            let cache = self.cache.clone();
            self.workers.run(move |encoder| {
                let encode = |(at, unit)| (at, cache.encode(unit, form, encoder));
                batch.into_iter().map(encode).collect::<Vec<_>>()
            })
        });
        let mut pieces = Vec::new();
        for batch in join_all(batches).await {
            pieces.extend(batch.ok_or(EncodeFailed)?);
        }
        Ok(pieces)
    }
}

/// Joins compressed pieces into one body. Returns `None` if a piece is missing or not compressed.
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

/// Splits numbered items into batches of about [`BATCH_BYTES`].
fn into_batches<T>(items: Vec<(usize, T)>, len: impl Fn(&T) -> usize) -> Vec<Vec<(usize, T)>> {
    let mut batches: Vec<Vec<(usize, T)>> = Vec::new();
    let mut room = 0;
    for (at, item) in items {
        let bytes = len(&item);
        if bytes > room || batches.is_empty() {
            batches.push(Vec::new());
            room = BATCH_BYTES.max(bytes);
        }
        room -= bytes;
        batches.last_mut().expect("a batch was pushed").push((at, item));
    }
    batches
}
