//! The cache of encoded pieces, so that a scrape encodes only the text that changed since the last one.
//!
//! A piece that is one segment is cached with the segment, so it is dropped together with the text from which it was made. A unit of
//! small ranges that were copied together is cached here, by form and hash. [`super::chunks`] keeps pieces that were copied together
//! to be sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::chunks::Chunks;
use super::merge::Unit;
use crate::encoding::encode::{Coding, Form, Piece, PieceEncoder};
use crate::shard::hash::hash_128;
use crate::shard::segments::Segment;

/// After how many scrapes in other forms the pieces of a form are dropped.
const FORM_IDLE_SCRAPES_MAX: u64 = 64;

/// Encoded pieces of all cores and clients. Clones share the cache.
#[derive(Debug, Clone, Default)]
pub(crate) struct PieceCache {
    copied: Arc<Mutex<CopiedPieces>>,
    chunks: Chunks,
}

#[derive(Debug, Default)]
struct CopiedPieces {
    forms: HashMap<Form, Generations>,
    scrapes: u64,
}

#[derive(Debug, Default)]
struct Generations {
    /// Pieces of the previous scrape. The current scrape takes over those that it uses.
    old: HashMap<u128, Piece>,
    /// Pieces of the current scrape.
    new: HashMap<u128, Piece>,
    /// The number of the last scrape.
    last_scrape: u64,
}

impl PieceCache {
    /// The encoded form of a unit, if it is cached.
    pub(crate) fn get(&self, unit: &Unit, form: Form) -> Option<Piece> {
        match unit {
            Unit::Segment(segment) => cached_with_segment(segment, form),
            Unit::Copied(bytes) => self.get_copied(form, hash_128(bytes)),
            Unit::Translated(piece) => Some(piece.clone()),
        }
    }

    /// Encodes a unit and caches the result.
    pub(crate) fn encode(&self, unit: Unit, form: Form, encoder: &mut PieceEncoder) -> Piece {
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
                self.insert_copied(form, hash_128(&bytes), piece.clone());
                piece
            }
            Unit::Translated(piece) => piece,
        }
    }

    /// Copies the encoded pieces of a body together, unless that is cached.
    pub(crate) fn join(&self, form: Form, pieces: &[Bytes]) -> Vec<Bytes> {
        self.chunks.join(form, pieces)
    }

    /// Ends a scrape: drops the copied pieces of this form that no scrape used since the last call.
    pub(crate) fn end_scrape(&self, form: Form) {
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        copied.scrapes += 1;
        let scrape = copied.scrapes;
        let generations = copied.forms.entry(form).or_default();
        generations.old = std::mem::take(&mut generations.new);
        generations.last_scrape = scrape;
        copied.forms.retain(|_, generations| generations.last_scrape + FORM_IDLE_SCRAPES_MAX > scrape);
    }

    fn get_copied(&self, form: Form, hash: u128) -> Option<Piece> {
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = copied.forms.get_mut(&form)?;
        let piece = generations.new.get(&hash).or_else(|| generations.old.get(&hash)).cloned()?;
        generations.new.insert(hash, piece.clone());
        Some(piece)
    }

    fn insert_copied(&self, form: Form, hash: u128, piece: Piece) {
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        copied.forms.entry(form).or_default().new.insert(hash, piece);
    }
}

/// The encoded text of a segment, if an earlier scrape cached it there.
fn cached_with_segment(segment: &Segment, form: Form) -> Option<Piece> {
    match form.coding {
        Coding::Gzip => segment.deflated().cloned().map(Piece::Gzip),
        Coding::Zstd | Coding::Identity => segment.piece(form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::Format;
    use crate::exposition::escape::Escaping;

    const GZIP: Form = Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding: Coding::Gzip };
    const ZSTD: Form = Form { coding: Coding::Zstd, ..GZIP };

    #[test]
    fn a_piece_is_dropped_after_a_scrape_that_does_not_use_it() {
        let cache = PieceCache::default();
        let unit = Unit::Copied(Bytes::from_static(b"m 1\n"));
        assert!(cache.get(&unit, GZIP).is_none());
        cache.encode(unit.clone(), GZIP, &mut PieceEncoder::default());
        cache.end_scrape(GZIP);
        assert!(cache.get(&unit, GZIP).is_some());
        cache.end_scrape(GZIP);
        cache.end_scrape(GZIP);
        assert!(cache.get(&unit, GZIP).is_none());
    }

    #[test]
    fn an_unused_form_is_dropped() {
        let cache = PieceCache::default();
        let unit = Unit::Copied(Bytes::from_static(b"m 1\n"));
        cache.encode(unit.clone(), ZSTD, &mut PieceEncoder::default());
        cache.end_scrape(ZSTD);
        for _ in 0..FORM_IDLE_SCRAPES_MAX {
            cache.end_scrape(GZIP);
        }
        assert!(cache.get(&unit, ZSTD).is_none());
    }
}
