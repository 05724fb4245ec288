//! HTTP/2: hyper's over any transport, with limits and deadlines for each stream.
//!
//! * `frames` follows what arrives: it times heads, and refuses clients that send too many frames without a request or a body.
//! * `io` is the transport as h2 sees it.
//! * `stream` serves one stream in a task of its own, which has an entry in the table of deadlines.
//!
//! h2 itself refuses (by the error that RFC 9113 names): malformed frames and heads, connection headers, streams beyond the limit,
//! heads that are too long (431), too many CONTINUATION frames, too many small or empty DATA frames, streams that are reset before they
//! are accepted, and clients that cause too many resets.

mod frames;
mod io;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;

use super::connection::{Service, linger};
use super::deadlines::{ConnectionDeadline, Stage};
use super::limits::{Limits, ServerState, Timeout};
use super::transport::Transport;
use crate::runtime::address::Peer;
use crate::runtime::yield_now;
use io::{FollowedTransport, Traffic};
use stream::{StreamExecutor, Streams};

/// Streams that a client can have open at a time; more are refused, so that it sends them again later.
const STREAMS_MAX: u32 = 32;
/// What a client can send of one body, and of all bodies of its connection, before the gateway has read it.
const STREAM_WINDOW_BYTES: u32 = (64 << 10) - 1;
const CONNECTION_WINDOW_BYTES: u32 = 128 << 10;
/// What h2 announces to have space for, of each response. Responses hand over one piece at a time.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Streams that wait to be accepted when their reset arrives; more end the connection.
const PENDING_RESETS_MAX: usize = 20;
/// Resets that the client causes, over the life of a connection; more end it.
const CAUSED_RESETS_MAX: usize = 256;
/// The longest head if there is no limit.
const HEAD_BYTES_MAX: usize = 16 << 20;
/// How much is read and discarded after the last frame.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Error codes of RFC 9113.
const NO_ERROR: u8 = 0;
const ENHANCE_YOUR_CALM: u8 = 11;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// According to the protocol, or with the error that it names.
    Done,
    /// The client disconnected, or was idle for too long.
    Closed,
    /// A head did not arrive in time.
    SlowHead,
    /// The client sends too many frames, or there is no memory for a head.
    Refused,
    /// The client does not read.
    Abandoned,
    /// It was closed to make room for another one, or the program ends.
    MadeRoom,
}

fn builder(executor: StreamExecutor, limits: &Limits) -> Builder<StreamExecutor> {
    let head_bytes_max = u32::try_from(limits.head_bytes_max.unwrap_or(HEAD_BYTES_MAX)).unwrap_or(u32::MAX);
    let mut builder = Builder::new(executor);
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_header_list_size(head_bytes_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(CAUSED_RESETS_MAX);
    builder
}

/// Serves a connection whose client speaks HTTP/2 to its end.
pub(super) async fn serve_connection<T: Transport, S: Service>(
    transport: T,
    deadline: &Rc<ConnectionDeadline>,
    peer: Peer,
    service: Rc<S>,
    server: &ServerState,
) {
    let connections = &server.connections;
    deadline.multiplex();
    let head_bytes_max = server.limits.head_bytes_max.unwrap_or(HEAD_BYTES_MAX);
    let traffic = Traffic::new(deadline.clone(), head_bytes_max);
    let streams = Rc::new(Streams {
        peer,
        connection: deadline.clone(),
        traffic: traffic.clone(),
        connections: connections.clone(),
        budget: server.budget,
        window_bytes: STREAM_WINDOW_BYTES as usize,
        next: Cell::new(None),
    });
    let respond_to = service_fn(|request: Request<Incoming>| streams.begin(request, service.clone()));
    let socket = transport.socket().clone();
    let transport = Rc::new(RefCell::new(transport));
    let executor = StreamExecutor::new(streams.clone());
    let followed = FollowedTransport::new(transport.clone(), traffic.clone());
    let mut connection = builder(executor, &server.limits).serve_connection(followed, respond_to);
    let mut shutting_down = false;

    let mut poll = |context: &mut Context<'_>| {
        deadline.register(context.waker());
        let mut must_end = deadline.stage() == Stage::Draining;
        if deadline.take_expired() {
            if deadline.is_head_incomplete() {
                return Poll::Ready(Ending::SlowHead);
            }
            if shutting_down || !deadline.has_responded() {
                return Poll::Ready(Ending::Closed);
            }
            must_end = true;
        }
        if deadline.take_sample_due() && !deadline.may_connection_continue(socket.unread()) {
            return Poll::Ready(Ending::Abandoned);
        }
        if deadline.must_make_room() || deadline.stage() == Stage::Dropping {
            return Poll::Ready(Ending::MadeRoom);
        }
        if must_end && !std::mem::replace(&mut shutting_down, true) {
            // Requests that are on their way are still served, because the client has to acknowledge the end first.
            Pin::new(&mut connection).graceful_shutdown();
            deadline.close_soon();
        }
        traffic.begin_turn();
        match Pin::new(&mut connection).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Ending::Done),
            Poll::Ready(Err(_)) if traffic.is_refused() => Poll::Ready(Ending::Refused),
            Poll::Ready(Err(err)) => {
                tracing::debug!(%peer, error = %err, "connection ended");
                Poll::Ready(Ending::Done)
            }
            Poll::Pending => Poll::Pending,
        }
    };
    let ending = loop {
        // The streams are ready to read, so they come first.
        let step = poll_fn(|context| match poll(context) {
            Poll::Pending if traffic.take_must_yield() => Poll::Ready(None),
            other => other.map(Some),
        });
        match step.await {
            Some(ending) => break ending,
            None => yield_now().await,
        }
    };

    // Ends the streams.
    drop(connection);
    let Some(transport) = Rc::into_inner(transport) else { return };
    let mut transport = transport.into_inner();
    match ending {
        Ending::Closed | Ending::MadeRoom | Ending::SlowHead | Ending::Refused => {
            if ending == Ending::SlowHead {
                connections.count_timeout(Timeout::Head);
            }
            let is_at_fault = matches!(ending, Ending::SlowHead | Ending::Refused);
            if traffic.is_flushed() {
                let code = if is_at_fault { ENHANCE_YOUR_CALM } else { NO_ERROR };
                transport.send_canned(&go_away(traffic.last_stream(), code));
            }
            transport.end();
        }
        Ending::Abandoned => {
            connections.count_timeout(Timeout::Response);
            transport.socket().reset();
        }
        Ending::Done => linger(&mut transport, deadline, LINGER_BYTES_MAX).await,
    }
}

/// Tells a client that no request of this connection was or will be processed, so that it may send them again on another one: the
/// settings with which every server begins, and a GOAWAY frame.
pub(super) fn refusal() -> Vec<u8> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    [&settings[..], &go_away(0, NO_ERROR)].concat()
}

/// A GOAWAY frame: no stream after `last_stream` was processed.
fn go_away(last_stream: u32, code: u8) -> [u8; 17] {
    let [a, b, c, d] = last_stream.to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, code]
}
