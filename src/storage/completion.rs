//! What follows the commit of a change: where its result goes.

use futures_channel::oneshot;

use crate::runtime::permits::Permit;
use crate::shard::outcome::{Outcome, Rejection};

/// The result of a client's command.
pub(crate) type CommandResult = Result<Outcome, CommitFailed>;

/// The engine failed to commit a change. Whether the change survives a restart is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the storage engine failed to commit the change")]
pub(crate) struct CommitFailed;

/// Where the result of a client's command goes. Holds the command's permit of its core's queue until then.
#[derive(Debug)]
pub(crate) struct CommandReply {
    pub permit: Permit,
    pub tx: oneshot::Sender<CommandResult>,
}

impl CommandReply {
    /// Releases the permit and sends the result. Any thread may call it.
    pub(crate) fn send(self, result: CommandResult) {
        drop(self.permit);
        // The client may have disconnected.
        let _ = self.tx.send(result);
    }
}

/// What to do once a change is committed, or has failed.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Send this outcome to the client.
    Command(CommandReply, Outcome),
    /// Report that all changes up to this one are committed.
    Committed(oneshot::Sender<Result<(), CommitFailed>>),
    /// Nothing.
    None,
}

impl Completion {
    /// Reports that the change is too large for the engine, which stores the group as it was before.
    pub(crate) fn reject_too_large(self) {
        match self {
            Self::Command(reply, _) => reply.send(Ok(Outcome::Rejected(Rejection::TooLarge))),
            other => other.complete(Err(CommitFailed)),
        }
    }

    /// Reports the result of the commit.
    pub(crate) fn complete(self, committed: Result<(), CommitFailed>) {
        match self {
            Self::Command(reply, outcome) => reply.send(committed.map(|()| outcome)),
            Self::Committed(tx) => {
                // The client may have disconnected.
                let _ = tx.send(committed);
            }
            Self::None => {}
        }
    }
}
