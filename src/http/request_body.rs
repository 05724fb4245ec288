//! Request bodies, with a size limit and a deadline.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::deadlines::ConnectionDeadline;

/// Maximum memory to reserve for the announced length of a body, because an announcement costs the client nothing.
const RESERVE_BYTES_MAX: usize = 256 << 10;

/// The body of a request as it arrives.
pub struct RequestBody {
    incoming: Incoming,
    deadline: Rc<ConnectionDeadline>,
    failed: bool,
}

/// Why a body could not be read. The connection is closed after the response.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the limit.
    #[error("the body is too large")]
    TooLarge,
    /// It was not complete within the request timeout.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// It ended early, or its chunks are malformed.
    #[error("the body is malformed: {}", with_cause(.0))]
    Malformed(#[source] hyper::Error),
}

fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, deadline: Rc<ConnectionDeadline>) -> RequestBody {
        RequestBody { incoming, deadline, failed: false }
    }

    /// Reads the whole body, up to `bytes_max` bytes. A body that arrived in one piece is not copied.
    ///
    /// # Errors
    /// See [`BodyError`]. A body that announces more than `bytes_max` is rejected before any of it is read.
    pub async fn collect(mut self, bytes_max: Option<u64>) -> Result<Bytes, BodyError> {
        let bytes_max = bytes_max.unwrap_or(u64::MAX);
        if self.size_hint().lower() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut length: u64 = 0;
        while let Some(frame) = self.frame().await {
            // Trailers are ignored.
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len() as u64;
            if length > bytes_max {
                return Err(BodyError::TooLarge);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if !first.is_empty() {
                let announced = usize::try_from(self.size_hint().lower()).unwrap_or(usize::MAX);
                rest.reserve(first.len() + data.len() + announced.min(RESERVE_BYTES_MAX));
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
        if self.deadline.body_timed_out() {
            self.failed = true;
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        }
        match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.deadline.body_received();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(err)) => {
                self.failed = true;
                Poll::Ready(Some(Err(BodyError::Malformed(err))))
            }
            None => {
                self.deadline.body_received();
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
        // A chunked body that was read to its end may count as unread here; that costs a short wait before a close.
        if self.failed || !self.incoming.is_end_stream() {
            self.deadline.leave_body_unread();
        }
    }
}
