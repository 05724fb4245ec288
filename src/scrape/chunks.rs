//! Chunks: encoded pieces copied together, so that a scrape sends a few long buffers instead of many short ones.
//!
//! A chunk is kept as long as it has the same pieces. The address of a piece decides whether a chunk ends with it, so a piece that
//! changes moves no other chunk's ends, and only its own chunk is copied again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

/// A chunk has at least this length if more pieces follow.
const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// A piece that would make a chunk longer begins the next one.
const CHUNK_BYTES_MAX: usize = 128 * 1024;
/// One of so many pieces ends a chunk that has its minimum length, so that most chunks have about 64 KB.
const PIECES_PER_END: u64 = 16;

/// Chunks by the address of their first piece, whose length may differ.
pub(super) type ByFirst = HashMap<usize, Arc<Chunk>>;

/// Some pieces copied together.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Holding the pieces keeps their addresses from being used again.
    pieces: Vec<Bytes>,
    joined: Bytes,
}

/// Copies pieces together, except where one of the old chunks has them. Returns the same bytes in fewer buffers, and adds their chunks to
/// `chunks`.
pub(super) fn join(pieces: &[Bytes], old: Option<&ByFirst>, chunks: &mut ByFirst) -> Vec<Bytes> {
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
        let known = old.and_then(|old| old.get(&key)).filter(|known| known.has(chunk));
        let chunk = known
            .cloned()
            .unwrap_or_else(|| Arc::new(Chunk { pieces: chunk.to_vec(), joined: chunk.concat().into() }));
        body.push(chunk.joined.clone());
        chunks.insert(key, chunk);
    }
    body
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

    fn piece(len: usize, byte: u8) -> Bytes {
        vec![byte; len].into()
    }

    /// Joins the pieces of one body after the other.
    #[derive(Default)]
    struct Bodies(ByFirst);

    impl Bodies {
        fn join(&mut self, pieces: &[Bytes]) -> Vec<Bytes> {
            let old = std::mem::take(&mut self.0);
            join(pieces, Some(&old), &mut self.0)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Pieces are replaced, added and removed between scrapes; chunks never have old bytes.
        #[test]
        fn chunks_have_the_bytes_of_their_pieces(
            first in prop::collection::vec(1..5000usize, 1..80),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, 1..5000usize), 0..40),
        ) {
            let mut bodies = Bodies::default();
            let mut pieces: Vec<Bytes> = first.into_iter().map(|len| piece(len, 0)).collect();
            for (number, (at, change, len)) in changes.into_iter().enumerate() {
                let body = bodies.join(&pieces);
                prop_assert!(body.concat() == pieces.concat());
                prop_assert!(body.iter().all(|buffer| buffer.len() <= CHUNK_BYTES_MAX));
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
        let mut bodies = Bodies::default();
        let mut pieces: Vec<Bytes> = (0..2000).map(|_| piece(2000, 1)).collect();
        let addresses = |body: &[Bytes]| body.iter().map(address).collect::<HashSet<_>>();
        let before = bodies.join(&pieces);
        assert!(before.len() < 200, "{} buffers", before.len());
        assert_eq!(addresses(&bodies.join(&pieces)), addresses(&before));
        pieces[1000] = piece(2001, 2);
        let after = bodies.join(&pieces);
        assert_eq!(after.concat(), pieces.concat());
        // A chunk that ends because of its length moves the ends up to the next one that a piece ends.
        let copied = addresses(&after).difference(&addresses(&before)).count();
        assert!((1..=20).contains(&copied), "{copied} of {} buffers", after.len());
    }

    #[test]
    fn a_long_piece_is_not_copied() {
        let long = piece(CHUNK_BYTES_MAX + 1, 1);
        let body = Bodies::default().join(&[piece(1, 1), long.clone(), piece(1, 2)]);
        assert!(body.iter().any(|buffer| address(buffer) == address(&long)));
    }
}
