//! Room for new connections: if there are too many, the one that has waited longest for its client is closed.
//!
//! Connections between two requests come first, then those without a complete head, then those whose body makes no progress. A head
//! needs no minimum age: a client that holds all connections with slow heads can always be replaced, oldest first, and a newcomer's
//! head usually arrives long before all others are replaced.
//!
//! The limit covers all cores, but each core has its own connections. So each core publishes how long its connections have waited. A
//! core that needs room closes a connection of its own, or asks the core that has a much older one.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_listener::Event;

use super::deadlines::ConnectionTable;
use super::limits::Connections;
use super::waiting::WaitsFor;
use crate::runtime::timeout;

/// No connection waits.
const NEVER: u64 = u64::MAX;
/// How much longer a connection of another core must have waited than one of this core, to be closed instead.
const OTHER_CORE_MILLIS: u64 = 1_000;
/// How long a body must make no progress before its connection may be closed.
const BODY_MILLIS: u64 = 500;
/// How often a core publishes how long its connections have waited.
pub(super) const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);

/// What the cores tell each other about their connections.
#[derive(Debug, Default)]
pub(super) struct CoreRooms {
    cores: Mutex<Vec<Arc<CoreRoom>>>,
}

#[derive(Debug)]
struct CoreRoom {
    /// For each [`WaitsFor`], when the connection began to wait that has waited longest. A core that asks for it takes the value.
    oldest_millis: [AtomicU64; WaitsFor::ALL.len()],
    /// How many connections other cores ask this one to close.
    requested: AtomicUsize,
    request: Event,
}

/// Closes connections of one core when it, or another core, needs room.
pub(super) struct Room {
    table: Rc<ConnectionTable>,
    own: Arc<CoreRoom>,
    connections: Arc<Connections>,
}

impl Room {
    pub(super) fn new(table: Rc<ConnectionTable>, connections: Arc<Connections>) -> Room {
        let own = Arc::new(CoreRoom {
            oldest_millis: WaitsFor::ALL.map(|_| AtomicU64::new(NEVER)),
            requested: AtomicUsize::new(0),
            request: Event::new(),
        });
        connections.rooms.lock().push(own.clone());
        Room { table, own, connections }
    }

    /// Closes the connection that has waited longest, here or on another core. Returns whether there was one.
    pub(super) fn make(&self) -> bool {
        WaitsFor::ALL.into_iter().any(|waits_for| self.close_longest(waits_for))
    }

    /// Closes connections for other cores. Never returns.
    pub(super) async fn serve_other_cores(&self) {
        loop {
            let request = self.own.request.listen();
            for _ in 0..self.own.requested.swap(0, Ordering::Acquire) {
                WaitsFor::ALL.into_iter().any(|waits_for| self.close_own(waits_for));
            }
            for waits_for in WaitsFor::ALL {
                let since = self.closable_since(waits_for).unwrap_or(NEVER);
                self.own.oldest_millis[waits_for as usize].store(since, Ordering::Relaxed);
            }
            timeout(PUBLISH_INTERVAL, request).await;
        }
    }

    fn close_longest(&self, waits_for: WaitsFor) -> bool {
        let own = self.closable_since(waits_for);
        if let Some((since, core)) = self.oldest_of_other_cores(waits_for)
            && own.is_none_or(|own| since + OTHER_CORE_MILLIS < own)
        {
            // If a third core was faster, its value is gone.
            if core.oldest_millis[waits_for as usize].swap(NEVER, Ordering::Relaxed) != NEVER {
                core.requested.fetch_add(1, Ordering::Release);
                core.request.notify(1);
                return true;
            }
        }
        self.close_own(waits_for)
    }

    fn close_own(&self, waits_for: WaitsFor) -> bool {
        let is_closed = self.closable_since(waits_for).is_some() && self.table.close_longest(waits_for);
        if is_closed {
            self.connections.count_closed_for_room();
        }
        is_closed
    }

    /// Since when a connection of this core waits that may be closed.
    fn closable_since(&self, waits_for: WaitsFor) -> Option<u64> {
        let minimum = match waits_for {
            WaitsFor::Request | WaitsFor::Head => 0,
            WaitsFor::Body => BODY_MILLIS,
        };
        let since = self.table.longest_since_millis(waits_for)?;
        (since + minimum <= self.table.now_millis()).then_some(since)
    }

    fn oldest_of_other_cores(&self, waits_for: WaitsFor) -> Option<(u64, Arc<CoreRoom>)> {
        let cores = self.connections.rooms.lock();
        let others = cores.iter().filter(|core| !Arc::ptr_eq(core, &self.own));
        others
            .map(|core| (core.oldest_millis[waits_for as usize].load(Ordering::Relaxed), core))
            .filter(|(since, _)| *since != NEVER)
            .min_by_key(|(since, _)| *since)
            .map(|(since, core)| (since, core.clone()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.connections.rooms.lock().retain(|core| !Arc::ptr_eq(core, &self.own));
    }
}

impl CoreRooms {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<CoreRoom>>> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
