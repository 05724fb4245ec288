//! Frames: a frame is one batch in the log, with a checksum over all of it.

use std::ops::Range;

use bytes::{Buf, BufMut};
use sluicegate_engine::{Change, EngineError};

use super::changes;
use super::window::Window;

pub(crate) const HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// The maximum size of the changes of one batch.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// The numbers in the header of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FrameHeader {
    /// The number of the batch.
    pub sequence: u64,
    /// The mark: batches up to this one were on the disk when the frame was written.
    pub synced: u64,
    /// The run of the process that wrote the frame. Distinguishes it from remains of a reused segment.
    pub run_id: u64,
}

/// Encodes a batch into `out`: the header, the changes, and zeros up to a multiple of [`ALIGNMENT`].
///
/// # Errors
/// [`EngineError::TooLarge`] if the batch exceeds 1 GiB.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    batch: &[Change<'_>],
    header: FrameHeader,
) -> Result<(), EngineError> {
    let bytes = changes::encoded_bytes(batch);
    if bytes > BATCH_BYTES_MAX {
        return Err(EngineError::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
    }
    out.clear();
    out.reserve(HEADER_BYTES + bytes as usize + ALIGNMENT);
    // The checksum follows.
    out.put_u32_le(0);
    out.put_u32_le(bytes as u32);
    out.put_u64_le(header.sequence);
    out.put_u64_le(header.synced);
    out.put_u64_le(header.run_id);
    changes::encode(out, batch);
    let checksum = crc32c::crc32c(&out[CHECKSUM_BYTES..]);
    out[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(())
}

/// A frame in a segment whose checksum is right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// As in [`FrameHeader`].
    pub sequence: u64,
    /// As in [`FrameHeader`].
    pub synced: u64,
    /// Where in the segment the changes are.
    pub payload: Range<usize>,
}

impl Frame {
    /// Reads the frame at offset `at`. Returns `None` if there is no intact frame of that run.
    pub fn read(window: &mut Window<'_>, at: usize, run_id: u64) -> Result<Option<Self>, EngineError> {
        let payload_start = at + HEADER_BYTES;
        let Some(mut fields) = window.get(at..payload_start)? else { return Ok(None) };
        let checksum = fields.get_u32_le();
        let payload_bytes = fields.get_u32_le() as usize;
        let frame = Self {
            sequence: fields.get_u64_le(),
            synced: fields.get_u64_le(),
            payload: payload_start..payload_start + payload_bytes,
        };
        if fields.get_u64_le() != run_id {
            return Ok(None);
        }
        let covered = window.get(at + CHECKSUM_BYTES..frame.payload.end)?;
        let is_intact = covered.is_some_and(|covered| crc32c::crc32c(covered) == checksum);
        Ok(is_intact.then_some(frame))
    }

    pub fn start(&self) -> usize {
        self.payload.start - HEADER_BYTES
    }

    /// The offset at which the next frame begins.
    pub fn end(&self) -> usize {
        self.payload.end.next_multiple_of(ALIGNMENT)
    }
}
