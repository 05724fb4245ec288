//! The phase of each connection, and the one sweep per core that enforces all deadlines.
//!
//! A timer per request would cost half a microsecond, a good part of what a push costs in all. So a phase only notes its
//! deadline, as a number of ticks, which needs no look at a clock; a sweep over the core's connections every tick wakes those
//! whose time has passed. A deadline is therefore late by up to two ticks, and the tick is a sixteenth of the
//! shortest timeout or less.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::limits::Limits;

const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(250);
/// How long a connection may wait for its first byte once the drain has begun.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
const NEVER: u64 = u64::MAX;

/// What a connection is doing, which says which deadline holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No byte of the next head has come.
    Idle,
    /// A head is coming.
    Head,
    /// A body is coming.
    Body,
    /// The request is complete; the service is at work.
    Working,
    /// The response's body is being written.
    Responding,
    /// All of the response was handed to the bridge, not all to the kernel.
    Flushing,
    /// Answered; what the client still sends is thrown away.
    Lingering,
}

/// How far the end of the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Connections end with their current request.
    Draining,
    /// Connections end now.
    Dropping,
}

/// All connections of a core.
pub(crate) struct Watchlist {
    tick: Cell<u64>,
    tick_length: Duration,
    head: u64,
    request: u64,
    response: u64,
    idle: u64,
    linger: u64,
    watches: RefCell<Vec<Rc<Watch>>>,
    stage: Cell<Stage>,
    emptied: Cell<Option<Waker>>,
}

/// What the sweep, the bridge, the bodies and the connection's task know in common.
pub(crate) struct Watch {
    list: Rc<Watchlist>,
    /// Where it stands in the list.
    place: Cell<usize>,
    phase: Cell<Phase>,
    /// The first tick that is too late.
    deadline: Cell<u64>,
    expired: Cell<bool>,
    body_timed_out: Cell<bool>,
    body_unread: Cell<bool>,
    answered: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Takes a connection off the list when dropped.
pub(crate) struct Watched(Rc<Watch>);

impl Watchlist {
    pub(crate) fn new(limits: &Limits) -> Rc<Watchlist> {
        let timeouts =
            [limits.head_timeout, limits.request_timeout, limits.response_timeout, limits.idle_timeout];
        let shortest = timeouts.iter().flatten().min().copied().unwrap_or(TICK_MAX * 16);
        let tick_length = (shortest / 16).clamp(TICK_MIN, TICK_MAX);
        let ticks =
            |timeout: Option<Duration>| timeout.map_or(NEVER, |timeout| in_ticks(timeout, tick_length));
        Rc::new(Watchlist {
            tick: Cell::new(0),
            tick_length,
            head: ticks(limits.head_timeout),
            request: ticks(limits.request_timeout),
            response: ticks(limits.response_timeout),
            idle: ticks(limits.idle_timeout),
            linger: ticks(Some(limits.linger_timeout)),
            watches: RefCell::default(),
            stage: Cell::new(Stage::Serving),
            emptied: Cell::new(None),
        })
    }

    /// Puts a new connection on the list.
    pub(crate) fn enter(self: &Rc<Self>) -> Watched {
        let mut watches = self.watches.borrow_mut();
        let watch = Rc::new(Watch {
            list: self.clone(),
            place: Cell::new(watches.len()),
            phase: Cell::new(Phase::Idle),
            deadline: Cell::new(self.after(self.head)),
            expired: Cell::new(false),
            body_timed_out: Cell::new(false),
            body_unread: Cell::new(false),
            answered: Cell::new(false),
            waker: RefCell::new(None),
        });
        if self.stage.get() != Stage::Serving {
            watch.hurry();
        }
        watches.push(watch.clone());
        Watched(watch)
    }

    /// Wakes connections whose time has passed; never returns.
    pub(crate) async fn sweep(&self) {
        let start = Instant::now();
        loop {
            monoio::time::sleep(self.tick_length).await;
            let ticks = start.elapsed().as_nanos() / self.tick_length.as_nanos();
            self.advance_to(u64::try_from(ticks).unwrap_or(NEVER));
        }
    }

    fn advance_to(&self, tick: u64) {
        self.tick.set(tick);
        for watch in self.watches.borrow().iter() {
            if watch.deadline.get() <= tick {
                watch.deadline.set(NEVER);
                watch.expired.set(true);
                watch.wake();
            }
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(crate) fn count(&self) -> usize {
        self.watches.borrow().len()
    }

    /// Tells all connections, and those to come, how they shall end.
    pub(crate) fn enter_stage(&self, stage: Stage) {
        self.stage.set(stage);
        for watch in self.watches.borrow().iter() {
            watch.hurry();
            watch.wake();
        }
    }

    /// Returns once no connection is left.
    pub(crate) async fn emptied(&self) {
        std::future::poll_fn(|context| {
            if self.watches.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.emptied.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// The first tick that is `ticks` after now, whatever part of the current tick has passed.
    fn after(&self, ticks: u64) -> u64 {
        self.tick.get().saturating_add(ticks).saturating_add(1)
    }
}

fn in_ticks(timeout: Duration, tick_length: Duration) -> u64 {
    u64::try_from(timeout.as_nanos().div_ceil(tick_length.as_nanos())).unwrap_or(NEVER)
}

impl Watch {
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Remembers whom to wake. A connection is one task, whose waker never changes.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if slot.is_none() {
            *slot = Some(waker.clone());
        }
    }

    /// Whether the phase's deadline has passed; says so once.
    pub(crate) fn take_expired(&self) -> bool {
        self.expired.replace(false)
    }

    /// Bytes have come. Between two requests this begins a head.
    pub(crate) fn bytes_came(&self) {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
            if self.answered.get() {
                self.allow(self.list.head);
            }
        }
    }

    pub(crate) fn head_done(&self, body_follows: bool) {
        self.body_unread.set(false);
        self.body_timed_out.set(false);
        if body_follows {
            self.phase.set(Phase::Body);
            self.allow(self.list.request);
        } else {
            self.phase.set(Phase::Working);
            self.allow(NEVER);
        }
    }

    pub(crate) fn body_done(&self) {
        if self.phase.get() == Phase::Body {
            self.phase.set(Phase::Working);
            self.allow(NEVER);
        }
    }

    /// Lets the next look at the body fail, so that the service answers.
    pub(crate) fn time_out_body(&self) {
        self.body_timed_out.set(true);
        self.body_done();
    }

    pub(crate) fn body_timed_out(&self) -> bool {
        self.body_timed_out.get()
    }

    /// Somebody gave up a body before its end.
    pub(crate) fn leave_body_unread(&self) {
        self.body_unread.set(true);
    }

    pub(crate) fn is_body_unread(&self) -> bool {
        self.body_unread.get()
    }

    pub(crate) fn responding(&self) {
        self.phase.set(Phase::Responding);
        self.allow(self.list.response);
    }

    pub(crate) fn response_body_done(&self) {
        if self.phase.get() == Phase::Responding {
            self.phase.set(Phase::Flushing);
        }
    }

    /// The kernel has everything. After a whole response this is the end of a request.
    pub(crate) fn flushed(&self) {
        if self.phase.get() == Phase::Flushing {
            self.phase.set(Phase::Idle);
            self.answered.set(true);
            self.allow(self.list.idle);
        }
    }

    pub(crate) fn lingering(&self) {
        self.phase.set(Phase::Lingering);
        self.allow(self.list.linger);
    }

    pub(crate) fn is_allowed_to_linger(&self) -> bool {
        self.list.stage.get() != Stage::Dropping
    }

    /// Whether a draining server may close the connection: it waits for no first request, and for no head that has begun.
    pub(crate) fn may_close(&self) -> bool {
        match self.phase.get() {
            Phase::Idle => self.answered.get(),
            Phase::Head => false,
            Phase::Body | Phase::Working | Phase::Responding | Phase::Flushing | Phase::Lingering => true,
        }
    }

    fn allow(&self, ticks: u64) {
        self.deadline.set(self.list.after(ticks));
        // A deadline that passed just before the phase ended no longer counts.
        self.expired.set(false);
    }

    /// Shortens the wait for a first byte while draining.
    fn hurry(&self) {
        if self.phase.get() == Phase::Idle {
            let grace = self.list.after(in_ticks(DRAIN_GRACE, self.list.tick_length));
            self.deadline.set(self.deadline.get().min(grace));
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Watched {
    pub(crate) fn watch(&self) -> &Rc<Watch> {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let list = &self.0.list;
        let mut watches = list.watches.borrow_mut();
        let place = self.0.place.get();
        watches.swap_remove(place);
        if let Some(moved) = watches.get(place) {
            moved.place.set(place);
        }
        if watches.is_empty()
            && let Some(waker) = list.emptied.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Phase, Watchlist};
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
        let list = Watchlist::new(&limits());
        assert_eq!(list.tick_length, Duration::from_millis(10));
        let watched = list.enter();
        let watch = watched.watch();

        list.advance_to(15);
        watch.bytes_came();
        list.advance_to(17);
        assert!(watch.take_expired(), "the first head counts from the accept");

        watch.head_done(true);
        list.advance_to(17 + 32);
        assert!(!watch.take_expired());
        list.advance_to(17 + 33);
        assert!(watch.take_expired());
        assert_eq!(watch.phase(), Phase::Body);
        watch.time_out_body();
        assert!(watch.body_timed_out());
        assert_eq!(watch.phase(), Phase::Working);

        watch.responding();
        list.advance_to(100_000);
        assert!(!watch.take_expired(), "no response timeout here");
        watch.response_body_done();
        watch.flushed();
        assert_eq!(watch.phase(), Phase::Idle);
        assert!(watch.may_close());
        list.advance_to(100_065);
        assert!(watch.take_expired());
    }

    #[test]
    fn the_list_keeps_track_of_places() {
        let list = Watchlist::new(&limits());
        let mut watched: Vec<_> = (0..5).map(|_| list.enter()).collect();
        for index in [1, 3, 0, 1, 0] {
            watched.remove(index);
            assert_eq!(list.watches.borrow().len(), watched.len());
            for (place, watch) in list.watches.borrow().iter().enumerate() {
                assert_eq!(watch.place.get(), place);
            }
        }
    }
}
