//! Errors in the official wording.

use crate::exposition::memory::OutOfMemory;

/// Why a text body was not parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is not valid text.
    #[error("text format parsing error in line {line}: {reason}")]
    Invalid {
        /// The number of the line, starting at 1.
        line: u32,
        /// What is wrong.
        reason: Box<str>,
    },
    /// Its metrics do not fit into the memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl ParseError {
    #[cold]
    pub(super) fn new(line: u32, reason: String) -> Self {
        Self::Invalid { line, reason: reason.into_boxed_str() }
    }

    /// The number of the line, starting at 1.
    #[cfg(test)]
    pub(super) fn line(&self) -> u32 {
        match self {
            Self::Invalid { line, .. } => *line,
            Self::OutOfMemory(_) => 0,
        }
    }

    /// The reason without the line.
    #[cfg(test)]
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Invalid { reason, .. } => reason,
            Self::OutOfMemory(_) => "",
        }
    }
}
