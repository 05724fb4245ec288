//! Accepting connections on one core, the connection limit, and draining at shutdown.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join, join_all, select};
use hyper::server::conn::http1::Builder;

use super::bridge::Bridge;
use super::connection::{Service, builder, linger, serve_connection};
use super::deadlines::{ConnectionTable, Stage};
use super::limits::ServerState;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::tcp::{AcceptStop, Listener, TcpStream};
use crate::runtime::{sleep, spawn, timeout};

/// How long to wait before the next accept when the kernel has no descriptor or memory for a connection.
const BACKOFF: Duration = Duration::from_millis(50);
/// How many rejected connections per core linger, so that their clients see the response. Beyond that, a reset may discard the response.
const LINGERING_REJECTED_MAX: usize = 256;
/// How many bytes are read and discarded after a rejected connection got its response.
const REJECTED_LINGER_BYTES_MAX: usize = 256 << 10;
/// How long dropped connections may take to release their descriptors.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 21\r\n\r\n\
    too many connections\n";

/// What the accepting tasks of a core share.
struct Acceptor<S> {
    service: Rc<S>,
    builder: Rc<Builder>,
    connections: Rc<ConnectionTable>,
    /// Rejected connections that linger.
    rejected: Rc<ConnectionTable>,
    server: ServerState,
}

/// Serves this core's `listeners` until a shutdown is requested and all connections have ended. Must be called on a core's runtime.
/// Connections that wait in the listeners' queues at the shutdown are served too.
///
/// # Errors
/// If a listener cannot be registered with the runtime.
pub async fn serve<S: Service>(
    listeners: Vec<TcpListener>,
    service: Rc<S>,
    server: ServerState,
) -> io::Result<()> {
    let acceptor = Rc::new(Acceptor {
        service,
        builder: Rc::new(builder(&server.limits)),
        connections: ConnectionTable::new(&server.limits),
        rejected: ConnectionTable::new(&server.limits),
        server: server.clone(),
    });

    let stop = AcceptStop::default();
    let mut accepting = Vec::with_capacity(listeners.len());
    for listener in listeners {
        accepting.push(spawn(accept_all(Listener::new(listener, &stop)?, acceptor.clone())));
    }

    let drained = std::pin::pin!(async {
        server.shutdown.requested().await;
        // Before the last accepts, so that their connections are not kept alive.
        acceptor.connections.enter_stage(Stage::Draining);
        acceptor.rejected.enter_stage(Stage::Draining);
        stop.stop();
        join_all(accepting).await;
        drain(&acceptor).await;
    });
    let sweeps = std::pin::pin!(join(acceptor.connections.sweep(), acceptor.rejected.sweep()));
    // The sweeps never end.
    select(drained, sweeps).await;
    Ok(())
}

/// Waits for the connections to end, and drops them if they take too long.
async fn drain<S: Service>(acceptor: &Acceptor<S>) {
    let drain_timeout = acceptor.server.limits.drain_timeout;
    if timeout(drain_timeout, acceptor.connections.emptied()).await.is_none() {
        tracing::warn!(
            seconds = drain_timeout.as_secs_f64(),
            "dropping connections that did not end in time"
        );
    }
    acceptor.connections.enter_stage(Stage::Dropping);
    acceptor.rejected.enter_stage(Stage::Dropping);
    let _ = timeout(DROP_TIMEOUT, acceptor.connections.emptied()).await;
    let _ = timeout(DROP_TIMEOUT, acceptor.rejected.emptied()).await;
}

async fn accept_all<S: Service>(listener: Listener, acceptor: Rc<Acceptor<S>>) {
    let shutdown = acceptor.server.shutdown.clone();
    while !shutdown.is_requested() {
        match listener.accept().await {
            Ok((stream, peer)) => Rc::clone(&acceptor).accept(stream, peer),
            Err(err) => backoff_after_accept_error(&err, &shutdown).await,
        }
    }
    // The kernel has already completed the handshake of these connections.
    for (stream, peer) in listener.accept_queued() {
        Rc::clone(&acceptor).accept(stream, peer);
    }
}

/// Waits if the kernel lacks descriptors or memory. A client that disconnected early is not an error.
async fn backoff_after_accept_error(err: &io::Error, shutdown: &Shutdown) {
    if shutdown.is_requested() || err.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    if err.kind() != io::ErrorKind::WouldBlock {
        tracing::warn!(error = %err, "cannot accept a connection");
    }
    sleep(BACKOFF).await;
}

impl<S: Service> Acceptor<S> {
    /// Serves a new connection, or rejects it if there are too many.
    fn accept(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        if !self.server.connections.enter(self.server.limits.connections_max) {
            spawn(self.reject(stream));
            return;
        }
        spawn(async move {
            let (service, builder) = (self.service.clone(), self.builder.clone());
            serve_connection(stream, peer, service, builder, self.connections.clone(), &self.server).await;
            self.server.connections.leave();
        });
    }

    async fn reject(self: Rc<Self>, stream: TcpStream) {
        let entry = self.rejected.enter();
        let mut bridge = Bridge::new(stream, entry.deadline().clone());
        // If the kernel has no space for these few bytes, the client is not reading.
        let _ = bridge.socket().send(&[IoSlice::new(TOO_MANY_CONNECTIONS)]);
        if self.rejected.count() <= LINGERING_REJECTED_MAX {
            linger(&mut bridge, entry.deadline(), REJECTED_LINGER_BYTES_MAX).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TOO_MANY_CONNECTIONS;

    #[test]
    fn the_canned_response_has_the_right_content_length() {
        let text = std::str::from_utf8(TOO_MANY_CONNECTIONS).expect("the response is ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("the response has a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
