//! The life of one connection: hyper's HTTP/1.1 over the bridge, deadlines, and a close that lets the client see the answer.
//!
//! hyper refuses by itself (400 or 431, without a body): what is not HTTP, differing or malformed `Content-Length`s, a
//! `Transfer-Encoding` which does not end in `chunked`, folded header lines, heads with too many bytes or more than 100 lines.
//! Of `Content-Length` together with `Transfer-Encoding: chunked` it takes the chunks and closes the connection behind the
//! answer, so nothing can be smuggled. What it leaves to its user is refused here, before the service is called: see `refusal`.

use std::convert::Infallible;
use std::future::Future;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Write;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use monoio::net::TcpStream;

use super::bridge::Bridge;
use super::deadlines::{Phase, Stage, Watch, Watchlist};
use super::limits::{Common, Limits, Timeout};
use super::request_body::{Reply, RequestBody};
use crate::runtime::shutdown::Shutdown;

/// What a client may still send behind an answer to a request whose body was not read; then we give up on it.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// What is thrown away at a time, so that a fast sender does not hold the core.
const LINGER_TURN_BYTES: usize = 1 << 20;
/// Longest write buffer and head buffer of hyper where the head limit asks for no more.
const BUFFER_BYTES: usize = 400 << 10;

/// Sent where hyper would close without an answer.
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n\
    connection: close\r\ncontent-length: 46\r\n\r\n\
    the head of the request did not come in time.\n";

/// Answers requests. One value per core, so it needs no locks.
pub trait Service: 'static {
    /// The body of its responses.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static;

    /// Answers one request. It is dropped in the middle if the client goes away or the program ends.
    fn call(
        &self,
        request: Request<RequestBody>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>>;
}

/// An error as a client sees it: plain text with a final LF.
pub fn error_response<B: From<Bytes>>(status: StatusCode, text: &str) -> Response<B> {
    error_with(status, text, B::from)
}

fn error_with<B>(status: StatusCode, text: &str, body: impl FnOnce(Bytes) -> B) -> Response<B> {
    let mut response = Response::new(body(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Connections with the settings of `limits`. Made once per core.
pub(crate) fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        // A client may close its side behind the request and still get the answer.
        .half_close(true)
        // Ours covers it, without a timer per request, and tells idle connections from slow heads.
        .header_read_timeout(None);
    // Not `pipeline_flush`: it would copy every response into one buffer, large scrapes too.
    if let Some(max) = limits.head_bytes_max {
        builder.max_header_size(max).max_buf_size(max.max(BUFFER_BYTES));
    }
    builder
}

/// How hyper's part of a connection ended.
enum Ending {
    /// As HTTP says.
    Done,
    /// hyper has refused what came.
    NotHttp,
    /// Nobody is there, or nobody wants anything.
    Gone,
    /// A head did not come in time.
    SlowHead,
    /// A response was not taken in time, or the program ends.
    Abandoned,
}

/// Serves a connection to its end.
pub(crate) async fn serve_connection<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    service: Rc<S>,
    builder: Rc<Builder>,
    list: Rc<Watchlist>,
    common: &Common,
) {
    let connections = &common.connections;
    let watched = list.enter();
    let watch = watched.watch();
    let bridge = Bridge::new(stream, watch.clone());
    let answering = service_fn(|request: Request<Incoming>| {
        watch.head_done(!request.body().is_end_stream());
        answer(request, peer, service.clone(), watch.clone(), common.shutdown.clone())
    });
    let mut connection = builder.serve_connection(bridge, answering);
    let mut told_to_end = false;

    let ending = std::future::poll_fn(|context| {
        watch.register(context.waker());
        if watch.take_expired() {
            match watch.phase() {
                Phase::Idle => return Poll::Ready(Ending::Gone),
                Phase::Head => return Poll::Ready(Ending::SlowHead),
                Phase::Body => {
                    connections.count_timeout(Timeout::Request);
                    watch.time_out_body();
                }
                Phase::Responding | Phase::Flushing => return Poll::Ready(Ending::Abandoned),
                Phase::Working | Phase::Lingering => {}
            }
        }
        if list.stage() == Stage::Dropping {
            return Poll::Ready(Ending::Abandoned);
        }
        loop {
            match Pin::new(&mut connection).poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ending::Done),
                Poll::Ready(Err(err)) if err.is_parse() => return Poll::Ready(Ending::NotHttp),
                Poll::Ready(Err(err)) => {
                    tracing::debug!(%peer, error = %err, "connection ended");
                    return Poll::Ready(Ending::Gone);
                }
                Poll::Pending => {}
            }
            if told_to_end || list.stage() == Stage::Serving || !watch.may_close() {
                return Poll::Pending;
            }
            told_to_end = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;

    let mut bridge = connection.into_parts().io;
    match ending {
        Ending::Gone => {}
        Ending::Abandoned => {
            connections.count_timeout(Timeout::Response);
            bridge.socket().reset_on_close();
        }
        Ending::SlowHead => {
            connections.count_timeout(Timeout::Head);
            // If the kernel has no room for these few bytes, nobody reads them either.
            let _ = bridge.socket().send(&[IoSlice::new(SLOW_HEAD)]);
            linger(&mut bridge, watch, LINGER_BYTES_MAX).await;
        }
        Ending::Done | Ending::NotHttp => {
            let flushed = std::future::poll_fn(|context| {
                if watch.take_expired() || list.stage() == Stage::Dropping {
                    return Poll::Ready(false);
                }
                Pin::new(&mut bridge).poll_flush(context).map(|result| result.is_ok())
            })
            .await;
            if flushed && (watch.is_body_unread() || matches!(ending, Ending::NotHttp)) {
                linger(&mut bridge, watch, LINGER_BYTES_MAX).await;
            }
        }
    }
}

/// Closes our side, then reads on for a while: the kernel answers bytes that come for a closed socket with a reset, at
/// which the client's kernel throws away the answer it has not read yet.
pub(crate) async fn linger(bridge: &mut Bridge, watch: &Watch, bytes_max: usize) {
    bridge.close_write();
    watch.lingering();
    let mut bytes = 0;
    std::future::poll_fn(|context: &mut Context<'_>| {
        watch.register(context.waker());
        let turn_ends = bytes + LINGER_TURN_BYTES;
        while bytes < bytes_max && !watch.take_expired() && watch.is_allowed_to_linger() {
            if bytes > turn_ends {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match bridge.poll_discard(context) {
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Ready(Ok(count)) => bytes += count,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}

async fn answer<S: Service>(
    request: Request<Incoming>,
    peer: SocketAddr,
    service: Rc<S>,
    watch: Rc<Watch>,
    shutdown: Shutdown,
) -> Result<Response<Reply<S::Body>>, Infallible> {
    // The request's framing is in doubt after a refusal, so nothing behind it may be taken for a request.
    let mut last = false;
    let mut response = match refusal(&request) {
        Some((status, text)) => {
            last = true;
            // The body goes with the request, and tells the watch that nobody has read it.
            drop(request.map(|incoming| RequestBody::new(incoming, watch.clone())));
            error_with(status, text, |text| Reply::ours(text, watch.clone()))
        }
        None => {
            let request = request.map(|incoming| RequestBody::new(incoming, watch.clone()));
            let response = pin!(service.call(request, peer)).await;
            response.map(|body| Reply::service(body, watch.clone()))
        }
    };
    if last || shutdown.is_requested() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    watch.responding();
    Ok(response)
}

/// What hyper lets pass and a server must refuse: RFC 9112, sections 3.2 (Host) and 6.1 (transfer codings not understood).
fn refusal<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    match headers.get_all(HOST).iter().count() {
        0 if request.version() >= Version::HTTP_11 => {
            return Some((StatusCode::BAD_REQUEST, "missing required Host header"));
        }
        0 | 1 => {}
        _ => return Some((StatusCode::BAD_REQUEST, "too many Host headers")),
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => None,
        _ => Some((StatusCode::NOT_IMPLEMENTED, "unsupported transfer encoding")),
    }
}

#[cfg(test)]
mod tests {
    use super::{SLOW_HEAD, refusal};
    use http::Request;

    #[test]
    fn the_ready_answer_counts_its_own_bytes() {
        let text = std::str::from_utf8(SLOW_HEAD).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }

    #[test]
    fn hosts_and_transfer_codings() {
        let status = |headers: &[(&str, &str)]| {
            let mut request = Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            refusal(&request.body(()).expect("a request")).map(|(status, _)| status.as_u16())
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
