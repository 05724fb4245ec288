//! The log: a sequence of segments, which are files of frames. A frame is one batch.

pub(crate) mod changes;
pub(crate) mod frame;
pub(crate) mod replay;
pub(crate) mod segment;
mod window;
pub(crate) mod writer;
