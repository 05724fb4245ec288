//! Limits on what a client can use, and counts of connections. `None` disables a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::room::CoreRooms;
use crate::runtime::budget::Budget;
use crate::runtime::shutdown::Shutdown;
use crate::web_config::Current;

/// The limits, counts and shutdown request that all cores share.
#[derive(Clone)]
pub struct ServerState {
    /// See [`Limits`].
    pub limits: Arc<Limits>,
    /// Counts over all cores.
    pub connections: Arc<Connections>,
    /// The memory of everything in flight.
    pub budget: Budget,
    /// Requested when the program ends.
    pub shutdown: Shutdown,
    /// The web configuration: whether connections are encrypted, and how.
    pub web_config: Current,
}

/// The limits of connections and requests. A sweep per core enforces the timeouts, so they may be exceeded by a sixteenth.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head, including the request line; beyond it the response is 431.
    pub head_bytes_max: Option<usize>,
    /// Concurrent connections over all cores. Beyond it, the connection that has waited longest for its client is closed; if none
    /// waits, the response is 503.
    pub connections_max: Option<usize>,
    /// From the first byte of a head (or from the accept, for the first head of a connection) to its end: 408.
    pub head_timeout: Option<Duration>,
    /// From the end of the head to the end of the body: 408.
    pub request_timeout: Option<Duration>,
    /// From the response's head until the kernel has its last byte; then the connection is reset.
    pub response_timeout: Option<Duration>,
    /// Bytes per second that a client must read of a response, averaged over ten seconds; then the connection is reset.
    pub response_rate_min: Option<u64>,
    /// How long a connection may stay idle between two requests; then it is closed.
    pub idle_timeout: Option<Duration>,
    /// How long the gateway reads and discards after it responded to a request whose body was not read.
    pub linger_timeout: Duration,
    /// How long connections may take to end after a shutdown was requested; then they are dropped.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes_max: Some(64 << 10),
            connections_max: Some(16_384),
            head_timeout: Some(Duration::from_secs(10)),
            request_timeout: Some(Duration::from_secs(60)),
            response_timeout: Some(Duration::from_secs(120)),
            response_rate_min: Some(1 << 10),
            // Longer than the idle timeout of common clients (Prometheus: five minutes), so that the client closes first. A push
            // that is sent while the server closes the connection would be lost.
            idle_timeout: Some(Duration::from_secs(330)),
            linger_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The timeouts that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// `head_timeout`
    Head,
    /// `request_timeout`
    Request,
    /// `response_timeout`
    Response,
}

impl Timeout {
    /// All timeouts.
    pub const ALL: [Self; 3] = [Self::Head, Self::Request, Self::Response];

    /// The value of the metric label `phase`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With new keys.
    Full,
    /// With the keys of an earlier session.
    Resumed,
    /// One side refused the other, or the client disconnected.
    Failed,
    /// The client did not speak TLS.
    NotTls,
    /// It took longer than `head_timeout`.
    TimedOut,
}

impl Handshake {
    /// All outcomes.
    pub const ALL: [Self; 5] = [Self::Full, Self::Resumed, Self::Failed, Self::NotTls, Self::TimedOut];

    /// The value of the metric label `result`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
            Self::NotTls => "not_tls",
            Self::TimedOut => "timeout",
        }
    }
}

/// Counts of connections, shared by all cores and exposed as metrics.
#[derive(Debug, Default)]
pub struct Connections {
    current: AtomicUsize,
    accepted: AtomicU64,
    rejected: AtomicU64,
    closed_for_room: AtomicU64,
    timed_out: [AtomicU64; Timeout::ALL.len()],
    handshakes: [AtomicU64; Handshake::ALL.len()],
    pub(super) rooms: CoreRooms,
}

impl Connections {
    /// Connections that are open now, without rejected ones.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Connections accepted since the start, without rejected ones.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections rejected because of `connections_max`, since the start.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Connections closed to make room for others, since the start.
    pub fn closed_for_room(&self) -> u64 {
        self.closed_for_room.load(Ordering::Relaxed)
    }

    /// Connections that hit a timeout, since the start.
    pub fn timed_out(&self, timeout: Timeout) -> u64 {
        self.timed_out[timeout as usize].load(Ordering::Relaxed)
    }

    /// TLS handshakes that ended in this way, since the start.
    pub fn handshakes(&self, outcome: Handshake) -> u64 {
        self.handshakes[outcome as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count_handshake(&self, outcome: Handshake) {
        self.handshakes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_timeout(&self, timeout: Timeout) {
        self.timed_out[timeout as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a new connection. Returns how many there were before.
    pub(crate) fn enter(&self) -> usize {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.current.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a connection that entered as rejected instead.
    pub(crate) fn reject(&self) {
        self.current.fetch_sub(1, Ordering::Relaxed);
        self.accepted.fetch_sub(1, Ordering::Relaxed);
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_closed_for_room(&self) {
        self.closed_for_room.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.current.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Connections;

    #[test]
    fn connections_are_counted() {
        let connections = Connections::default();
        assert_eq!((connections.enter(), connections.enter(), connections.enter()), (0, 1, 2));
        connections.reject();
        assert_eq!((connections.current(), connections.accepted(), connections.rejected()), (2, 2, 1));
        connections.leave();
        assert_eq!((connections.current(), connections.accepted()), (1, 2));
    }
}
