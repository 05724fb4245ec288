//! Mailboxes between cores. Commands of clients are bounded; what cores ask each other is bounded by those who ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};

use super::shard_task::Order;

/// Where a core reads its orders.
pub type Inbox = UnboundedReceiver<Order>;

/// The mailboxes of all cores. Clones are the same mailboxes.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    cores: Arc<[Mailbox]>,
    places_max: usize,
}

#[derive(Debug)]
struct Mailbox {
    sender: UnboundedSender<Order>,
    taken: Arc<AtomicUsize>,
}

/// A command's place: taken before it is sent, given back when it is answered.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mailboxes {
    /// Mailboxes for that many cores, with places for that many commands each; `None` means no bound.
    pub fn new(cores: usize, places_max: Option<usize>) -> (Self, Vec<Inbox>) {
        let (mailboxes, inboxes): (Vec<Mailbox>, Vec<Inbox>) = (0..cores)
            .map(|_| {
                let (sender, inbox) = unbounded();
                (Mailbox { sender, taken: Arc::default() }, inbox)
            })
            .unzip();
        (Self { cores: mailboxes.into(), places_max: places_max.unwrap_or(usize::MAX) }, inboxes)
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// How many commands a core has not answered yet.
    pub fn waiting(&self, core: usize) -> usize {
        self.cores[core].taken.load(Ordering::Relaxed)
    }

    /// A place for a command, unless all are taken.
    pub fn place(&self, core: usize) -> Option<Place> {
        let taken = &self.cores[core].taken;
        let place = Place { taken: taken.clone() };
        // The place counts itself; one too many gives itself back.
        (taken.fetch_add(1, Ordering::Relaxed) < self.places_max).then_some(place)
    }

    /// Sends an order. A core that has ended drops it, and with it the sender of the answer.
    pub fn order(&self, core: usize, order: Order) {
        let _ = self.cores[core].sender.unbounded_send(order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let (mailboxes, _inboxes) = Mailboxes::new(2, Some(2));
        let places = [mailboxes.place(0), mailboxes.place(0)];
        assert!(places.iter().all(Option::is_some));
        assert!(mailboxes.place(0).is_none());
        assert!(mailboxes.place(1).is_some(), "each core has places of its own");
        drop(places);
        assert_eq!(mailboxes.waiting(0), 0);
        assert!(mailboxes.place(0).is_some());
    }
}
