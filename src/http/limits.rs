//! What a client may take of the server. `None` switches a limit off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::runtime::shutdown::Shutdown;

/// What all cores have in common.
#[derive(Clone)]
pub struct Common {
    /// What clients may take.
    pub limits: Arc<Limits>,
    /// Counts, over all cores.
    pub connections: Arc<Connections>,
    /// When to end.
    pub shutdown: Shutdown,
}

/// The limits of connections and requests. Times are enforced by a sweep per core, so they may be exceeded by a sixteenth.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head, request line included; beyond it the answer is 431.
    pub head_bytes_max: Option<usize>,
    /// Connections at one time, over all cores; beyond it the answer is 503.
    pub connections_max: Option<usize>,
    /// From the first byte of a head (or from the accept, for the first head of a connection) to its end: 408.
    pub head_timeout: Option<Duration>,
    /// From the end of the head to the end of the body: 408.
    pub request_timeout: Option<Duration>,
    /// From the response's head to the moment when the kernel has taken its last byte; then the connection is reset.
    pub response_timeout: Option<Duration>,
    /// How long a connection may stay open between two requests; then it is closed.
    pub idle_timeout: Option<Duration>,
    /// How long we read on, and throw away, behind an answer to a request whose body was not read.
    pub linger_timeout: Duration,
    /// How long connections that are served may take to end once a shutdown was asked for; then they are dropped.
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
            // Longer than the idle time of common clients (Prometheus: five minutes), so that it is the client which
            // closes: a push sent into a connection that the server closes at the same moment would be lost.
            idle_timeout: Some(Duration::from_secs(330)),
            linger_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The time limits whose passing is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Of a head.
    Head,
    /// Of a request's body.
    Request,
    /// Of a response.
    Response,
}

impl Timeout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Head, Self::Request, Self::Response];

    /// The value of the label `phase`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Counts of connections, shared by all cores and exported as metrics.
#[derive(Debug, Default)]
pub struct Connections {
    current: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    timed_out: [AtomicU64; Timeout::ALL.len()],
}

impl Connections {
    /// Connections open now, without refused ones.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Connections accepted since the start, without refused ones.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused since the start, because of `connections_max`.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections which ran into a time limit since the start.
    pub fn timed_out(&self, timeout: Timeout) -> u64 {
        self.timed_out[timeout as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count_timeout(&self, timeout: Timeout) {
        self.timed_out[timeout as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a new connection in, unless there are `max` already.
    pub(crate) fn enter(&self, max: Option<usize>) -> bool {
        let before = self.current.fetch_add(1, Ordering::Relaxed);
        if max.is_some_and(|max| before >= max) {
            self.current.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(crate) fn leave(&self) {
        self.current.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Connections;

    #[test]
    fn the_cap_holds_and_places_come_back() {
        let connections = Connections::default();
        assert!(connections.enter(Some(2)) && connections.enter(Some(2)));
        assert!(!connections.enter(Some(2)));
        assert_eq!((connections.current(), connections.accepted(), connections.refused()), (2, 2, 1));
        connections.leave();
        assert!(connections.enter(Some(2)));
        assert!(connections.enter(None));
        assert_eq!(connections.current(), 3);
    }
}
