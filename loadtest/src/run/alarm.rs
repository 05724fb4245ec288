//! A timer that wakes a poll with more than millisecond precision.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer file descriptor, registered with a poll.
pub struct Alarm {
    timer: OwnedFd,
    /// The time for which the timer was set last, in nanoseconds since the run began.
    set_for: f64,
}

impl Alarm {
    /// Creates a timer whose expiry is an event with this token. The event only wakes the poll; the timer need not be read,
    /// because setting it again re-arms the event.
    pub fn new(poll: &Poll, token: Token) -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set_for: 0.0 })
    }

    /// Sets the timer for `due`, unless it is set for this time already.
    pub fn set(&mut self, due: f64, now: u64) -> Result<()> {
        if due == self.set_for {
            return Ok(());
        }
        self.set_for = due;
        let wait = Duration::from_nanos((due - now as f64) as u64 + 1);
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}
