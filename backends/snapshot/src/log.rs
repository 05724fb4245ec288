//! The log: segments of frames, one frame for each batch.

pub(crate) mod replay;
pub(crate) mod segment;
pub(crate) mod writer;
