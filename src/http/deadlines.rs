//! The phase of each connection, and the one sweep per core that enforces all deadlines.
//!
//! A timer per request would cost half a microsecond, a good part of the cost of a push. Instead, a phase stores its deadline as a
//! number of ticks, which needs no clock. A sweep over the core's connections at every tick wakes those whose deadline has passed. So
//! a deadline is late by up to two ticks; a tick is at most a sixteenth of the shortest timeout.

mod multiplexed;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use multiplexed::Streams;

use super::connection::KEPT_HEAD_BYTES_MAX;
use super::head_memory::HeadMemory;
use super::limits::Limits;
use super::read_rate::{self, ReadRate, Reading};
use super::slots::ResponseGuard;
use super::waiting::{Node, Overview, WaitingLists, WaitsFor};
use crate::runtime::budget::{Budget, Reservation};

const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(250);
/// How long a connection may wait for its first byte once draining has begun.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
const NEVER: u64 = u64::MAX;

/// What a connection is doing, which determines its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No byte of the next head has arrived.
    Idle,
    /// A head is arriving.
    Head,
    /// A body is arriving.
    Body,
    /// The request is complete; the service is working.
    Working,
    /// The response's body is being written.
    Responding,
    /// The bridge has the whole response, the kernel does not.
    Flushing,
    /// The response is sent; what the client still sends is discarded.
    Lingering,
    /// An HTTP/2 connection. Its streams have entries of their own, with the phases of requests.
    Multiplexed,
}

/// The stages of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Connections end with their current request.
    Draining,
    /// Connections end now.
    Dropping,
}

/// All connections of a core.
pub(crate) struct ConnectionTable {
    tick: Cell<u64>,
    tick_length: Duration,
    head: u64,
    request: u64,
    response: u64,
    idle: u64,
    linger: u64,
    /// The ticks of a window of [`ReadRate`], and the least that a client must read in it.
    read_window: u64,
    window_bytes_min: u64,
    budget: Budget,
    deadlines: RefCell<Vec<Rc<ConnectionDeadline>>>,
    waiting: RefCell<WaitingLists<Rc<ConnectionDeadline>>>,
    stage: Cell<Stage>,
    emptied: Cell<Option<Waker>>,
}

/// The phase and deadline of one connection or stream, shared by the sweep, the bridge, the bodies and the task that serves it.
pub(crate) struct ConnectionDeadline {
    table: Rc<ConnectionTable>,
    /// The connection, if this is a stream of it.
    connection: Option<Rc<ConnectionDeadline>>,
    /// The streams, if this is an HTTP/2 connection.
    streams: Streams,
    /// Its index in the table.
    index: Cell<usize>,
    /// Its node in the lists of waiting connections.
    node: Node,
    phase: Cell<Phase>,
    /// The first tick that is too late.
    tick: Cell<u64>,
    expired: Cell<bool>,
    must_make_room: Cell<bool>,
    body_timed_out: Cell<bool>,
    body_unread: Cell<bool>,
    /// Whether the connection has completed a request.
    responded: Cell<bool>,
    head: HeadMemory,
    read_rate: ReadRate,
    /// The sweep asks for a sample of the read rate, or whether the client is still there.
    sample_due: Cell<bool>,
    /// What the responses hold that the kernel does not have yet; several if requests are pipelined.
    guards: RefCell<Vec<ResponseGuard>>,
    waker: RefCell<Option<Waker>>,
}

/// A connection's entry in the table; removed on drop.
pub(crate) struct TableEntry(Rc<ConnectionDeadline>);

impl ConnectionTable {
    pub(crate) fn new(limits: &Limits, budget: Budget) -> Rc<ConnectionTable> {
        let timeouts =
            [limits.head_timeout, limits.request_timeout, limits.response_timeout, limits.idle_timeout];
        let shortest = timeouts.iter().flatten().min().copied().unwrap_or(TICK_MAX * 16);
        let tick_length = (shortest / 16).clamp(TICK_MIN, TICK_MAX);
        let ticks =
            |timeout: Option<Duration>| timeout.map_or(NEVER, |timeout| in_ticks(timeout, tick_length));
        Rc::new(ConnectionTable {
            tick: Cell::new(0),
            tick_length,
            head: ticks(limits.head_timeout),
            request: ticks(limits.request_timeout),
            response: ticks(limits.response_timeout),
            idle: ticks(limits.idle_timeout),
            linger: ticks(Some(limits.linger_timeout)),
            read_window: in_ticks(read_rate::WINDOW, tick_length),
            window_bytes_min: limits
                .response_rate_min
                .unwrap_or(0)
                .saturating_mul(read_rate::WINDOW.as_secs()),
            budget,
            deadlines: RefCell::default(),
            waiting: RefCell::default(),
            stage: Cell::new(Stage::Serving),
            emptied: Cell::new(None),
        })
    }

    /// Adds a new connection.
    pub(crate) fn enter(self: &Rc<Self>) -> TableEntry {
        self.enter_with(None)
    }

    /// Adds a new connection, or a stream of `connection`.
    fn enter_with(self: &Rc<Self>, connection: Option<Rc<ConnectionDeadline>>) -> TableEntry {
        let mut deadlines = self.deadlines.borrow_mut();
        let mut waiting = self.waiting.borrow_mut();
        let added = waiting.add(|node| {
            Rc::new(ConnectionDeadline {
                table: self.clone(),
                connection,
                streams: Streams::default(),
                index: Cell::new(deadlines.len()),
                node,
                phase: Cell::new(Phase::Idle),
                tick: Cell::new(self.after(self.head)),
                expired: Cell::new(false),
                must_make_room: Cell::new(false),
                body_timed_out: Cell::new(false),
                body_unread: Cell::new(false),
                responded: Cell::new(false),
                head: HeadMemory::default(),
                read_rate: ReadRate::default(),
                sample_due: Cell::new(false),
                guards: RefCell::default(),
                waker: RefCell::new(None),
            })
        });
        let deadline = added.clone();
        drop(waiting);
        deadline.enter_phase(Phase::Idle);
        if self.stage.get() != Stage::Serving {
            deadline.tighten();
        }
        deadlines.push(deadline.clone());
        TableEntry(deadline)
    }

    /// Wakes connections whose deadline has passed, and those that have to sample whether and how fast the client reads. Never
    /// returns.
    pub(crate) async fn sweep(&self) {
        let start = Instant::now();
        loop {
            crate::runtime::sleep(self.tick_length).await;
            let ticks = start.elapsed().as_nanos() / self.tick_length.as_nanos();
            self.advance_to(u64::try_from(ticks).unwrap_or(NEVER));
        }
    }

    fn advance_to(&self, tick: u64) {
        self.tick.set(tick);
        for deadline in self.deadlines.borrow().iter() {
            if deadline.tick.get() <= tick {
                deadline.tick.set(NEVER);
                deadline.expired.set(true);
                deadline.wake();
            } else if deadline.is_sampled() {
                deadline.sample_due.set(true);
                deadline.wake();
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.deadlines.borrow().len()
    }

    /// How long a connection has waited that waits since a tick of this core, or of another one with the same limits.
    pub(super) fn waited(&self, since: u64) -> Duration {
        let ticks = self.tick.get().saturating_sub(since);
        self.tick_length.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// What other cores see of the connections that wait.
    pub(super) fn overview(&self) -> Arc<Overview> {
        self.waiting.borrow().overview().clone()
    }

    /// Closes the connection that has waited longest, to make room for another one. Returns whether there was one.
    pub(super) fn close_longest(&self, waits_for: WaitsFor) -> bool {
        let longest = self.waiting.borrow().longest(waits_for).map(|(_, deadline)| deadline.clone());
        let Some(deadline) = longest else { return false };
        self.waiting.borrow_mut().set(deadline.node, None, self.tick.get());
        deadline.must_make_room.set(true);
        deadline.wake();
        true
    }

    /// Enters a stage of the shutdown, for present and future connections.
    pub(crate) fn enter_stage(&self, stage: Stage) {
        self.stage.set(stage);
        for deadline in self.deadlines.borrow().iter() {
            deadline.tighten();
            deadline.wake();
        }
    }

    /// Waits until the table is empty.
    pub(crate) async fn emptied(&self) {
        std::future::poll_fn(|context| {
            if self.deadlines.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.emptied.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// The first tick that is at least `ticks` whole ticks from now.
    fn after(&self, ticks: u64) -> u64 {
        self.tick.get().saturating_add(ticks).saturating_add(1)
    }
}

fn in_ticks(timeout: Duration, tick_length: Duration) -> u64 {
    u64::try_from(timeout.as_nanos().div_ceil(tick_length.as_nanos())).unwrap_or(NEVER)
}

impl ConnectionDeadline {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The stage of the shutdown, which is the same for all connections of the core.
    pub(crate) fn stage(&self) -> Stage {
        self.table.stage.get()
    }

    /// Stores the waker of the connection's task, which never changes.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.is_none() {
            *slot = Some(waker.clone());
        }
    }

    /// Whether the connection is between two requests.
    pub(super) fn is_between_requests(&self) -> bool {
        self.phase.get() == Phase::Idle && self.responded.get()
    }

    /// Whether the phase's deadline has passed. Returns true once per deadline.
    pub(crate) fn take_expired(&self) -> bool {
        self.expired.replace(false)
    }

    /// Whether the connection must be closed to make room for another one.
    pub(super) fn must_make_room(&self) -> bool {
        self.must_make_room.get()
    }

    /// Bytes have arrived. Between two requests, this begins a head. Returns false if there is no memory for the head.
    pub(crate) fn bytes_received(&self, count: usize) -> bool {
        match self.phase.get() {
            Phase::Idle => {
                self.enter_phase(Phase::Head);
                self.head.clear();
                if self.responded.get() {
                    self.expire_after(self.table.head);
                }
            }
            // Waits anew.
            Phase::Body => self.enter_phase(Phase::Body),
            Phase::Head
            | Phase::Working
            | Phase::Responding
            | Phase::Flushing
            | Phase::Lingering
            | Phase::Multiplexed => {}
        }
        self.phase.get() != Phase::Head || self.head.add(count, &self.table.budget)
    }

    /// Bytes of a TLS handshake have arrived. They count as those of a head, but the wait for its first byte goes on. Returns false if
    /// there is no memory for them.
    pub(super) fn handshake_received(&self, count: usize) -> bool {
        self.head.add(count, &self.table.budget)
    }

    /// The TLS handshake has ended. The deadline of the first head does not change.
    pub(super) fn handshake_ended(&self) {
        self.head.clear();
    }

    /// Reserves memory for something that the connection holds.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation> {
        self.table.budget.try_reserve(bytes)
    }

    /// There is no memory for an incomplete TLS record. Refuses the next head if no request is in progress, and returns whether it did.
    pub(super) fn refuse_record(&self) -> bool {
        let is_idle = match self.phase.get() {
            Phase::Idle | Phase::Head => true,
            Phase::Multiplexed => self.open_streams() == 0,
            _ => false,
        };
        if is_idle {
            self.head.refuse();
        }
        is_idle
    }

    /// Whether there was no memory for a head.
    pub(crate) fn is_head_refused(&self) -> bool {
        self.head.is_refused()
    }

    /// Whether so much arrived before the end of the head that it may be a long one. It may also be followed by other requests.
    pub(crate) fn may_head_be_long(&self) -> bool {
        self.head.bytes() > KEPT_HEAD_BYTES_MAX
    }

    pub(crate) fn head_received(&self, body_follows: bool) {
        self.body_unread.set(false);
        self.body_timed_out.set(false);
        if body_follows {
            self.enter_phase(Phase::Body);
            self.expire_after(self.table.request);
        } else {
            self.enter_phase(Phase::Working);
            self.expire_after(NEVER);
        }
    }

    pub(crate) fn body_received(&self) {
        if self.phase.get() == Phase::Body {
            self.enter_phase(Phase::Working);
            self.expire_after(NEVER);
        }
    }

    /// Makes the next read of the body fail, so that the service responds.
    pub(crate) fn time_out_body(&self) {
        self.body_timed_out.set(true);
        self.body_received();
    }

    pub(crate) fn body_timed_out(&self) -> bool {
        self.body_timed_out.get()
    }

    /// The service dropped the body before its end.
    pub(crate) fn leave_body_unread(&self) {
        self.body_unread.set(true);
    }

    pub(crate) fn is_body_unread(&self) -> bool {
        self.body_unread.get()
    }

    /// A response begins. `guard` is kept until the kernel has its last byte.
    pub(crate) fn response_started(&self, guard: Option<ResponseGuard>) {
        self.guards.borrow_mut().extend(guard);
        self.read_rate.restart();
        self.enter_phase(Phase::Responding);
        self.expire_after(self.table.response);
    }

    pub(crate) fn response_body_taken(&self) {
        if self.phase.get() == Phase::Responding {
            self.enter_phase(Phase::Flushing);
        }
    }

    /// The kernel has everything that was written. After a whole response, the request is complete.
    pub(crate) fn flushed(&self) {
        if self.phase.get() == Phase::Flushing {
            self.responded.set(true);
            self.enter_phase(Phase::Idle);
            self.expire_after(self.table.idle);
            self.guards.borrow_mut().clear();
            self.head.clear();
        }
    }

    /// The kernel has accepted bytes.
    pub(crate) fn bytes_sent(&self, count: usize) {
        self.read_rate.add_sent(count);
    }

    /// Whether the sweep has asked for a sample. Returns true once per tick of a request in progress or a response.
    pub(crate) fn take_sample_due(&self) -> bool {
        self.sample_due.replace(false)
    }

    /// Samples how fast the client reads, given what its kernel has not acknowledged. Returns whether its response may continue.
    pub(crate) fn may_continue(&self, unread: u64) -> bool {
        let reading = self.sample(unread);
        let guards = self.guards.borrow();
        for guard in &*guards {
            guard.set_stalled(reading != Reading::Progress);
        }
        reading != Reading::TooSlow && guards.iter().all(ResponseGuard::may_continue)
    }

    fn sample(&self, unread: u64) -> Reading {
        let ConnectionTable { tick, read_window, window_bytes_min, .. } = &*self.table;
        self.read_rate.sample(unread, tick.get(), *read_window, *window_bytes_min)
    }

    /// Whether the sweep asks for samples.
    fn is_sampled(&self) -> bool {
        match self.phase.get() {
            Phase::Responding | Phase::Flushing => true,
            // An HTTP/2 connection always reads, so its streams need not look whether the client is still there.
            Phase::Working => self.connection.is_none(),
            Phase::Multiplexed => self.streams.open.get() > 0,
            Phase::Idle | Phase::Head | Phase::Body | Phase::Lingering => false,
        }
    }

    pub(crate) fn linger(&self) {
        self.enter_phase(Phase::Lingering);
        self.expire_after(self.table.linger);
    }

    pub(crate) fn may_linger(&self) -> bool {
        self.table.stage.get() != Stage::Dropping && !self.must_make_room()
    }

    /// Whether a draining server may close the connection. A connection without a first request, or with a head that has begun, is not
    /// closed.
    pub(crate) fn may_close(&self) -> bool {
        match self.phase.get() {
            Phase::Idle => self.responded.get(),
            Phase::Head => false,
            Phase::Body
            | Phase::Working
            | Phase::Responding
            | Phase::Flushing
            | Phase::Lingering
            | Phase::Multiplexed => true,
        }
    }

    fn enter_phase(&self, phase: Phase) {
        let before = self.phase.replace(phase);
        if let Some(connection) = &self.connection {
            connection.stream_entered_phase(before, phase);
            return;
        }
        let is_first = !self.responded.get();
        let waits_for = match phase {
            // The wait for the first head begins with the connection: its first byte changes nothing.
            Phase::Head if is_first => return,
            Phase::Idle if is_first => Some(WaitsFor::Head),
            Phase::Idle => Some(WaitsFor::Request),
            Phase::Head | Phase::Lingering => Some(WaitsFor::Head),
            Phase::Body => Some(WaitsFor::Body),
            Phase::Working | Phase::Responding | Phase::Flushing | Phase::Multiplexed => None,
        };
        if !self.must_make_room() {
            self.table.waiting.borrow_mut().set(self.node, waits_for, self.table.tick.get());
        }
    }

    fn expire_after(&self, ticks: u64) {
        self.tick.set(self.table.after(ticks));
        // A deadline that passed just before the phase ended no longer counts.
        self.expired.set(false);
    }

    /// Shortens the wait for a first byte while draining.
    fn tighten(&self) {
        if self.phase.get() == Phase::Idle {
            let grace = self.table.after(in_ticks(DRAIN_GRACE, self.table.tick_length));
            self.tick.set(self.tick.get().min(grace));
        } else if self.phase.get() == Phase::Multiplexed {
            self.tighten_idle();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl TableEntry {
    pub(crate) fn deadline(&self) -> &Rc<ConnectionDeadline> {
        &self.0
    }
}

impl Drop for TableEntry {
    fn drop(&mut self) {
        let table = &self.0.table;
        if let Some(connection) = &self.0.connection {
            connection.stream_left(self.0.phase.get());
        }
        table.waiting.borrow_mut().remove(self.0.node);
        let mut deadlines = table.deadlines.borrow_mut();
        let index = self.0.index.get();
        deadlines.swap_remove(index);
        if let Some(moved) = deadlines.get(index) {
            moved.index.set(index);
        }
        if deadlines.is_empty()
            && let Some(waker) = table.emptied.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ConnectionTable, Phase, WaitsFor};
    use crate::http::limits::Limits;

    fn limits() -> Limits {
        Limits {
            head_timeout: Some(Duration::from_millis(160)),
            request_timeout: Some(Duration::from_millis(320)),
            response_timeout: None,
            idle_timeout: Some(Duration::from_millis(640)),
            ..Limits::default()
        }
    }

    #[test]
    fn each_phase_has_its_own_deadline() {
        let table = ConnectionTable::new(&limits(), super::Budget::new(None));
        assert_eq!(table.tick_length, Duration::from_millis(10));
        let entry = table.enter();
        let deadline = entry.deadline();

        table.advance_to(15);
        assert!(deadline.bytes_received(1));
        table.advance_to(17);
        assert!(deadline.take_expired(), "the first head's time starts at the accept");

        deadline.head_received(true);
        table.advance_to(17 + 32);
        assert!(!deadline.take_expired());
        table.advance_to(17 + 33);
        assert!(deadline.take_expired());
        assert_eq!(deadline.phase(), Phase::Body);
        deadline.time_out_body();
        assert!(deadline.body_timed_out());
        assert_eq!(deadline.phase(), Phase::Working);

        deadline.response_started(None);
        table.advance_to(100_000);
        assert!(!deadline.take_expired(), "there is no response timeout");
        deadline.response_body_taken();
        deadline.flushed();
        assert_eq!(deadline.phase(), Phase::Idle);
        assert!(deadline.may_close());
        table.advance_to(100_065);
        assert!(deadline.take_expired());
    }

    #[test]
    fn a_first_head_is_awaited_since_the_accept() {
        let table = ConnectionTable::new(&limits(), super::Budget::new(None));
        let (slow, newcomer) = (table.enter(), table.enter());
        table.advance_to(1);
        assert!(slow.deadline().bytes_received(1));
        assert!(table.close_longest(WaitsFor::Head));
        assert!(slow.deadline().must_make_room() && !newcomer.deadline().must_make_room());

        let served = newcomer.deadline();
        served.head_received(false);
        served.response_started(None);
        served.response_body_taken();
        served.flushed();
        let younger = table.enter();
        assert!(served.bytes_received(1), "the head of its second request begins");
        assert!(table.close_longest(WaitsFor::Head));
        assert!(younger.deadline().must_make_room() && !served.must_make_room());
    }

    #[test]
    fn removing_entries_keeps_the_indexes_right() {
        let table = ConnectionTable::new(&limits(), super::Budget::new(None));
        let mut entries: Vec<_> = (0..5).map(|_| table.enter()).collect();
        for removed in [1, 3, 0, 1, 0] {
            entries.remove(removed);
            assert_eq!(table.deadlines.borrow().len(), entries.len());
            for (index, deadline) in table.deadlines.borrow().iter().enumerate() {
                assert_eq!(deadline.index.get(), index);
            }
        }
    }
}
