//! Room for new connections: if there are too many, the one that has waited longest for its client is closed.
//!
//! Connections between two requests come first, then those without a complete head, then those whose body makes no progress. A head
//! needs no minimum age: a client that holds all connections with slow heads can always be replaced, oldest first, and a newcomer's
//! head usually arrives long before all others are replaced.
//!
//! The limit covers all cores, but each core has its own connections. A core that needs room therefore looks at what waits on all
//! cores. If another core has the connection to close, it asks that core, and the newcomer is served when that core has closed one. So a
//! core to which few connections belong does not close them as soon as they arrive, while other cores keep those of an attacker.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_channel::oneshot;

use super::deadlines::ConnectionTable;
use super::limits::Connections;
use super::waiting::{Overview, WaitsFor};
use crate::runtime::timeout;

/// Connections whose waits differ by less than this have waited equally long, because cores look at the clock a few times a second.
const EQUAL_WAITS: Duration = Duration::from_secs(1);
/// How many times as many connections must wait on another core for it to close one of them, if they have waited equally long.
const UNEQUAL_COUNTS: usize = 2;
/// How long a body must make no progress before its connection may be closed.
pub(super) const BODY_WAIT_MIN: Duration = Duration::from_millis(500);
/// How long another core may take to close a connection.
const OTHER_CORE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the cores tell each other about their connections.
#[derive(Debug, Default)]
pub(super) struct CoreRooms {
    cores: Mutex<Vec<Arc<CoreRoom>>>,
}

#[derive(Debug)]
struct CoreRoom {
    overview: Arc<Overview>,
    /// Other cores that ask this one to close a connection, and wait for whether it did.
    requests: Mutex<Vec<oneshot::Sender<bool>>>,
    request: Event,
}

/// Closes connections of one core when it, or another core, needs room.
pub(super) struct Room {
    table: Rc<ConnectionTable>,
    own: Arc<CoreRoom>,
    connections: Arc<Connections>,
}

/// The connections of a core that wait for the same thing.
#[derive(Clone, Copy, Debug)]
struct Candidates {
    count: usize,
    /// How long the first of them has waited.
    longest: Duration,
}

impl Room {
    pub(super) fn new(table: Rc<ConnectionTable>, connections: Arc<Connections>) -> Room {
        let own = Arc::new(CoreRoom {
            overview: table.overview(),
            requests: Mutex::default(),
            request: Event::new(),
        });
        connections.rooms.lock().push(own.clone());
        Room { table, own, connections }
    }

    /// Closes a connection that has waited longest, here or on another core. Returns whether there was one.
    pub(super) async fn make(&self) -> bool {
        for waits_for in WaitsFor::ALL {
            if let Some(other) = self.other_core_to_ask(waits_for)
                && other.close_longest().await
            {
                return true;
            }
            if self.close_own(waits_for) {
                return true;
            }
        }
        false
    }

    /// Closes connections for other cores. Never returns.
    pub(super) async fn serve_other_cores(&self) {
        loop {
            let request = self.own.request.listen();
            let requests = std::mem::take(&mut *self.own.lock_requests());
            for request in requests {
                let is_closed = WaitsFor::ALL.into_iter().any(|waits_for| self.close_own(waits_for));
                // The other core may have given up.
                let _ = request.send(is_closed);
            }
            request.await;
        }
    }

    fn close_own(&self, waits_for: WaitsFor) -> bool {
        let is_closed =
            self.candidates(&self.own, waits_for).is_some() && self.table.close_longest(waits_for);
        if is_closed {
            self.connections.count_closed_for_room();
        }
        is_closed
    }

    /// The connections of a core that may be closed.
    fn candidates(&self, core: &CoreRoom, waits_for: WaitsFor) -> Option<Candidates> {
        let minimum = match waits_for {
            WaitsFor::Request | WaitsFor::Head => Duration::ZERO,
            WaitsFor::Body => BODY_WAIT_MIN,
        };
        let waiting = core.overview.waiting(waits_for)?;
        let longest = self.table.waited(waiting.since);
        (longest >= minimum).then_some(Candidates { count: waiting.count, longest })
    }

    /// The core that has the connection to close, unless it is this one.
    fn other_core_to_ask(&self, waits_for: WaitsFor) -> Option<Arc<CoreRoom>> {
        let cores = self.connections.rooms.lock();
        let others: Vec<(Candidates, &Arc<CoreRoom>)> = cores
            .iter()
            .filter(|core| !Arc::ptr_eq(core, &self.own))
            .filter_map(|core| Some((self.candidates(core, waits_for)?, core)))
            .collect();
        let own = self.candidates(&self.own, waits_for);
        let chosen = choose(own, others.iter().map(|(candidates, _)| *candidates))?;
        Some(others[chosen].1.clone())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.connections.rooms.lock().retain(|core| !Arc::ptr_eq(core, &self.own));
        self.own.lock_requests().clear();
    }
}

/// Chooses among cores with candidates: the one with the longest wait; among several where that is equally long, the one with the most
/// candidates. Returns the number of another core, or `None` for this one.
fn choose(own: Option<Candidates>, others: impl Iterator<Item = Candidates> + Clone) -> Option<usize> {
    let longest = others.clone().chain(own).map(|core| core.longest).max()?;
    let waits_long = |core: &Candidates| core.longest + EQUAL_WAITS > longest;
    let (chosen, most) =
        others.enumerate().filter(|(_, core)| waits_long(core)).max_by_key(|(_, core)| core.count)?;
    let is_own = own.is_some_and(|own| waits_long(&own) && own.count * UNEQUAL_COUNTS >= most.count);
    (!is_own).then_some(chosen)
}

impl CoreRoom {
    /// Asks this core to close the connection that has waited longest. Returns whether it did.
    async fn close_longest(&self) -> bool {
        let (tx, rx) = oneshot::channel();
        self.lock_requests().push(tx);
        self.request.notify(1);
        matches!(timeout(OTHER_CORE_TIMEOUT, rx).await, Some(Ok(true)))
    }

    fn lock_requests(&self) -> std::sync::MutexGuard<'_, Vec<oneshot::Sender<bool>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreRooms {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<CoreRoom>>> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::future::{Either, select};

    use super::{Candidates, Room, choose};
    use crate::http::deadlines::{ConnectionTable, TableEntry};
    use crate::http::limits::{Connections, Limits};
    use crate::runtime::budget::Budget;
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};

    fn candidates(count: usize, millis: u64) -> Candidates {
        Candidates { count, longest: Duration::from_millis(millis) }
    }

    #[test]
    fn the_core_with_the_longest_wait_is_chosen() {
        let own = Some(candidates(1, 5_000));
        assert_eq!(choose(own, [candidates(90, 3_000)].into_iter()), None);
        assert_eq!(choose(own, [candidates(1, 6_001), candidates(1, 9_000)].into_iter()), Some(1));
        assert_eq!(choose(None, [candidates(1, 0)].into_iter()), Some(0));
        assert_eq!(choose(own, std::iter::empty()), None);
        assert_eq!(choose(None, std::iter::empty()), None);
    }

    #[test]
    fn among_equal_waits_the_core_with_the_most_connections_is_chosen() {
        let others = [candidates(10, 200), candidates(90, 0), candidates(500, 9_000)];
        assert_eq!(choose(Some(candidates(44, 900)), others[..2].iter().copied()), Some(1));
        assert_eq!(choose(Some(candidates(45, 900)), others[..2].iter().copied()), None);
        assert_eq!(choose(Some(candidates(45, 900)), others.into_iter()), Some(2));
    }

    /// The table and room of a core, with connections that wait.
    fn core_with(connections: &Arc<Connections>, count: usize) -> (Room, Vec<TableEntry>) {
        let table = ConnectionTable::new(&Limits::default(), Budget::new(None));
        let entries = (0..count).map(|_| table.enter()).collect();
        (Room::new(Rc::clone(&table), connections.clone()), entries)
    }

    /// Makes room `times` on a core with `own` waiting connections, while another core has `others`. Returns how often there was
    /// room, and how many of either were closed.
    fn closed(own: usize, others: usize, times: usize) -> (usize, usize, usize) {
        let (tx, rx) = std::sync::mpsc::channel();
        run_on_cores(1, DriverChoice::Epoll, move |CoreIndex(_)| {
            let tx = tx.clone();
            async move {
                let connections = Arc::<Connections>::default();
                let (room, own) = core_with(&connections, own);
                let (other_room, others) = core_with(&connections, others);
                let made = std::pin::pin!(async {
                    let mut made = 0;
                    for _ in 0..times {
                        made += usize::from(room.make().await);
                    }
                    made
                });
                let served = std::pin::pin!(other_room.serve_other_cores());
                let Either::Left((made, _)) = select(made, served).await else {
                    panic!("serving other cores never ends");
                };
                let closed = |entries: &[TableEntry]| {
                    let first = entries.iter().take_while(|entry| entry.deadline().must_make_room()).count();
                    assert!(
                        entries[first..].iter().all(|entry| !entry.deadline().must_make_room()),
                        "those that waited longest come first"
                    );
                    first
                };
                tx.send((made, closed(&own), closed(&others))).expect("the test waits");
            }
        })
        .expect("epoll works everywhere");
        rx.recv().expect("the core sends")
    }

    #[test]
    fn a_core_without_waiting_connections_gets_room_as_often_as_another_has_one() {
        assert_eq!(closed(0, 50, 51), (50, 0, 50));
    }

    #[test]
    fn a_core_with_few_connections_does_not_close_them_while_another_has_many() {
        assert_eq!(closed(5, 50, 20), (20, 0, 20));
        assert_eq!(closed(30, 50, 5), (5, 5, 0));
    }
}
