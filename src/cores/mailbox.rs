//! Mailboxes: how one core sends a command to another.
//!
//! A push or a delete takes a permit of its home core's queue first, so clients cannot fill a mailbox without bound. Commands
//! between cores are bounded by the requests that cause them.

use std::sync::Arc;

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

use super::command::ShardCommand;
use crate::runtime::permits::{Permit, Permits};

/// The receiving end of a core's mailbox.
pub(crate) type Inbox = UnboundedReceiver<ShardCommand>;

/// The mailboxes of all cores. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Mailboxes {
    cores: Arc<[Mailbox]>,
}

#[derive(Debug)]
struct Mailbox {
    sender: UnboundedSender<ShardCommand>,
    queue: Permits,
}

impl Mailboxes {
    /// One mailbox per core, each with at most `queue_max` client commands that have no result yet; `None` means no limit.
    pub(crate) fn new(cores: usize, queue_max: Option<usize>) -> (Self, Vec<Inbox>) {
        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<Inbox>) = (0..cores)
            .map(|_| {
                let (sender, inbox) = unbounded();
                (Mailbox { sender, queue: Permits::new(queue_max) }, inbox)
            })
            .unzip();
        (Self { cores: mailboxes.into() }, inboxes)
    }

    /// The number of cores.
    pub(crate) fn cores(&self) -> usize {
        self.cores.len()
    }

    /// The number of client commands to a core that have no result yet.
    pub(crate) fn queued(&self, core: usize) -> usize {
        self.cores[core].queue.in_use()
    }

    /// A permit to send a client's command to a core, or `None` if its queue is full.
    pub(crate) fn queue_permit(&self, core: usize) -> Option<Permit> {
        self.cores[core].queue.try_acquire()
    }

    /// Sends a command. A core that has ended drops it, and with it the sender of its result.
    pub(crate) fn send(&self, core: usize, command: ShardCommand) {
        let _ = self.cores[core].sender.unbounded_send(command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_has_its_own_queue_limit() {
        let (mailboxes, _inboxes) = Mailboxes::new(2, Some(1));
        let permit = mailboxes.queue_permit(0);
        assert!(permit.is_some());
        assert!(mailboxes.queue_permit(0).is_none());
        assert!(mailboxes.queue_permit(1).is_some());
        assert_eq!(mailboxes.queued(0), 1);
    }
}
