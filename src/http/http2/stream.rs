//! One stream: a request, its response, and the task that serves it.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;

use super::io::Traffic;
use crate::http::connection::{Service, head_bytes};
use crate::http::deadlines::{ConnectionDeadline, Phase, Stage, TableEntry};
use crate::http::limits::{Connections, Timeout};
use crate::http::request_body::RequestBody;
use crate::http::response::{RETRY_AFTER_SECONDS, error_with};
use crate::http::slots::ResponseGuard;
use crate::runtime::address::Peer;
use crate::runtime::budget::{Budget, Reservation};
use crate::runtime::spawn;

/// What a further stream of a connection may hold without a reservation of its own: its head, and what a request is not charged for.
const FURTHER_STREAM_BYTES: usize = 24 << 10;
/// As for HTTP/1, where hyper has this limit.
const HEADER_FIELDS_MAX: usize = 100;
const OUT_OF_MEMORY: &str = "too much memory is in use by requests, try again later";

/// Serves the streams of one connection in tasks of their own.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    streams: Rc<Streams>,
}

/// What the streams of a connection share.
pub(super) struct Streams {
    pub(super) peer: Peer,
    pub(super) connection: Rc<ConnectionDeadline>,
    pub(super) traffic: Rc<Traffic>,
    pub(super) connections: Arc<Connections>,
    pub(super) budget: Budget,
    /// Of the connection.
    pub(super) window_bytes: usize,
    /// The stream whose task hyper starts next, right after it has called the service.
    pub(super) next: Cell<Option<Stream>>,
}

/// A stream whose request has arrived.
pub(super) struct Stream {
    entry: TableEntry,
    progress: Rc<Progress>,
}

impl StreamExecutor {
    pub(super) fn new(streams: Rc<Streams>) -> Self {
        Self { streams }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        // hyper also starts tasks for connections that change their protocol, which no service here accepts.
        if let Some(stream) = self.streams.next.take() {
            spawn(serve_stream(self.streams.clone(), stream, future));
        }
    }
}

/// Polls hyper's part of a stream until it ends, or must end. Dropping it earlier resets the stream.
async fn serve_stream(streams: Rc<Streams>, stream: Stream, future: impl Future<Output = ()>) {
    let deadline = stream.entry.deadline();
    let mut future = pin!(future);
    poll_fn(|context| {
        deadline.register(context.waker());
        let mut is_too_slow = false;
        if deadline.take_expired() {
            match deadline.phase() {
                Phase::Body => {
                    streams.connections.count_timeout(Timeout::Request);
                    deadline.time_out_body();
                }
                Phase::Responding => is_too_slow = true,
                _ => {}
            }
        }
        if deadline.take_sample_due() {
            let pending = stream.progress.pending();
            is_too_slow |= !deadline.may_stream_continue(pending, streams.traffic.is_blocked());
        }
        if is_too_slow {
            streams.connections.count_timeout(Timeout::Response);
            return Poll::Ready(());
        }
        if deadline.stage() == Stage::Dropping {
            return Poll::Ready(());
        }
        let result = future.as_mut().poll(context);
        if result.is_ready() && deadline.phase() == Phase::Responding {
            streams.traffic.response_sent();
        }
        result
    })
    .await;
}

impl Streams {
    /// Begins a stream. The service is called when hyper polls the returned future in the stream's task.
    pub(super) fn begin<S: Service>(
        self: &Rc<Self>,
        request: Request<Incoming>,
        service: Rc<S>,
    ) -> impl Future<Output = Result<Response<StreamBody<S::Body>>, Infallible>> + use<S> {
        let is_first = self.connection.open_streams() == 0;
        let entry = self.connection.enter_stream();
        let deadline = entry.deadline().clone();
        deadline.head_received(!request.body().is_end_stream());
        let memory = self.reserve(is_first, request.body());
        let fits = memory.is_some() && deadline.reserve_head(head_bytes(&request));
        let progress = Rc::<Progress>::default();
        self.next.set(Some(Stream { entry, progress: progress.clone() }));
        respond(request, fits, self.peer, service, deadline, progress, memory)
    }

    /// The memory that a stream can take before anything reads its body: a part of the connection's window, and what HTTP/1 would not
    /// count for its only request.
    fn reserve(&self, is_first: bool, body: &Incoming) -> Option<Reservation> {
        let mut memory =
            if is_first { self.budget.request() } else { self.budget.try_reserve(FURTHER_STREAM_BYTES)? };
        let body_bytes = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let body_bytes = body_bytes.map_or(self.window_bytes, |bytes| bytes.min(self.window_bytes));
        memory.try_grow(body_bytes).then_some(memory)
    }
}

async fn respond<S: Service>(
    request: Request<Incoming>,
    fits: bool,
    peer: Peer,
    service: Rc<S>,
    deadline: Rc<ConnectionDeadline>,
    progress: Rc<Progress>,
    _memory: Option<Reservation>,
) -> Result<Response<StreamBody<S::Body>>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let is_about_the_server = request.method() == Method::OPTIONS && request.uri().path() == "*";
    let rejection =
        if fits { violation(&request) } else { Some((StatusCode::SERVICE_UNAVAILABLE, OUT_OF_MEMORY)) };
    let response = match rejection {
        Some((status, text)) => {
            let mut response = error_with(status, text, |text| Content::Text(Full::new(text)));
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            drop(request);
            response
        }
        None if is_about_the_server => Response::new(Content::Empty),
        None => {
            let request = request.map(|incoming| RequestBody::new(incoming, deadline.clone()));
            pin!(service.call(request, peer)).await.map(Content::Service)
        }
    };
    let mut response = response.map(|content| StreamBody { content, progress, deadline: deadline.clone() });
    let headers = response.headers_mut();
    headers.remove(CONNECTION);
    deadline.response_started(response.extensions_mut().remove::<ResponseGuard>());
    set_content_length(&mut response);
    if is_head {
        response.body_mut().content = Content::Empty;
    }
    Ok(response)
}

/// As hyper does for HTTP/1, also for empty bodies and for HEAD.
fn set_content_length<B: Body>(response: &mut Response<B>) {
    let status = response.status();
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return;
    }
    if let Some(bytes) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(bytes));
    }
}

/// What h2 accepts and a server should reject: RFC 9113, sections 8.1.1 and 8.3.1. Without an `:authority`, requests are accepted as in
/// the official program; connection headers and malformed pseudo headers are rejected by h2.
fn violation<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() != Method::CONNECT && !uri.path().starts_with(['/', '*']) {
        return Some((StatusCode::BAD_REQUEST, "missing path"));
    }
    if uri.path() == "*" && request.method() != Method::OPTIONS {
        return Some((StatusCode::BAD_REQUEST, "the target * is for OPTIONS only"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Some((StatusCode::BAD_REQUEST, "the authority has user information"));
    }
    if uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Some((StatusCode::BAD_REQUEST, "unknown scheme"));
    }
    if headers.len() > HEADER_FIELDS_MAX {
        return Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields"));
    }
    let has_several_hosts = headers.get_all(HOST).iter().nth(1).is_some();
    has_several_hosts.then_some((StatusCode::BAD_REQUEST, "too many Host headers"))
}

/// How much of a response h2 still holds.
#[derive(Default)]
struct Progress {
    queued: Cell<u64>,
    taken: Cell<u64>,
    /// Of the stream's task, which waits until h2 holds nothing.
    waker: RefCell<Option<Waker>>,
}

impl Progress {
    fn pending(&self) -> u64 {
        self.queued.get() - self.taken.get()
    }
}

/// The body of a response. It gives h2 a piece only when h2 has passed on the one before, and it ends when h2 has passed on the last
/// one. So a stream's task lives as long as the gateway holds anything of the response, and ending the task frees it.
pub(super) struct StreamBody<B> {
    content: Content<B>,
    progress: Rc<Progress>,
    deadline: Rc<ConnectionDeadline>,
}

enum Content<B> {
    /// No bytes.
    Empty,
    /// An error text of this module.
    Text(Full<Bytes>),
    /// The body that the service returned.
    Service(B),
}

/// A part of a response that h2 holds.
pub(super) struct Piece {
    bytes: Bytes,
    progress: Rc<Progress>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.progress.taken.set(self.progress.taken.get() + count as u64);
        if self.progress.pending() == 0
            && let Some(waker) = self.progress.waker.take()
        {
            waker.wake();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for StreamBody<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        if self.progress.pending() > 0 {
            *self.progress.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let frame = match &mut self.content {
            Content::Empty => return Poll::Ready(None),
            Content::Text(text) => Pin::new(text).poll_frame(context).map_err(|never| match never {}),
            Content::Service(body) => Pin::new(body).poll_frame(context),
        };
        frame.map_ok(|frame| {
            frame.map_data(|bytes| {
                self.progress.queued.set(self.progress.queued.get() + bytes.len() as u64);
                self.deadline.bytes_queued(bytes.len());
                Piece { bytes, progress: self.progress.clone() }
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.progress.queued.get() == 0
            && match &self.content {
                Content::Empty => true,
                Content::Text(text) => text.is_end_stream(),
                Content::Service(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) => text.size_hint(),
            Content::Service(body) => body.size_hint(),
        }
    }
}
