//! TCP on a core's runtime: accepts connections, and stops without losing one.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;
use rustix::event::{PollFd, PollFlags, Timespec};

pub(crate) use monoio::net::TcpStream;

/// Cancels the accepts of all listeners that hold one of its handles.
#[derive(Default)]
pub(crate) struct AcceptStop(Canceller);

/// A listening socket on this core's runtime.
pub(crate) struct Listener {
    runtime: TcpListener,
    /// The same socket, for accepting without the runtime.
    direct: StdListener,
    stop: CancelHandle,
}

/// A connection from a listener's queue.
pub(crate) enum Queued {
    Connection(TcpStream, SocketAddr),
    /// The client has reset it already, or it cannot be registered. It is closed.
    Reset,
}

impl AcceptStop {
    /// Ends every accept that is waiting.
    pub(crate) fn stop(self) {
        self.0.cancel();
    }
}

impl Listener {
    /// Registers a listener with the current core's runtime.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated or registered.
    pub(crate) fn new(listener: StdListener, stop: &AcceptStop) -> io::Result<Self> {
        // On epoll, accept must never block the thread. On io_uring, the ring has to be able to wait for a connection.
        listener.set_nonblocking(monoio::utils::is_legacy())?;
        let direct = listener.try_clone()?;
        Ok(Self { runtime: TcpListener::from_std(listener)?, direct, stop: stop.0.handle() })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// If the kernel cannot accept one, or the accept was stopped. A stopped accept is awaited to its end: dropping it could lose a
    /// connection and its descriptor.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.runtime.cancelable_accept(self.stop.clone()).await
    }

    /// Takes a connection that is already in the listener's queue. Never waits.
    ///
    /// Only this core accepts from the listener, so what [`Self::accept`] would return at once does not disappear in between: a
    /// connection that its client resets stays in the queue.
    pub(crate) fn accept_queued(&self) -> Option<Queued> {
        // On io_uring the socket is blocking.
        let mut polled = [PollFd::new(&self.direct, PollFlags::IN)];
        let count = rustix::event::poll(&mut polled, Some(&Timespec::default())).ok()?;
        if count == 0 || !polled[0].revents().contains(PollFlags::IN) {
            return None;
        }
        let (stream, peer) = self.direct.accept().ok()?;
        if is_reset(&stream) {
            return Some(Queued::Reset);
        }
        let stream =
            stream.set_nonblocking(monoio::utils::is_legacy()).and_then(|()| TcpStream::from_std(stream));
        Some(stream.map_or(Queued::Reset, |stream| Queued::Connection(stream, peer)))
    }
}

/// Whether the peer has reset the connection. A peer that only closed its side may still wait for a response.
pub(super) fn is_reset(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    // The kernel reports these events unasked.
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};
    use std::time::Duration;

    use rustix::net::sockopt::set_socket_linger;

    use super::{AcceptStop, Listener, Queued};
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};

    #[test]
    fn queued_connections_are_taken_without_waiting_and_resets_are_noticed() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            run_on_cores(1, choice, |CoreIndex(_)| async {
                let listener = StdListener::bind("127.0.0.1:0").expect("a port is free");
                let address = listener.local_addr().expect("the listener is bound");
                let listener =
                    Listener::new(listener, &AcceptStop::default()).expect("the listener is registered");
                assert!(listener.accept_queued().is_none());
                let connect = || StdStream::connect(address).expect("it listens");
                let reset = connect();
                set_socket_linger(&reset, Some(Duration::ZERO)).expect("an option");
                drop(reset);
                let client = connect();
                assert!(matches!(listener.accept_queued(), Some(Queued::Reset)));
                let own = client.local_addr().expect("it is connected");
                assert!(matches!(listener.accept_queued(), Some(Queued::Connection(_, peer)) if peer == own));
                assert!(listener.accept_queued().is_none());
            })
            .expect("epoll works everywhere");
        }
    }
}
