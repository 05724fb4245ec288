//! Chunks: encoded pieces copied together, so that a scrape sends a few long buffers instead of many short ones.
//!
//! A chunk is kept as long as it has the same pieces. The address of a piece decides whether a chunk ends with it, so a piece that
//! changes moves no other chunk's ends, and only its own chunk is copied again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::encoding::encode::Form;

/// A chunk has at least this length if more pieces follow.
const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// A piece that would make a chunk longer begins the next one.
const CHUNK_BYTES_MAX: usize = 128 * 1024;
/// One of so many pieces ends a chunk that has its minimum length, so that most chunks have about 64 KB.
const PIECES_PER_END: u64 = 16;
/// Chunks of so many forms are kept. The form that was used least recently is dropped first.
const FORMS_MAX: usize = 4;

/// The chunks of recent scrapes. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks {
    /// The most recent form is last.
    forms: Arc<Mutex<Vec<FormChunks>>>,
}

#[derive(Debug)]
struct FormChunks {
    form: Form,
    chunks: Arc<ByFirst>,
}

/// By the address of their first piece, whose length may differ.
type ByFirst = HashMap<usize, Arc<Chunk>>;

#[derive(Debug)]
struct Chunk {
    /// Holding the pieces keeps their addresses from being used again.
    pieces: Vec<Bytes>,
    joined: Bytes,
}

impl Chunks {
    /// Copies the pieces of a body together, except where an earlier call for this form has done so. Keeps the chunks of this body
    /// instead of that call's. Returns the same bytes in fewer buffers.
    pub(super) fn join(&self, form: Form, pieces: &[Bytes]) -> Vec<Bytes> {
        let old = self.get(form);
        let mut chunks = ByFirst::new();
        let mut body = Vec::new();
        let mut rest = pieces;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunk_len(rest));
            rest = after;
            if let [single] = chunk {
                body.push(single.clone());
                continue;
            }
            let key = address(&chunk[0]);
            let known = old.as_ref().and_then(|old| old.get(&key)).filter(|known| known.has(chunk));
            let chunk = known
                .cloned()
                .unwrap_or_else(|| Arc::new(Chunk { pieces: chunk.to_vec(), joined: chunk.concat().into() }));
            body.push(chunk.joined.clone());
            chunks.insert(key, chunk);
        }
        self.put(form, chunks);
        body
    }

    /// The chunks of a form. They stay available to concurrent scrapes.
    fn get(&self, form: Form) -> Option<Arc<ByFirst>> {
        let forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        forms.iter().find(|known| known.form == form).map(|known| known.chunks.clone())
    }

    fn put(&self, form: Form, chunks: ByFirst) {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let same = forms.iter().position(|known| known.form == form);
        let replaced = match same {
            Some(at) => Some(forms.remove(at)),
            None if forms.len() == FORMS_MAX => Some(forms.remove(0)),
            None => None,
        };
        forms.push(FormChunks { form, chunks: Arc::new(chunks) });
        // Other scrapes need not wait until the memory is freed.
        drop(forms);
        drop(replaced);
    }
}

impl Chunk {
    fn has(&self, pieces: &[Bytes]) -> bool {
        let is_same = |(a, b): (&Bytes, &Bytes)| address(a) == address(b) && a.len() == b.len();
        self.pieces.len() == pieces.len() && self.pieces.iter().zip(pieces).all(is_same)
    }
}

/// How many pieces the first chunk has.
fn chunk_len(pieces: &[Bytes]) -> usize {
    let mut bytes = 0;
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 && bytes + piece.len() > CHUNK_BYTES_MAX {
            return at;
        }
        bytes += piece.len();
        if bytes >= CHUNK_BYTES_MIN && ends_chunk(piece) {
            return at + 1;
        }
    }
    pieces.len()
}

fn ends_chunk(piece: &Bytes) -> bool {
    // The upper bits of the product depend on all bits of the address.
    let hash = (address(piece) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 32).is_multiple_of(PIECES_PER_END)
}

fn address(piece: &Bytes) -> usize {
    piece.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::encoding::encode::Coding;
    use crate::exposition::Format;
    use crate::exposition::escape::Escaping;

    const GZIP: Form = Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding: Coding::Gzip };
    const ZSTD: Form = Form { coding: Coding::Zstd, ..GZIP };

    fn piece(len: usize, byte: u8) -> Bytes {
        vec![byte; len].into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Pieces are replaced, added and removed between scrapes; chunks never have old bytes.
        #[test]
        fn chunks_have_the_bytes_of_their_pieces(
            first in prop::collection::vec(1..5000usize, 1..80),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, 1..5000usize), 0..40),
        ) {
            let chunks = Chunks::default();
            let mut pieces: Vec<Bytes> = first.into_iter().map(|len| piece(len, 0)).collect();
            for (number, (at, change, len)) in changes.into_iter().enumerate() {
                for form in [GZIP, ZSTD] {
                    let body = chunks.join(form, &pieces);
                    prop_assert!(body.concat() == pieces.concat());
                    prop_assert!(body.iter().all(|buffer| buffer.len() <= CHUNK_BYTES_MAX));
                }
                let at = at.index(pieces.len());
                match change {
                    0 => pieces[at] = piece(len, number as u8),
                    1 => pieces.insert(at, piece(len, number as u8)),
                    _ if pieces.len() > 1 => drop(pieces.remove(at)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_changed_piece_copies_only_the_chunks_beside_it_again() {
        let chunks = Chunks::default();
        let mut pieces: Vec<Bytes> = (0..2000).map(|_| piece(2000, 1)).collect();
        let addresses = |body: &[Bytes]| body.iter().map(address).collect::<HashSet<_>>();
        let before = chunks.join(GZIP, &pieces);
        assert!(before.len() < 200, "{} buffers", before.len());
        assert_eq!(addresses(&chunks.join(GZIP, &pieces)), addresses(&before));
        pieces[1000] = piece(2001, 2);
        let after = chunks.join(GZIP, &pieces);
        assert_eq!(after.concat(), pieces.concat());
        // A chunk that ends because of its length moves the ends up to the next one that a piece ends.
        let copied = addresses(&after).difference(&addresses(&before)).count();
        assert!((1..=20).contains(&copied), "{copied} of {} buffers", after.len());
    }

    #[test]
    fn a_form_is_dropped_after_scrapes_in_others() {
        let chunks = Chunks::default();
        let pieces = vec![piece(100, 1), piece(100, 2)];
        let form = |escaping| Form { escaping, ..GZIP };
        let first = address(&chunks.join(ZSTD, &pieces)[0]);
        // Kept, so that no other buffer gets its address.
        let kept = chunks.join(ZSTD, &pieces);
        assert_eq!(address(&kept[0]), first);
        for escaping in Escaping::ALL {
            chunks.join(form(escaping), &pieces);
        }
        assert_eq!(chunks.forms.lock().expect("no panic").len(), FORMS_MAX);
        assert_ne!(address(&chunks.join(ZSTD, &pieces)[0]), first);
    }

    #[test]
    fn a_long_piece_is_not_copied() {
        let long = piece(CHUNK_BYTES_MAX + 1, 1);
        let body = Chunks::default().join(GZIP, &[piece(1, 1), long.clone(), piece(1, 2)]);
        assert!(body.iter().any(|buffer| address(buffer) == address(&long)));
    }
}
