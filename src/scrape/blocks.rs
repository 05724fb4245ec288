//! Blocks: what is compressed as one piece.
//!
//! Several segments of a family are one block, because each piece has codes of its own and knows nothing of the text before it. The
//! number of a segment decides whether a block ends with it, so a segment that changes moves no other block's ends.

use std::sync::Arc;

use bytes::Bytes;

use super::merge::Unit;
use crate::encoding::encode::Piece;
use crate::shard::segments::Segment;

/// A block has at least this length if more segments of the family follow.
const BLOCK_BYTES_MIN: usize = 20 * 1024;
/// A segment that would make a block longer begins the next one.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// One of so many segments ends a block that has its minimum length.
const SEGMENTS_PER_END: u64 = 2;

/// A part of an exposition that is compressed as one piece.
#[derive(Debug, Clone)]
pub(super) enum Block {
    /// Consecutive segments of a family.
    Segments(Vec<Arc<Segment>>),
    /// Small ranges copied together.
    Copied(Bytes),
    /// Compressed already.
    Encoded(Piece),
}

impl Block {
    /// Bytes before compression.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Segments(segments) => segments.iter().map(|segment| segment.text().len()).sum(),
            Self::Copied(bytes) => bytes.len(),
            Self::Encoded(piece) => piece.plain_len(),
        }
    }
}

/// The blocks of an exposition, and between them the families of the gateway's own.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// In order.
    pub blocks: Vec<Block>,
    /// The text of some own families, how many these are, and how many blocks precede them.
    pub own: Vec<(Bytes, usize, usize)>,
}

/// Arranges units in blocks. A family begins with its header, which is no segment, so no block has segments of two families.
pub(super) fn layout(units: Vec<Unit>) -> Layout {
    let mut layout = Layout::default();
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    let mut bytes = 0;
    for unit in units {
        if let Unit::Segment(segment) = unit {
            let len = segment.text().len();
            if bytes + len > BLOCK_BYTES_MAX {
                layout.end_block(&mut segments);
                bytes = 0;
            }
            bytes += len;
            let ends = bytes >= BLOCK_BYTES_MIN && ends_block(&segment);
            segments.push(segment);
            if ends {
                layout.end_block(&mut segments);
                bytes = 0;
            }
            continue;
        }
        layout.end_block(&mut segments);
        bytes = 0;
        match unit {
            Unit::Segment(_) => {}
            Unit::Copied(text) => layout.blocks.push(Block::Copied(text)),
            Unit::Own { text, families } => layout.own.push((text, families, layout.blocks.len())),
            Unit::Translated(Piece::Plain(text)) => layout.blocks.push(Block::Copied(text)),
            Unit::Translated(piece) => layout.blocks.push(Block::Encoded(piece)),
        }
    }
    layout.end_block(&mut segments);
    layout
}

impl Layout {
    fn end_block(&mut self, segments: &mut Vec<Arc<Segment>>) {
        if !segments.is_empty() {
            self.blocks.push(Block::Segments(std::mem::take(segments)));
        }
    }
}

fn ends_block(segment: &Segment) -> bool {
    // The upper bits of the product depend on all bits of the number.
    (segment.id().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(SEGMENTS_PER_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::segments::{FamilyText, NewLines};

    fn family(groups: u32) -> FamilyText {
        let mut text = FamilyText::default();
        for group in 0..groups {
            let line = format!("m_total{{instance=\"host-{group}\",job=\"a\"}} {group}\n");
            text.replace(group, NewLines::Run(line.as_bytes()));
        }
        text
    }

    fn units(text: &FamilyText) -> Vec<Unit> {
        text.segments().cloned().map(Unit::Segment).collect()
    }

    fn ids(layout: &Layout) -> Vec<Vec<u64>> {
        let ids = |block: &Block| match block {
            Block::Segments(segments) => segments.iter().map(|segment| segment.id()).collect(),
            _ => Vec::new(),
        };
        layout.blocks.iter().map(ids).collect()
    }

    #[test]
    fn a_changed_segment_changes_few_blocks() {
        let mut text = family(50_000);
        let before = layout(units(&text));
        let lens: Vec<usize> = before.blocks.iter().map(Block::len).collect();
        assert!(lens.iter().all(|len| *len <= BLOCK_BYTES_MAX));
        assert_eq!(lens.iter().sum::<usize>(), text.len());
        assert!(before.blocks.len() < text.segments().len() * 2 / 3);
        let ids_before = ids(&before);
        drop(before);
        text.replace(20_000, NewLines::Run(b"m_total{instance=\"host-20000\",job=\"a\"} 7\n"));
        let after = ids(&layout(units(&text)));
        let changed = after.iter().filter(|ids| !ids_before.contains(ids)).count();
        assert!((1..=10).contains(&changed), "{changed} of {}", after.len());
    }

    #[test]
    fn other_units_end_a_block() {
        let text = family(1);
        let mut all = units(&text);
        all.push(Unit::Own { text: Bytes::from_static(b"own 1\n"), families: 1 });
        all.extend(units(&text));
        all.push(Unit::Copied(Bytes::from_static(b"m 1\n")));
        let layout = layout(all);
        assert_eq!(layout.blocks.len(), 3);
        assert_eq!(layout.own.iter().map(|(_, families, at)| (*families, *at)).collect::<Vec<_>>(), [(1, 1)]);
    }
}
