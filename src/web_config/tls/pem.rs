//! PEM as Go reads it: anything around the blocks is ignored, and so are malformed blocks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The words after `BEGIN`.
    pub(super) label: String,
    pub(super) contents: Vec<u8>,
    /// Whether it has headers, as the old form of encrypted keys.
    pub(super) has_headers: bool,
}

/// The blocks of a text.
pub(super) fn blocks(text: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) else {
            continue;
        };
        // A block that does not end must not hide those behind it.
        if let Some((block, after)) = rest_of_block(label, lines.clone()) {
            blocks.push(block);
            lines = after;
        }
    }
    blocks
}

fn rest_of_block<'a, L: Iterator<Item = &'a str>>(label: &str, mut lines: L) -> Option<(Block, L)> {
    let end = format!("-----END {label}{DASHES}");
    let mut encoded = String::new();
    let mut has_headers = false;
    loop {
        let line = lines.next()?;
        if line == end {
            break;
        }
        if line.starts_with(BEGIN) {
            return None;
        }
        if line.contains(':') && encoded.is_empty() {
            has_headers = true;
        } else {
            encoded.extend(line.chars().filter(|character| !character.is_ascii_whitespace()));
        }
    }
    let contents = STANDARD.decode(encoded).ok()?;
    Some((Block { label: label.to_owned(), contents, has_headers }, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, Vec<u8>, bool)> {
        blocks(text.as_bytes())
            .into_iter()
            .map(|block| (block.label, block.contents, block.has_headers))
            .collect()
    }

    #[test]
    fn finds_blocks_among_other_text() {
        let text = "Bag Attributes: x\n-----BEGIN A-----\nAAEC\r\nAwQ=\n-----END A-----\nnoise\n\
            -----BEGIN B C-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAEC\n-----END B C-----\n";
        assert_eq!(
            found(text),
            [("A".into(), vec![0, 1, 2, 3, 4], false), ("B C".into(), vec![0, 1, 2], true)]
        );
    }

    #[test]
    fn skips_malformed_blocks() {
        assert_eq!(found("-----BEGIN A-----\nAAEC\n"), []);
        assert_eq!(found("-----BEGIN A-----\n***\n-----END A-----\n"), []);
        let text = "-----BEGIN A-----\nAAEC\n-----BEGIN B-----\nAAEC\n-----END B-----\n";
        assert_eq!(found(text), [("B".into(), vec![0, 1, 2], false)]);
        assert_eq!(found(""), []);
    }
}
