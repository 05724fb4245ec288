//! Request bodies with a bound and a deadline; the bodies of responses.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::deadlines::Watch;

/// Memory taken ahead for a body of announced length. An announcement costs its sender nothing, so it earns no more.
const AHEAD_BYTES: usize = 256 << 10;

/// The body of a request, as it comes.
pub struct RequestBody {
    incoming: Incoming,
    watch: Rc<Watch>,
    failed: bool,
}

/// Why a body could not be had. Each calls for an answer of its own; the connection is closed behind it.
#[derive(Debug)]
pub enum BodyError {
    /// Longer than the bound; 413.
    TooLarge,
    /// Not complete within the request timeout; 408.
    TimedOut,
    /// Cut off, or chunks that cannot be understood; 400.
    Broken(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::TooLarge => f.write_str("the body is too large"),
            BodyError::TimedOut => f.write_str("the body did not come in time"),
            BodyError::Broken(err) => {
                write!(f, "the body is broken: {err}")?;
                let source = std::error::Error::source(err);
                source.map_or(Ok(()), |source| write!(f, ": {source}"))
            }
        }
    }
}

impl std::error::Error for BodyError {}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, watch: Rc<Watch>) -> RequestBody {
        RequestBody { incoming, watch, failed: false }
    }

    /// The whole body, if it is not longer than `max`. A body that came in one piece is not copied.
    ///
    /// # Errors
    /// See [`BodyError`]. A body that announces more than `max` is refused before any of it is read.
    pub async fn collect(mut self, max: Option<u64>) -> Result<Bytes, BodyError> {
        let max = max.unwrap_or(u64::MAX);
        if self.size_hint().lower() > max {
            return Err(BodyError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut length: u64 = 0;
        while let Some(frame) = self.frame().await {
            // Trailers are not asked for by anything a gateway does.
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len() as u64;
            if length > max {
                return Err(BodyError::TooLarge);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if !first.is_empty() {
                let announced = usize::try_from(self.size_hint().lower()).unwrap_or(usize::MAX);
                rest.reserve(first.len() + data.len() + announced.min(AHEAD_BYTES));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.watch.body_timed_out() {
            self.failed = true;
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        }
        match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.watch.body_done();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(err)) => {
                self.failed = true;
                Poll::Ready(Some(Err(BodyError::Broken(err))))
            }
            None => {
                self.watch.body_done();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // A chunked body that was read to its end may be taken for unread here; that costs a short wait at a close.
        if self.failed || !self.incoming.is_end_stream() {
            self.watch.leave_body_unread();
        }
    }
}

/// The body of a response: the service's, or a line of ours. Its drop tells that hyper has all of it.
pub(crate) struct Reply<B> {
    content: Content<B>,
    watch: Rc<Watch>,
}

enum Content<B> {
    Ours(Full<Bytes>),
    Service(B),
}

impl<B> Reply<B> {
    pub(crate) fn ours(text: Bytes, watch: Rc<Watch>) -> Reply<B> {
        Reply { content: Content::Ours(Full::new(text)), watch }
    }

    pub(crate) fn service(body: B, watch: Rc<Watch>) -> Reply<B> {
        Reply { content: Content::Service(body), watch }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Reply<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.content {
            Content::Ours(text) => Pin::new(text).poll_frame(context).map_err(|never| match never {}),
            Content::Service(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Ours(text) => text.is_end_stream(),
            Content::Service(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Ours(text) => text.size_hint(),
            Content::Service(body) => body.size_hint(),
        }
    }
}

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        self.watch.response_body_done();
    }
}
