//! TCP on a core's runtime: accepts connections, and stops without losing one.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use monoio::io::{CancelHandle, Canceller};
use monoio::net::TcpListener;

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

    /// Takes the connections that the kernel has already accepted for this listener. Never waits.
    pub(crate) fn accept_queued(&self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        let is_nonblocking = self.direct.set_nonblocking(true).is_ok();
        std::iter::from_fn(move || {
            if !is_nonblocking {
                return None;
            }
            loop {
                let (stream, peer) = self.direct.accept().ok()?;
                let stream = stream
                    .set_nonblocking(monoio::utils::is_legacy())
                    .and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    return Some((stream, peer));
                }
            }
        })
    }
}
