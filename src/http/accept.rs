//! Accepting on one core, the connection cap, and draining at shutdown.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use hyper::server::conn::http1::Builder;
use monoio::io::{CancelHandle, Canceller};
use monoio::net::{TcpListener, TcpStream};

use super::bridge::Bridge;
use super::connection::{Service, builder, linger, serve_connection};
use super::deadlines::{Stage, Watchlist};
use super::limits::Common;
use crate::runtime::shutdown::Shutdown;

/// How long accepting rests when the kernel has no descriptor or memory for a connection.
const REST: Duration = Duration::from_millis(50);
/// Connections per core that are refused and yet read for a moment, so that their client sees the answer. Beyond, the answer
/// may get lost in a reset.
const REFUSALS_MAX: usize = 256;
/// What is read of a refused request.
const REFUSED_BYTES_MAX: usize = 256 << 10;
/// How long dropped connections may take to give their descriptors back.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 21\r\n\r\n\
    too many connections\n";

/// What the accepting tasks of a core share.
struct Acceptor<S> {
    service: Rc<S>,
    builder: Rc<Builder>,
    list: Rc<Watchlist>,
    /// Refused connections that are still being read.
    refused: Rc<Watchlist>,
    common: Common,
}

/// Serves on this core's `listeners` until a shutdown was asked for and all connections have ended. To be called on a core's
/// runtime. Connections that wait in the listeners' queues at the shutdown are served too.
///
/// # Errors
/// If a listener cannot be handed to the runtime; never later.
pub async fn serve<S: Service>(
    listeners: Vec<StdListener>,
    service: Rc<S>,
    common: Common,
) -> io::Result<()> {
    let acceptor = Rc::new(Acceptor {
        service,
        builder: Rc::new(builder(&common.limits)),
        list: Watchlist::new(&common.limits),
        refused: Watchlist::new(&common.limits),
        common: common.clone(),
    });

    let stop = Canceller::new();
    let mut tasks = Vec::with_capacity(listeners.len());
    for listener in listeners {
        // On epoll the runtime must never block in accept; in a ring it must be free to wait.
        listener.set_nonblocking(monoio::utils::is_legacy())?;
        let queue = listener.try_clone()?;
        let listener = TcpListener::from_std(listener)?;
        tasks.push(monoio::spawn(accept_all(listener, queue, stop.handle(), acceptor.clone())));
    }

    let ends = std::pin::pin!(async {
        common.shutdown.requested().await;
        // Before the last accepts, so that these connections are not kept alive.
        acceptor.list.enter_stage(Stage::Draining);
        acceptor.refused.enter_stage(Stage::Draining);
        stop.cancel();
        join_all(tasks).await;
        drain(&acceptor).await;
    });
    let sweeps = std::pin::pin!(async {
        futures_util::future::join(acceptor.list.sweep(), acceptor.refused.sweep()).await;
    });
    match select(ends, sweeps).await {
        Either::Left(_) | Either::Right(_) => Ok(()),
    }
}

/// Waits for the connections to end, and ends them if they take too long.
async fn drain<S: Service>(acceptor: &Acceptor<S>) {
    let timeout = acceptor.common.limits.drain_timeout;
    if monoio::time::timeout(timeout, acceptor.list.emptied()).await.is_err() {
        tracing::warn!(seconds = timeout.as_secs_f64(), "connections did not end in time and are dropped");
    }
    acceptor.list.enter_stage(Stage::Dropping);
    acceptor.refused.enter_stage(Stage::Dropping);
    let _ = monoio::time::timeout(DROP_TIMEOUT, acceptor.list.emptied()).await;
    let _ = monoio::time::timeout(DROP_TIMEOUT, acceptor.refused.emptied()).await;
}

async fn accept_all<S: Service>(
    listener: TcpListener,
    queue: StdListener,
    stop: CancelHandle,
    acceptor: Rc<Acceptor<S>>,
) {
    let shutdown = acceptor.common.shutdown.clone();
    while !shutdown.is_requested() {
        // Cancelled at a shutdown and awaited to its end: an accept that is dropped can lose a connection and its descriptor.
        match listener.cancelable_accept(stop.clone()).await {
            Ok((stream, peer)) => Rc::clone(&acceptor).take(stream, peer),
            Err(err) => rest_after(&err, &shutdown).await,
        }
    }
    // What the kernel has accepted in our name is served, too.
    if queue.set_nonblocking(true).is_err() {
        return;
    }
    while let Ok((stream, peer)) = queue.accept() {
        let stream =
            stream.set_nonblocking(monoio::utils::is_legacy()).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            Rc::clone(&acceptor).take(stream, peer);
        }
    }
}

/// After an accept that failed: a client that went away is its own affair, a lack of descriptors needs time to pass.
async fn rest_after(err: &io::Error, shutdown: &Shutdown) {
    if shutdown.is_requested() || err.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    if err.kind() != io::ErrorKind::WouldBlock {
        tracing::warn!(error = %err, "cannot accept a connection");
    }
    monoio::time::sleep(REST).await;
}

impl<S: Service> Acceptor<S> {
    /// Serves a new connection, or refuses it.
    fn take(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        if self.common.connections.enter(self.common.limits.connections_max) {
            monoio::spawn(async move {
                let (service, builder) = (self.service.clone(), self.builder.clone());
                serve_connection(stream, peer, service, builder, self.list.clone(), &self.common).await;
                self.common.connections.leave();
            });
        } else {
            monoio::spawn(self.refuse(stream));
        }
    }

    async fn refuse(self: Rc<Self>, stream: TcpStream) {
        let watched = self.refused.enter();
        let mut bridge = Bridge::new(stream, watched.watch().clone());
        // If the kernel has no room for these few bytes, nobody reads them either.
        let _ = bridge.socket().send(&[IoSlice::new(REFUSAL)]);
        if self.refused.count() <= REFUSALS_MAX {
            linger(&mut bridge, watched.watch(), REFUSED_BYTES_MAX).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::REFUSAL;

    #[test]
    fn the_ready_answer_counts_its_own_bytes() {
        let text = std::str::from_utf8(REFUSAL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
