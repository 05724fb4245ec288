//! The life of one connection: hyper's HTTP/1.1 over a transport, deadlines, and a close that lets the client see the response.
//!
//! hyper itself rejects (400 or 431, without a body): bytes that are not HTTP, differing or malformed `Content-Length`s, a
//! `Transfer-Encoding` that does not end in `chunked`, folded header lines, heads with too many bytes or more than 100 lines. If both
//! `Content-Length` and `Transfer-Encoding: chunked` are present, it reads the chunks and closes the connection after the response, so
//! request smuggling is impossible. `violation` checks the rules that hyper leaves to its user, before the service is called.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;

use super::deadlines::{ConnectionDeadline, Phase, Stage};
use super::http2;
use super::limits::{Limits, ServerState, Timeout};
use super::request_body::RequestBody;
use super::response::error_with;
use super::slots::ResponseGuard;
use super::targets::{Framing, Targets};
use super::tracked_body::TrackedBody;
use super::transport::Transport;
use crate::runtime::address::Peer;
use crate::runtime::shutdown::Shutdown;

/// How many bytes are read and discarded after a response to a request whose body was not read.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// How many bytes are discarded between two yields, so that a fast sender does not hold the core.
const LINGER_TURN_BYTES: usize = 1 << 20;
/// The maximum of hyper's write and head buffers, unless the head limit is larger.
const BUFFER_BYTES: usize = 400 << 10;

/// Sent if there are too many connections.
pub(super) const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 21\r\n\r\n\
    too many connections\n";

/// Sent where hyper would close the connection without a response.
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
    connection: close\r\ncontent-length: 40\r\n\r\n\
    the request head did not arrive in time\n";

/// Sent if a long head does not fit into the memory for requests.
const HEAD_REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 55\r\n\r\n\
    too much memory is in use by requests, try again later\n";
/// After a longer head the connection is closed, because hyper would keep the buffer of the head.
pub(super) const KEPT_HEAD_BYTES_MAX: usize = 16 << 10;
/// How many bytes are read and discarded after [`HEAD_REFUSED`].
const REFUSED_HEAD_LINGER_BYTES_MAX: usize = 256 << 10;

/// Responds to requests. Each core has its own value, so it needs no locks.
pub trait Service: 'static {
    /// The type of response bodies.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static;

    /// Responds to one request. The future is dropped if the client disconnects or the program ends.
    fn call(&self, request: Request<RequestBody>, peer: Peer) -> impl Future<Output = Response<Self::Body>>;
}

/// hyper's settings, according to `limits`. Built once per core.
pub(super) fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        // A client may close its side after the request and still gets the response.
        .half_close(true)
        // The sweep covers it without a timer per request, and distinguishes idle connections from slow heads.
        .header_read_timeout(None);
    // Not `pipeline_flush`: it would copy every response into one buffer, even large scrapes.
    if let Some(max) = limits.head_bytes_max {
        builder.max_header_size(max).max_buf_size(max.max(BUFFER_BYTES));
    }
    builder
}

/// Marks a request that hyper found where [`Framing`] did not expect one, so that its target may be truncated.
#[derive(Clone)]
struct UnexpectedHead;

/// How hyper's part of a connection ended.
enum Ending {
    /// According to HTTP.
    Done,
    /// hyper rejected the bytes.
    NotHttp,
    /// The client disconnected, or was idle for too long.
    Closed,
    /// A head did not arrive in time.
    SlowHead,
    /// There was no memory for a head.
    HeadRefused,
    /// The client did not read a response in time, another client needs its slot, or the program ends.
    Abandoned,
    /// It was closed to make room for another one.
    MadeRoom,
}

/// Serves a connection to its end.
pub(super) async fn serve_connection<T: Transport, S: Service>(
    transport: T,
    deadline: &Rc<ConnectionDeadline>,
    peer: Peer,
    service: Rc<S>,
    builder: Rc<Builder>,
    server: &ServerState,
) {
    if transport.is_http2() {
        // In a box, because it is much larger than what follows.
        return Box::pin(http2::serve_connection(transport, deadline, peer, service, server)).await;
    }
    let connections = &server.connections;
    let framing = Rc::new(Framing::default());
    let respond_to = service_fn(|mut request: Request<Incoming>| {
        if !framing.head_parsed(request.body()) {
            request.extensions_mut().insert(UnexpectedHead);
        }
        deadline.head_received(!request.body().is_end_stream());
        respond(request, peer, service.clone(), deadline.clone(), server.shutdown.clone())
    });
    let socket = transport.socket().clone();
    let mut connection = builder.serve_connection(Targets::new(transport, framing.clone()), respond_to);
    let mut shutting_down = false;

    let ending = std::future::poll_fn(|context| {
        deadline.register(context.waker());
        if deadline.take_expired() {
            match deadline.phase() {
                Phase::Idle => return Poll::Ready(Ending::Closed),
                Phase::Head => return Poll::Ready(Ending::SlowHead),
                Phase::Body => {
                    connections.count_timeout(Timeout::Request);
                    deadline.time_out_body();
                }
                Phase::Responding | Phase::Flushing => return Poll::Ready(Ending::Abandoned),
                // HTTP/2 has a life of its own.
                Phase::Working | Phase::Lingering | Phase::Multiplexed => {}
            }
        }
        if deadline.take_sample_due() {
            // hyper does not look at the socket until there is something to write.
            if deadline.phase() == Phase::Working && socket.is_reset() {
                return Poll::Ready(Ending::Closed);
            }
            if deadline.phase() != Phase::Working && !deadline.may_continue(socket.unread()) {
                return Poll::Ready(Ending::Abandoned);
            }
        }
        if deadline.must_make_room() {
            return Poll::Ready(Ending::MadeRoom);
        }
        if deadline.stage() == Stage::Dropping {
            return Poll::Ready(Ending::Abandoned);
        }
        loop {
            match Pin::new(&mut connection).poll(context) {
                // Before the first byte of a head, hyper takes an error for the end.
                Poll::Ready(Ok(())) if deadline.is_head_refused() => return Poll::Ready(Ending::HeadRefused),
                Poll::Ready(Ok(())) => return Poll::Ready(Ending::Done),
                Poll::Ready(Err(err)) if err.is_parse() => return Poll::Ready(Ending::NotHttp),
                Poll::Ready(Err(_)) if deadline.is_head_refused() => return Poll::Ready(Ending::HeadRefused),
                Poll::Ready(Err(err)) => {
                    tracing::debug!(%peer, error = %err, "connection ended");
                    return Poll::Ready(Ending::Closed);
                }
                Poll::Pending => {}
            }
            if shutting_down || deadline.stage() == Stage::Serving || !deadline.may_close() {
                return Poll::Pending;
            }
            shutting_down = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;

    let mut transport = connection.into_parts().io.into_inner();
    match ending {
        Ending::Closed => transport.end(),
        // Does not linger, because that would take the room.
        Ending::MadeRoom if deadline.is_between_requests() => transport.end(),
        Ending::MadeRoom => {
            transport.send_canned(TOO_MANY_CONNECTIONS);
            transport.end();
        }
        Ending::Abandoned => {
            connections.count_timeout(Timeout::Response);
            transport.socket().reset();
        }
        Ending::SlowHead => {
            connections.count_timeout(Timeout::Head);
            transport.send_canned(SLOW_HEAD);
            linger(&mut transport, deadline, LINGER_BYTES_MAX).await;
        }
        Ending::HeadRefused => {
            transport.send_canned(HEAD_REFUSED);
            linger(&mut transport, deadline, REFUSED_HEAD_LINGER_BYTES_MAX).await;
        }
        Ending::Done | Ending::NotHttp => {
            let flushed = std::future::poll_fn(|context| {
                if deadline.take_expired() || deadline.must_make_room() || deadline.stage() == Stage::Dropping
                {
                    return Poll::Ready(false);
                }
                Pin::new(&mut transport).poll_flush(context).map(|result| result.is_ok())
            })
            .await;
            if flushed && (deadline.is_body_unread() || matches!(ending, Ending::NotHttp)) {
                linger(&mut transport, deadline, LINGER_BYTES_MAX).await;
            } else if flushed {
                transport.end();
            }
        }
    }
}

/// Closes the write side, then reads and discards for a while. The kernel responds with a reset to bytes for a closed socket, and after
/// a reset the client's kernel discards the response that the client has not read yet.
pub(super) async fn linger(transport: &mut impl Transport, deadline: &ConnectionDeadline, bytes_max: usize) {
    transport.close_write();
    deadline.linger();
    let mut bytes = 0;
    std::future::poll_fn(|context: &mut Context<'_>| {
        deadline.register(context.waker());
        let turn_ends = bytes + LINGER_TURN_BYTES;
        while bytes < bytes_max && !deadline.take_expired() && deadline.may_linger() {
            if bytes > turn_ends {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match transport.poll_discard(context) {
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Ready(Ok(count)) => bytes += count,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}

// Not an `async fn`, whose future would have room for the request twice.
fn respond<S: Service>(
    request: Request<Incoming>,
    peer: Peer,
    service: Rc<S>,
    deadline: Rc<ConnectionDeadline>,
    shutdown: Shutdown,
) -> impl Future<Output = Result<Response<TrackedBody<S::Body>>, Infallible>> {
    // After a violation the framing is in doubt, so the bytes that follow must not be read as a request.
    let violation = violation(&request);
    let is_last =
        violation.is_some() || deadline.may_head_be_long() && head_bytes(&request) > KEPT_HEAD_BYTES_MAX;
    let is_http_10 = request.version() == Version::HTTP_10;
    let is_about_the_server = request.method() == Method::OPTIONS && request.uri().path() == "*";
    let request = request.map(|incoming| RequestBody::new(incoming, deadline.clone()));
    async move {
        let mut response = match violation {
            Some((status, text)) => {
                // Dropping the body records that it was not read.
                drop(request);
                error_with(status, text, |text| TrackedBody::text(text, deadline.clone()))
            }
            None if is_about_the_server => Response::new(TrackedBody::text(Bytes::new(), deadline.clone())),
            None => {
                let response = service.call(request, peer).await;
                response.map(|body| TrackedBody::service(body, deadline.clone()))
            }
        };
        // In HTTP/1.0, the end of the connection ends a response without a length.
        if is_last || is_http_10 && response.body().size_hint().exact().is_none() || shutdown.is_requested() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            if is_http_10 {
                // To a response of a later version, hyper would add `keep-alive`.
                *response.version_mut() = Version::HTTP_10;
            }
        }
        deadline.response_started(response.extensions_mut().remove::<ResponseGuard>());
        Ok(response)
    }
}

/// About how long a head is, without its separators.
pub(super) fn head_bytes<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    target + headers.sum::<usize>()
}

/// What hyper accepts and a server must reject: RFC 9112, sections 3.2 (Host, `*`) and 6.1 (unknown transfer codings), and RFC 9110,
/// section 10.1.1 (unknown expectations).
fn violation<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    if request.extensions().get::<UnexpectedHead>().is_some() {
        return Some((StatusCode::BAD_REQUEST, "cannot tell where the request begins"));
    }
    let headers = request.headers();
    match headers.get_all(HOST).iter().count() {
        0 if request.version() >= Version::HTTP_11 => {
            return Some((StatusCode::BAD_REQUEST, "missing required Host header"));
        }
        0 | 1 => {}
        _ => return Some((StatusCode::BAD_REQUEST, "too many Host headers")),
    }
    if request.uri().path() == "*" && request.method() != Method::OPTIONS {
        return Some((StatusCode::BAD_REQUEST, "the target * is for OPTIONS only"));
    }
    if headers.get(EXPECT).is_some_and(|value| !is_continue(value)) {
        return Some((StatusCode::EXPECTATION_FAILED, "unknown expectation"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => None,
        _ => Some((StatusCode::NOT_IMPLEMENTED, "unsupported transfer encoding")),
    }
}

/// Whether `Expect` is `100-continue`. As in the official program, other words beside it are ignored, and so is an empty value.
fn is_continue(value: &HeaderValue) -> bool {
    let mut words = value.as_bytes().split(|byte| matches!(byte, b',' | b' ' | b'\t'));
    value.is_empty() || words.any(|word| word.eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::{HEAD_REFUSED, SLOW_HEAD, TOO_MANY_CONNECTIONS, violation};
    use http::Request;

    #[test]
    fn the_canned_responses_have_the_right_content_length() {
        for response in [SLOW_HEAD, HEAD_REFUSED, TOO_MANY_CONNECTIONS] {
            let text = std::str::from_utf8(response).expect("the response is ASCII");
            let (head, body) = text.split_once("\r\n\r\n").expect("the response has a head and a body");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        }
    }

    #[test]
    fn rejects_invalid_hosts_and_transfer_codings() {
        let status = |headers: &[(&str, &str)]| {
            let mut request = Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            violation(&request.body(()).expect("the request is valid")).map(|(status, _)| status.as_u16())
        };
        assert_eq!(status(&[("host", "a")]), None);
        assert_eq!(status(&[]), Some(400));
        assert_eq!(status(&[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(status(&[("host", "a"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(status(&[("host", "a"), ("transfer-encoding", "gzip, chunked")]), Some(501));
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(status(&twice), Some(501));
    }
}
