//! The cache of encoded pieces, so that a scrape encodes only the text that changed since the last one.
//!
//! Pieces are cached by form, and by the numbers of the segments from which they were made, or by a hash of the text if it was copied
//! together. Translated segments are cached with the segment, and bodies in [`super::bodies`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::blocks::Block;
use super::bodies::Bodies;
use crate::encoding::encode::{Form, Piece, PieceEncoder};
use crate::runtime::sleep;
use crate::shard::hash::hash_128;

/// After how many scrapes in other forms the pieces of a form are dropped.
const FORM_IDLE_SCRAPES_MAX: u64 = 64;

/// How often the cache looks for bodies that no scrape uses any more.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// Encoded pieces and bodies of all cores and clients. Clones share the cache.
#[derive(Debug, Clone, Default)]
pub(crate) struct PieceCache {
    pieces: Arc<Mutex<Pieces>>,
    pub(super) bodies: Bodies,
}

#[derive(Debug, Default)]
struct Pieces {
    forms: HashMap<Form, Generations>,
    scrapes: u64,
}

#[derive(Debug, Default)]
struct Generations {
    /// Pieces of the previous scrape. The current scrape takes over those that it uses.
    old: HashMap<Key, Piece>,
    /// Pieces of the current scrape.
    new: HashMap<Key, Piece>,
    /// The number of the last scrape.
    last_scrape: u64,
}

/// What a piece was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// A hash of the numbers of segments.
    Segments(u128),
    /// A hash of the text.
    Text(u128),
}

impl Key {
    /// `None` if the block is encoded already.
    fn of(block: &Block) -> Option<Self> {
        match block {
            Block::Segments(segments) => {
                let ids: Vec<u8> = segments.iter().flat_map(|segment| segment.id().to_le_bytes()).collect();
                Some(Self::Segments(hash_128(&ids)))
            }
            Block::Copied(text) => Some(Self::Text(hash_128(text))),
            Block::Encoded(_) => None,
        }
    }
}

impl PieceCache {
    /// The encoded form of a block, if it is cached.
    pub(super) fn get(&self, block: &Block, form: Form) -> Option<Piece> {
        let key = match block {
            Block::Encoded(piece) => return Some(piece.clone()),
            block => Key::of(block)?,
        };
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let generations = pieces.forms.get_mut(&form)?;
        let piece = generations.new.get(&key).or_else(|| generations.old.get(&key)).cloned()?;
        generations.new.insert(key, piece.clone());
        Some(piece)
    }

    /// Encodes a block and caches the result.
    pub(super) fn encode(&self, block: Block, form: Form, encoder: &mut PieceEncoder) -> Piece {
        let key = Key::of(&block);
        let text = match block {
            Block::Segments(segments) => match &segments[..] {
                [segment] => Bytes::copy_from_slice(segment.text()),
                segments => segments.iter().map(|segment| segment.text()).collect::<Vec<_>>().concat().into(),
            },
            Block::Copied(text) => text,
            Block::Encoded(piece) => return piece,
        };
        let piece = encoder.encode(form.coding, text);
        if let Some(key) = key {
            let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
            pieces.forms.entry(form).or_default().new.insert(key, piece.clone());
        }
        piece
    }

    /// Ends a scrape: drops the pieces of this form that no scrape used since the last call.
    pub(super) fn end_scrape(&self, form: Form) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.scrapes += 1;
        let scrape = pieces.scrapes;
        let generations = pieces.forms.entry(form).or_default();
        generations.last_scrape = scrape;
        let dropped = std::mem::replace(&mut generations.old, std::mem::take(&mut generations.new));
        let idle = |_: &Form, known: &mut Generations| known.last_scrape + FORM_IDLE_SCRAPES_MAX <= scrape;
        let idle: Vec<_> = pieces.forms.extract_if(idle).collect();
        // Other scrapes need not wait until the memory is freed.
        drop(pieces);
        drop((dropped, idle));
    }

    /// Frees the bodies that no scrape uses any more, for as long as the core runs.
    pub(crate) async fn drop_idle_regularly(self) {
        loop {
            sleep(IDLE_INTERVAL).await;
            self.bodies.drop_idle(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::encode::Coding;
    use crate::exposition::Format;
    use crate::exposition::escape::Escaping;

    const GZIP: Form = Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding: Coding::Gzip };
    const ZSTD: Form = Form { coding: Coding::Zstd, ..GZIP };

    #[test]
    fn a_piece_is_dropped_after_a_scrape_that_does_not_use_it() {
        let cache = PieceCache::default();
        let block = Block::Copied(Bytes::from_static(b"m 1\n"));
        assert!(cache.get(&block, GZIP).is_none());
        cache.encode(block.clone(), GZIP, &mut PieceEncoder::default());
        cache.end_scrape(GZIP);
        assert!(cache.get(&block, GZIP).is_some());
        cache.end_scrape(GZIP);
        cache.end_scrape(GZIP);
        assert!(cache.get(&block, GZIP).is_none());
    }

    #[test]
    fn an_unused_form_is_dropped() {
        let cache = PieceCache::default();
        let block = Block::Copied(Bytes::from_static(b"m 1\n"));
        cache.encode(block.clone(), ZSTD, &mut PieceEncoder::default());
        cache.end_scrape(ZSTD);
        for _ in 0..FORM_IDLE_SCRAPES_MAX {
            cache.end_scrape(GZIP);
        }
        assert!(cache.get(&block, ZSTD).is_none());
    }
}
