//! What became of a command, and why.

use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;

use super::limits::LimitExceeded;
use super::plan::STORED_BYTES_MAX;

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command was applied.
    Applied,
    /// The push is inconsistent: its group got a failure time, and was created for that if necessary.
    Inconsistent(Inconsistency),
    /// The push would exceed a limit on the whole: its group got a failure time, and was created for that if necessary.
    OverLimit(LimitExceeded),
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
    /// The push would exceed a limit on the whole, and so would a new group with a failure time.
    #[error(transparent)]
    OverLimit(#[from] LimitExceeded),
}

/// Why a group gets a failure time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Inconsistent(#[from] Inconsistency),
    #[error(transparent)]
    OverLimit(#[from] LimitExceeded),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Inconsistent(reason) => Self::Inconsistent(reason),
            Failure::OverLimit(exceeded) => Self::OverLimit(exceeded),
        }
    }
}
