//! What became of a command, and why.

use std::sync::Arc;

use crate::exposition::consistency;
use crate::exposition::model::MetricType;

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

/// Why a push is rejected without a trace. The text is for the client.
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

/// What a push contradicts. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// The body contradicts itself, or names collide.
    #[error(transparent)]
    Exposition(consistency::Inconsistency),
    /// The family has another type.
    #[error("gathered metric family {name} has type {} but should be {}", pushed.text_name(), held.text_name())]
    Type {
        /// The family.
        name: Box<str>,
        /// Its type in other groups.
        held: MetricType,
        /// The type that was pushed.
        pushed: MetricType,
    },
    /// Another group has one of the series.
    #[error(
        "collected metric {family:?} {{ {labels} }} was collected before with the same name and label values"
    )]
    DuplicateSeries {
        /// The family.
        family: Arc<str>,
        /// The labels of the series, as rendered.
        labels: Box<str>,
    },
}

impl Inconsistency {
    pub(super) fn of_type(name: &str, held: MetricType, pushed: MetricType) -> Self {
        Self::Type { name: name.into(), held, pushed }
    }
}
