//! Reading a file piece by piece: a segment may be larger than the free memory.

use std::ops::Range;

use sluicegate_engine::EngineError;

use crate::files::OpenFile;

/// How much of a file is read at a time, unless a range is larger.
const WINDOW_BYTES: usize = 256 * 1024;
/// How many bytes are compared with zero at a time.
const ZERO_CHUNK_BYTES: usize = 4096;

/// A view of a file with one piece of it in memory.
pub(crate) struct Window<'a> {
    file: &'a OpenFile,
    length: usize,
    buffer: Vec<u8>,
    /// Offset of the buffer in the file.
    start: usize,
}

impl<'a> Window<'a> {
    pub fn new(file: &'a OpenFile, length: usize) -> Self {
        Self { file, length, buffer: Vec::new(), start: 0 }
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the bytes of a range, or `None` if it ends outside of the file.
    pub fn get(&mut self, range: Range<usize>) -> Result<Option<&[u8]>, EngineError> {
        if range.end > self.length {
            return Ok(None);
        }
        if range.start < self.start || range.end > self.start + self.buffer.len() {
            let bytes = range.len().max(WINDOW_BYTES).min(self.length - range.start);
            self.buffer.resize(bytes, 0);
            // If reading fails, the buffer covers no range.
            self.start = self.length;
            self.file.read_at(&mut self.buffer, range.start as u64)?;
            self.start = range.start;
        }
        let start = range.start - self.start;
        Ok(self.buffer.get(start..start + range.len()))
    }

    /// Whether all bytes from `start` to the end of the file are zero.
    pub fn is_zero_from(&mut self, start: usize) -> Result<bool, EngineError> {
        for at in (start..self.length).step_by(WINDOW_BYTES) {
            let piece = self.get(at..(at + WINDOW_BYTES).min(self.length))?;
            if !piece.is_some_and(is_zero) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Without an early exit within a chunk, so that the compiler can use SIMD: the end of a segment is long.
    bytes.chunks(ZERO_CHUNK_BYTES).all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
}
