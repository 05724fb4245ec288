//! Stream sockets on a core's runtime: accepts connections, and stops without losing one.

use std::io;
use std::net::{TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;

use monoio::io::{CancelHandle, Canceller};
use monoio::net::{TcpListener, UnixListener};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::address::Peer;
use super::listen::ListeningSocket;
use super::socket;

/// A connection, also of a Unix socket: the operations of the runtime's type work on any stream socket.
pub(crate) use monoio::net::TcpStream;

/// Cancels the accepts of all listeners that hold one of its handles.
#[derive(Default)]
pub(crate) struct AcceptStop(Canceller);

/// A listening socket on this core's runtime.
pub(crate) struct Listener {
    socket: RuntimeSocket,
    /// Whether other cores accept from the same queue.
    is_shared: bool,
    stop: CancelHandle,
}

/// A socket twice: `direct` accepts without the runtime.
enum RuntimeSocket {
    Tcp { runtime: TcpListener, direct: StdTcpListener },
    Unix { runtime: UnixListener, direct: StdUnixListener },
}

/// A connection from a listener's queue.
pub(crate) enum Queued {
    Connection(TcpStream, Peer),
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
    /// Registers a listener with the current core's runtime. Whether accepting from it blocks must suit the driver already
    /// ([`Listeners::into_parts`](super::listen::Listeners::into_parts)).
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated or registered.
    pub(crate) fn new(listener: impl Into<ListeningSocket>, stop: &AcceptStop) -> io::Result<Self> {
        let listener = listener.into();
        let is_shared = !matches!(listener, ListeningSocket::Tcp(_));
        let socket = match listener {
            ListeningSocket::Tcp(listener) | ListeningSocket::SharedTcp(listener) => {
                let direct = listener.try_clone()?;
                RuntimeSocket::Tcp { runtime: TcpListener::from_std(listener)?, direct }
            }
            ListeningSocket::Unix(listener) => {
                let direct = listener.try_clone()?;
                RuntimeSocket::Unix { runtime: UnixListener::from_std(listener)?, direct }
            }
        };
        Ok(Self { socket, is_shared, stop: stop.0.handle() })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// If the kernel cannot accept one, or the accept was stopped. A stopped accept is awaited to its end: dropping it could lose a
    /// connection and its descriptor.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        match &self.socket {
            RuntimeSocket::Tcp { runtime, .. } => {
                let (stream, address) = runtime.cancelable_accept(self.stop.clone()).await?;
                Ok((stream, Peer::Tcp(address)))
            }
            RuntimeSocket::Unix { runtime, .. } => {
                let (stream, _) = runtime.cancelable_accept(self.stop.clone()).await?;
                Ok((socket::from_unix(stream)?, Peer::Unix))
            }
        }
    }

    /// Lets [`Self::accept_queued`] take connections from a queue that other cores share. No core can wait for a connection of this
    /// listener any more.
    pub(crate) fn stop_waiting(&mut self) {
        let is_nonblocking = match &self.socket {
            RuntimeSocket::Tcp { direct, .. } => direct.set_nonblocking(true),
            RuntimeSocket::Unix { direct, .. } => direct.set_nonblocking(true),
        };
        if is_nonblocking.is_ok() {
            self.is_shared = false;
        }
    }

    /// Takes a connection that is already in the listener's queue. Never waits.
    ///
    /// On io_uring the socket is blocking. If only this core accepts from the queue, what it contains does not disappear in between: a
    /// connection that its client resets stays in it. From a queue that cores share, nothing is taken.
    pub(crate) fn accept_queued(&self) -> Option<Queued> {
        if self.is_shared {
            return None;
        }
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let count = rustix::event::poll(&mut polled, Some(&Timespec::default())).ok()?;
        if count == 0 || !polled[0].revents().contains(PollFlags::IN) {
            return None;
        }
        let (stream, peer) = self.socket.accept_direct().ok()?;
        if is_reset(&stream) {
            return Some(Queued::Reset);
        }
        // Accepted connections block, as io_uring wants it.
        let prepared = if monoio::utils::is_legacy() { stream.set_nonblocking(true) } else { Ok(()) };
        let stream = prepared.and_then(|()| TcpStream::from_std(stream));
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

/// Whether the peer has closed its side or reset the connection. What it sent before may be unread.
pub(super) fn is_closed_by_peer(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

impl AsFd for RuntimeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp { direct, .. } => direct.as_fd(),
            Self::Unix { direct, .. } => direct.as_fd(),
        }
    }
}

impl RuntimeSocket {
    fn accept_direct(&self) -> io::Result<(StdTcpStream, Peer)> {
        match self {
            Self::Tcp { direct, .. } => direct.accept().map(|(stream, address)| (stream, Peer::Tcp(address))),
            Self::Unix { direct, .. } => {
                direct.accept().map(|(stream, _)| (OwnedFd::from(stream).into(), Peer::Unix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};
    use std::time::Duration;

    use rustix::net::sockopt::set_socket_linger;

    use super::{AcceptStop, Listener, Peer, Queued};
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
                assert!(matches!(listener.accept_queued(), Some(Queued::Connection(_, Peer::Tcp(peer))) if peer == own));
                assert!(listener.accept_queued().is_none());
            })
            .expect("epoll works everywhere");
        }
    }
}
