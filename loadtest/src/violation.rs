//! What a correct gateway never shows: the kinds of violation, and one violation with its evidence.

use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

/// The kinds of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationKind {
    /// An acknowledged push is missing.
    LostPush,
    /// A scrape shows a state that no order of the requests explains.
    StaleState,
    /// A scrape shows a push again after a DELETE removed it.
    RevivedGroup,
    /// A scrape shows a part of a push.
    PartialPush,
    /// A family has a type that was not pushed, or two types.
    WrongType,
    /// A scrape shows a push that no writer sent to this group.
    PhantomPush,
    /// A scrape shows a push that the gateway rejected.
    RejectedPushVisible,
    /// The gateway accepted an invalid push.
    InvalidPushAccepted,
    /// The gateway rejected a valid push.
    ValidPushRejected,
    /// The gateway rejected an invalid push with the response for another error.
    WrongRejection,
    /// A push time changed without a push, or went backwards.
    WrongPushTime,
    /// An acknowledged push is missing after a kill.
    LostAfterKill,
    /// A scrape shows a push, but not an earlier one to another group.
    TornScrape,
}

impl ViolationKind {
    /// The name in summaries and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostPush => "lost push",
            Self::StaleState => "stale state",
            Self::RevivedGroup => "revived group",
            Self::PartialPush => "partial push",
            Self::WrongType => "wrong type",
            Self::PhantomPush => "phantom push",
            Self::RejectedPushVisible => "rejected push visible",
            Self::InvalidPushAccepted => "invalid push accepted",
            Self::ValidPushRejected => "valid push rejected",
            Self::WrongRejection => "wrong rejection",
            Self::WrongPushTime => "wrong push time",
            Self::LostAfterKill => "lost after kill",
            Self::TornScrape => "torn scrape",
        }
    }
}

impl Serialize for ViolationKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A violation and the part of the history that proves it.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Kind.
    pub kind: ViolationKind,
    /// The group concerned; `None` if the violation concerns a whole scrape.
    pub group: Option<String>,
    /// The smallest history that shows the violation, one line per request or scrape, in order of time.
    pub story: Vec<String>,
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.kind.name())?;
        if let Some(group) = &self.group {
            write!(f, " ({group})")?;
        }
        writeln!(f)?;
        self.story.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}
