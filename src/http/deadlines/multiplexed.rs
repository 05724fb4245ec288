//! Deadlines of HTTP/2: a connection has streams, and each stream has an entry of its own in the table.
//!
//! A stream enters the same phases as a request of HTTP/1, from [`Phase::Body`] or [`Phase::Working`] on. Its connection stays in
//! [`Phase::Multiplexed`]; what it waits for follows from its streams and from whether a head is incomplete.

use std::cell::Cell;
use std::rc::Rc;

use super::{ConnectionDeadline, DRAIN_GRACE, NEVER, Phase, Stage, TableEntry, in_ticks};
use crate::http::read_rate::Reading;
use crate::http::slots::ResponseGuard;
use crate::http::waiting::WaitsFor;

/// What an HTTP/2 connection knows about its streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) open: Cell<usize>,
    /// How many of them wait for more of a body.
    waiting_for_body: Cell<usize>,
    is_head_incomplete: Cell<bool>,
    /// The deadline of an incomplete head.
    head_tick: Cell<u64>,
    /// The deadline while no stream is open.
    idle_tick: Cell<u64>,
    waits_for: Cell<Option<WaitsFor>>,
    reading: Cell<Reading>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: Cell::new(0),
            waiting_for_body: Cell::new(0),
            is_head_incomplete: Cell::new(false),
            head_tick: Cell::new(NEVER),
            idle_tick: Cell::new(NEVER),
            waits_for: Cell::new(Some(WaitsFor::Head)),
            reading: Cell::new(Reading::Progress),
        }
    }
}

/// Methods of connections.
impl ConnectionDeadline {
    /// The connection has turned out to be HTTP/2. The wait for its first head goes on.
    pub(in crate::http) fn multiplex(&self) {
        self.streams.idle_tick.set(self.tick.get());
        self.phase.set(Phase::Multiplexed);
    }

    /// Now, in milliseconds since the start of the sweep.
    pub(in crate::http) fn now_millis(&self) -> u64 {
        u64::try_from(self.table.waited(0).as_millis()).unwrap_or(NEVER)
    }

    /// Whether the connection has had a stream that ended.
    pub(in crate::http) fn has_responded(&self) -> bool {
        self.responded.get()
    }

    /// How many streams are open.
    pub(in crate::http) fn open_streams(&self) -> usize {
        self.streams.open.get()
    }

    /// Adds a stream.
    pub(in crate::http) fn enter_stream(self: &Rc<Self>) -> TableEntry {
        let open = self.streams.open.get();
        if open == 0 {
            // While no stream was open, nothing was sampled.
            self.read_rate.restart();
        }
        self.streams.open.set(open + 1);
        let entry = self.table.enter_with(Some(self.clone()));
        self.update();
        entry
    }

    /// A head has begun that is not complete.
    pub(in crate::http) fn head_begun(&self) {
        if !self.streams.is_head_incomplete.replace(true) {
            self.streams.head_tick.set(self.table.after(self.table.head));
            self.update();
        }
    }

    /// A head needs further frames, so h2 holds what it has decoded. Returns false if there is no memory for a head of `bytes_max`.
    pub(in crate::http) fn head_continued(&self, bytes_max: usize) -> bool {
        self.head.bytes() > 0 || self.head.add(bytes_max, &self.table.budget)
    }

    /// A head is complete.
    pub(in crate::http) fn head_ended(&self) {
        if self.streams.is_head_incomplete.replace(false) {
            self.head.clear();
            self.update();
        }
    }

    pub(in crate::http) fn is_head_incomplete(&self) -> bool {
        self.streams.is_head_incomplete.get()
    }

    /// Bytes of a body have arrived.
    pub(in crate::http) fn body_progressed(&self) {
        if self.streams.waits_for.get() == Some(WaitsFor::Body) && !self.must_make_room() {
            self.table.waiting.borrow_mut().set(self.node, Some(WaitsFor::Body), self.table.tick.get());
        }
    }

    /// The connection has announced its end, and closes soon even if the client does not.
    pub(in crate::http) fn close_soon(&self) {
        self.streams.idle_tick.set(self.table.after(self.table.linger));
        self.update();
    }

    /// Samples how fast the client reads what the kernel has. Returns whether the connection may continue.
    pub(in crate::http) fn may_connection_continue(&self, unread: u64) -> bool {
        let reading = self.sample(unread);
        self.streams.reading.set(reading);
        reading != Reading::TooSlow
    }

    /// Shortens the wait for another request while draining.
    pub(super) fn tighten_idle(&self) {
        let grace = self.table.after(in_ticks(DRAIN_GRACE, self.table.tick_length));
        self.streams.idle_tick.set(self.streams.idle_tick.get().min(grace));
        self.update();
    }

    /// A stream of this connection has entered another phase.
    pub(super) fn stream_entered_phase(&self, before: Phase, phase: Phase) {
        let waiting = self.streams.waiting_for_body.get() + usize::from(phase == Phase::Body)
            - usize::from(before == Phase::Body);
        self.streams.waiting_for_body.set(waiting);
        self.update();
    }

    /// A stream of this connection has ended.
    pub(super) fn stream_left(&self, phase: Phase) {
        let open = self.streams.open.get() - 1;
        self.streams.open.set(open);
        if open == 0 {
            self.responded.set(true);
            let is_serving = self.table.stage.get() == Stage::Serving;
            let ticks =
                if is_serving { self.table.idle } else { in_ticks(DRAIN_GRACE, self.table.tick_length) };
            self.streams.idle_tick.set(self.table.after(ticks));
        }
        self.stream_entered_phase(phase, Phase::Idle);
    }

    /// Sets what the connection waits for, and its deadline.
    fn update(&self) {
        if self.phase.get() != Phase::Multiplexed {
            return;
        }
        let streams = &self.streams;
        let is_incomplete = streams.is_head_incomplete.get();
        let waits_for = if streams.open.get() == 0 {
            let is_between = self.responded.get() && !is_incomplete;
            Some(if is_between { WaitsFor::Request } else { WaitsFor::Head })
        } else if streams.open.get() == streams.waiting_for_body.get() {
            Some(WaitsFor::Body)
        } else {
            None
        };
        if streams.waits_for.replace(waits_for) != waits_for && !self.must_make_room() {
            self.table.waiting.borrow_mut().set(self.node, waits_for, self.table.tick.get());
        }
        let idle_tick = if streams.open.get() == 0 { streams.idle_tick.get() } else { NEVER };
        let tick = match is_incomplete {
            false => idle_tick,
            // As for HTTP/1, the time of the first head starts at the accept.
            true if !self.responded.get() => idle_tick.min(streams.head_tick.get()),
            true => streams.head_tick.get(),
        };
        if self.tick.replace(tick) != tick {
            self.expired.set(false);
        }
    }
}

/// Methods of streams.
impl ConnectionDeadline {
    /// Reserves the memory of a long head until the stream ends. Returns false if there is none.
    pub(in crate::http) fn reserve_head(&self, bytes: usize) -> bool {
        self.head.add(bytes, &self.table.budget)
    }

    /// Bytes were handed to h2.
    pub(in crate::http) fn bytes_queued(&self, count: usize) {
        self.read_rate.add_sent(count);
    }

    /// Samples whether the client takes the response, given what h2 still holds of it. If the kernel has no space (`is_blocked`), the
    /// connection tells how fast the client reads. Returns whether the response may continue.
    pub(in crate::http) fn may_stream_continue(&self, pending: u64, is_blocked: bool) -> bool {
        let reading = match &self.connection {
            Some(connection) if is_blocked => {
                self.read_rate.restart();
                connection.streams.reading.get()
            }
            _ => self.sample(pending),
        };
        for guard in &*self.guards.borrow() {
            guard.set_stalled(reading != Reading::Progress);
        }
        reading != Reading::TooSlow && self.guards.borrow().iter().all(ResponseGuard::may_continue)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Budget, ConnectionTable};
    use super::*;
    use crate::http::limits::Limits;

    const TICK: Duration = Duration::from_millis(10);

    fn table() -> Rc<ConnectionTable> {
        let limits = Limits {
            head_timeout: Some(16 * TICK),
            request_timeout: Some(32 * TICK),
            response_timeout: None,
            idle_timeout: Some(64 * TICK),
            ..Limits::default()
        };
        ConnectionTable::new(&limits, Budget::new(None))
    }

    #[test]
    fn a_connection_waits_for_what_its_streams_wait_for() {
        let table = table();
        let entry = table.enter();
        let connection = entry.deadline();
        connection.multiplex();
        let overview = table.overview();
        let waits_for = || WaitsFor::ALL.into_iter().find(|list| overview.waiting(*list).is_some());
        assert_eq!(waits_for(), Some(WaitsFor::Head));

        let first = connection.enter_stream();
        first.deadline().head_received(true);
        assert_eq!((waits_for(), connection.open_streams()), (Some(WaitsFor::Body), 1));
        let second = connection.enter_stream();
        second.deadline().head_received(false);
        assert_eq!((waits_for(), connection.open_streams()), (None, 2));
        drop(second);
        assert_eq!(waits_for(), Some(WaitsFor::Body));
        first.deadline().body_received();
        first.deadline().response_started(None);
        assert_eq!(waits_for(), None);
        drop(first);
        assert_eq!(waits_for(), Some(WaitsFor::Request));
        connection.head_begun();
        assert_eq!(waits_for(), Some(WaitsFor::Head));
        connection.head_ended();
        assert_eq!(waits_for(), Some(WaitsFor::Request));
        drop(entry);
        assert_eq!((waits_for(), table.count()), (None, 0));
    }

    #[test]
    fn heads_and_the_time_between_streams_have_deadlines() {
        let table = table();
        let entry = table.enter();
        let connection = entry.deadline();
        connection.multiplex();
        table.advance_to(15);
        connection.head_begun();
        table.advance_to(17);
        assert!(connection.take_expired(), "the first head's time starts at the accept");

        connection.head_ended();
        let stream = connection.enter_stream();
        stream.deadline().head_received(true);
        table.advance_to(50);
        assert!(!connection.take_expired() && stream.deadline().take_expired());
        connection.head_begun();
        table.advance_to(67);
        assert!(connection.take_expired(), "a head is timed while streams are open");
        connection.head_ended();
        drop(stream);
        table.advance_to(67 + 64);
        assert!(!connection.take_expired());
        table.advance_to(67 + 65);
        assert!(connection.take_expired());
    }

    #[test]
    fn the_rate_of_a_connection_starts_anew_with_its_streams() {
        let table = table();
        let entry = table.enter();
        let connection = entry.deadline();
        connection.multiplex();
        let window = table.read_window;
        for round in 0..3 {
            let stream = connection.enter_stream();
            connection.bytes_sent(100);
            assert!(connection.may_connection_continue(100));
            drop(stream);
            table.advance_to((round + 1) * 2 * window);
        }
        let _stream = connection.enter_stream();
        assert!(connection.may_connection_continue(100));
        table.advance_to(10 * window);
        assert!(!connection.may_connection_continue(100), "nothing was read for a window");
    }

    #[test]
    fn a_stream_is_as_slow_as_its_connection_while_the_kernel_has_no_space() {
        let table = table();
        let entry = table.enter();
        let connection = entry.deadline();
        connection.multiplex();
        let entry = connection.enter_stream();
        let stream = entry.deadline();
        stream.head_received(false);
        stream.response_started(None);
        stream.bytes_queued(1_000);
        assert!(stream.may_stream_continue(1_000, false));
        table.advance_to(2 * table.read_window);
        assert!(stream.may_stream_continue(1_000, true), "the connection makes progress");
        assert!(stream.may_stream_continue(1_000, false), "the window of the rate begins here");
        table.advance_to(4 * table.read_window);
        assert!(!stream.may_stream_continue(1_000, false));
    }
}
