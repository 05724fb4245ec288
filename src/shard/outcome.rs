//! What became of a command, and why.

use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;

use super::plan::STORED_BYTES_MAX;

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command was applied.
    Applied,
    /// The push is inconsistent: its group got a failure time, and was created for that if necessary.
    Inconsistent(Inconsistency),
    /// The push was rejected and changed nothing.
    Rejected(Rejection),
}

/// Why a push is rejected and changes nothing. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A group exists whose push times would be the same series.
    #[error(
        "the group {{{0}}} exists; one that differs only by an empty instance would show the same push times"
    )]
    SamePushTimes(Arc<str>),
    /// Not every engine can store the group.
    #[error("the group would be larger than {} MiB, the most that can be stored", STORED_BYTES_MAX >> 20)]
    TooLarge,
}
