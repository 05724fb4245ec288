//! Accepting connections on one core, the connection limit, and draining at shutdown.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, join3, select};
use hyper::server::conn::http1::Builder;

use super::bridge::Bridge;
use super::connection::{Service, TOO_MANY_CONNECTIONS, builder, linger, serve_connection};
use super::deadlines::{ConnectionDeadline, ConnectionTable, Stage, TableEntry};
use super::http2;
use super::limits::ServerState;
use super::room::{BODY_WAIT_MIN, Room};
use super::tls::{self, TlsTransport};
use super::transport::Transport;
use crate::runtime::address::Peer;
use crate::runtime::listen::ListeningSocket;
use crate::runtime::tcp::{AcceptStop, Listener, Queued, TcpStream};
use crate::runtime::{sleep, spawn, timeout, yield_now};

/// How long to wait before the next accept when the kernel has no descriptor or memory for a connection.
const BACKOFF: Duration = Duration::from_millis(50);
/// How many connections are closed when the kernel has no descriptor or memory for a new one.
const CLOSED_PER_FAILURE: usize = 16;
/// How many connections per core wait for room and linger if they are rejected, so that their clients see the response. Beyond that, a
/// reset may discard the response.
const REJECTED_MAX: usize = 256;
/// How many bytes are read and discarded after a rejected connection got its response.
const REJECTED_LINGER_BYTES_MAX: usize = 256 << 10;
/// How many connections may be accepted before other tasks of the core continue, so that new ones can read their requests.
const ACCEPTS_PER_TURN: usize = 16;
/// How many connections that their clients have already reset take as long as one that is served.
const RESETS_PER_ACCEPT: usize = 16;
/// How long dropped connections may take to release their descriptors.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the accepting tasks of a core share.
struct Acceptor<S> {
    service: Rc<S>,
    builder: Rc<Builder>,
    connections: Rc<ConnectionTable>,
    /// Connections that wait for room, or are rejected and linger.
    rejected: Rc<ConnectionTable>,
    room: Room,
    /// Whether connections are encrypted, which never changes.
    is_tls: bool,
    server: ServerState,
}

/// What a turn took from the queue of a listener.
#[derive(Default, PartialEq, Eq)]
struct Admitted {
    served: usize,
    /// Closed, because their clients had reset them.
    resets: usize,
}

/// Serves this core's `listeners` until a shutdown is requested and all connections have ended. Must be called on a core's runtime.
/// Connections that wait in the listeners' queues at the shutdown are served too.
///
/// # Errors
/// If a listener cannot be registered with the runtime.
pub async fn serve<S: Service>(
    listeners: Vec<ListeningSocket>,
    service: Rc<S>,
    server: ServerState,
) -> io::Result<()> {
    let connections = ConnectionTable::new(&server.limits, server.budget);
    let acceptor = Rc::new(Acceptor {
        service,
        builder: Rc::new(builder(&server.limits)),
        room: Room::new(connections.clone(), server.connections.clone()),
        connections,
        is_tls: server.web_config.get().tls.is_some(),
        rejected: ConnectionTable::new(&server.limits, server.budget),
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
    let sweeps = std::pin::pin!(join3(
        acceptor.connections.sweep(),
        acceptor.rejected.sweep(),
        acceptor.room.serve_other_cores()
    ));
    // These never end.
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

async fn accept_all<S: Service>(mut listener: Listener, acceptor: Rc<Acceptor<S>>) {
    let shutdown = acceptor.server.shutdown.clone();
    let mut is_failing = false;
    let mut accepts = 0;
    while !shutdown.is_requested() {
        match listener.accept().await {
            Ok((stream, peer)) => {
                is_failing = false;
                Rc::clone(&acceptor).admit(stream, peer).await;
                let admitted = acceptor.admit_queued(&listener, acceptor.accepts_per_turn() - 1).await;
                accepts += 1 + admitted.served + admitted.resets / RESETS_PER_ACCEPT;
            }
            Err(err) => {
                let was_failing = std::mem::replace(&mut is_failing, true);
                acceptor.recover_from_accept_error(&err, was_failing).await;
            }
        }
        if accepts >= acceptor.accepts_per_turn() {
            accepts = 0;
            yield_now().await;
        }
    }
    // The kernel has already completed the handshake of these connections.
    listener.stop_waiting();
    while acceptor.admit_queued(&listener, ACCEPTS_PER_TURN).await != Admitted::default() {}
}

impl<S: Service> Acceptor<S> {
    /// If the kernel lacks descriptors or memory, makes room and waits. A client that disconnected early is not an error.
    async fn recover_from_accept_error(&self, err: &io::Error, was_failing: bool) {
        if self.server.shutdown.is_requested() || err.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        if err.kind() != io::ErrorKind::WouldBlock {
            if !was_failing {
                tracing::warn!(error = %err, "cannot accept connections; closing those that have waited longest");
            }
            for _ in 0..CLOSED_PER_FAILURE {
                if !self.room.make().await {
                    break;
                }
            }
        }
        sleep(BACKOFF).await;
    }

    /// How many connections may arrive in one turn. They must not replace each other before they were read once.
    fn accepts_per_turn(&self) -> usize {
        self.server
            .limits
            .connections_max
            .map_or(ACCEPTS_PER_TURN, |max| (max / 8).clamp(1, ACCEPTS_PER_TURN))
    }

    /// Admits up to `max` connections that are already in the queue of a listener.
    async fn admit_queued(self: &Rc<Self>, listener: &Listener, max: usize) -> Admitted {
        let Admitted { mut served, mut resets } = Admitted::default();
        while served + resets / RESETS_PER_ACCEPT < max {
            match listener.accept_queued() {
                Some(Queued::Connection(stream, peer)) => {
                    Rc::clone(self).admit(stream, peer).await;
                    served += 1;
                }
                Some(Queued::Reset) => {
                    self.server.connections.enter();
                    self.server.connections.leave();
                    resets += 1;
                }
                None => break,
            }
        }
        Admitted { served, resets }
    }

    /// Serves a new connection. If there are too many, closes another one, or rejects it.
    async fn admit(self: Rc<Self>, stream: TcpStream, peer: Peer) {
        let before = self.server.connections.enter();
        if self.server.limits.connections_max.is_none_or(|max| before < max) || self.room.make().await {
            let entry = self.connections.enter();
            self.begin(stream, peer, entry);
        } else {
            spawn(self.decide_later(stream, peer));
        }
    }

    /// Starts the task of a connection.
    fn begin(self: Rc<Self>, stream: TcpStream, peer: Peer, entry: TableEntry) {
        if self.is_tls {
            spawn(self.serve_tls(stream, peer, entry));
        } else {
            spawn(self.serve_plain(stream, peer, entry));
        }
    }

    async fn serve_plain(self: Rc<Self>, stream: TcpStream, peer: Peer, entry: TableEntry) {
        let bridge = Bridge::new(stream, entry.deadline().clone());
        self.serve(bridge, entry.deadline(), peer).await;
        drop(entry);
        self.server.connections.leave();
    }

    async fn serve_tls(self: Rc<Self>, stream: TcpStream, peer: Peer, entry: TableEntry) {
        if let Some(transport) = self.encrypt(stream, entry.deadline(), peer).await {
            self.serve(transport, entry.deadline(), peer).await;
        }
        drop(entry);
        self.server.connections.leave();
    }

    /// Completes a TLS handshake, with the settings of this moment.
    async fn encrypt(
        &self,
        stream: TcpStream,
        deadline: &Rc<ConnectionDeadline>,
        peer: Peer,
    ) -> Option<TlsTransport> {
        let configs = self.server.web_config.get().tls.clone()?;
        let bridge = Bridge::new(stream, deadline.clone());
        tls::accept(bridge, deadline, &configs, peer, &self.server.connections).await
    }

    async fn serve<T: Transport>(&self, transport: T, deadline: &Rc<ConnectionDeadline>, peer: Peer) {
        let (service, builder) = (self.service.clone(), self.builder.clone());
        serve_connection(transport, deadline, peer, service, builder, &self.server).await;
    }

    /// Waits until a body makes no progress, or until some connections have ended. Then serves or rejects.
    async fn decide_later(self: Rc<Self>, stream: TcpStream, peer: Peer) {
        let entry = self.rejected.enter();
        let connections = &self.server.connections;
        let max = self.server.limits.connections_max;
        // Waiting and lingering take descriptors, too.
        let may_linger =
            self.rejected.count() <= max.map_or(REJECTED_MAX, |max| (max / 16).clamp(1, REJECTED_MAX));
        if may_linger {
            sleep(BODY_WAIT_MIN).await;
            if max.is_none_or(|max| connections.current() <= max) || self.room.make().await {
                drop(entry);
                let entry = self.connections.enter();
                self.begin(stream, peer, entry);
                return;
            }
        }
        connections.reject();
        let deadline = entry.deadline();
        if !self.is_tls {
            reject(&mut Bridge::new(stream, deadline.clone()), deadline, may_linger).await;
        } else if may_linger && let Some(mut transport) = self.encrypt(stream, deadline, peer).await {
            reject(&mut transport, deadline, may_linger).await;
        }
    }
}

/// Tells a client that there are too many connections.
async fn reject(transport: &mut impl Transport, deadline: &ConnectionDeadline, may_linger: bool) {
    // After a handshake, session tickets are still to be sent.
    let is_flushed = poll_fn(|context| {
        deadline.register(context.waker());
        if deadline.take_expired() || deadline.stage() == Stage::Dropping {
            return Poll::Ready(false);
        }
        Pin::new(&mut *transport).poll_flush(context).map(|result| result.is_ok())
    });
    if !is_flushed.await {
        return;
    }
    if transport.is_http2() {
        transport.send_canned(&http2::refusal());
    } else {
        transport.send_canned(TOO_MANY_CONNECTIONS);
    }
    if may_linger {
        linger(transport, deadline, REJECTED_LINGER_BYTES_MAX).await;
    }
}
