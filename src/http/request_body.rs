//! Request bodies, with a size limit and a deadline.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::deadlines::ConnectionDeadline;
use crate::exposition::memory::{Memory, OutOfMemory};

/// From this size on, the buffer of a body grows by a quarter instead of doubling.
const LARGE_BYTES: usize = 1 << 20;

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
    /// It does not fit into the memory for requests.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
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

    /// The length that the client announced; `None` if the body is chunked.
    pub(crate) fn announced_bytes(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Reads the whole body, up to `bytes_max` bytes, and reserves `memory` for what has arrived. A body that arrived in one piece is not
    /// copied.
    ///
    /// # Errors
    /// See [`BodyError`]. A body that announces more than `bytes_max` is rejected before any of it is read.
    pub async fn collect(
        mut self,
        bytes_max: Option<u64>,
        memory: &mut dyn Memory,
    ) -> Result<Bytes, BodyError> {
        let bytes_max = bytes_max.unwrap_or(u64::MAX);
        if self.size_hint().lower() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut rest = Vec::new();
        let mut reserved = 0;
        while let Some(frame) = self.frame().await {
            // Trailers are ignored.
            let Ok(data) = frame?.into_data() else { continue };
            let length = first.len() + rest.len() + data.len();
            if length as u64 > bytes_max {
                return Err(BodyError::TooLarge);
            }
            if reserved == 0 {
                memory.grow(length)?;
                reserved = length;
                first = data;
                continue;
            }
            // Pieces are copied, because there may be millions of one byte each.
            if length > rest.capacity() {
                let capacity = self.capacity_for(length);
                memory.grow(capacity.saturating_sub(reserved))?;
                reserved = reserved.max(capacity);
                rest.reserve_exact(capacity - rest.len());
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        Ok(if rest.is_empty() { first } else { rest.into() })
    }

    /// The capacity of a buffer for a body of which `length` bytes have arrived. An announcement costs the client nothing, so it reserves
    /// no more than has arrived.
    fn capacity_for(&self, length: usize) -> usize {
        let ahead = if length < LARGE_BYTES { length } else { length / 4 };
        let announced =
            self.announced_bytes().map_or(usize::MAX, |rest| rest.try_into().unwrap_or(usize::MAX));
        length.saturating_add(ahead.min(announced))
    }

    /// Reads and discards a body of up to `bytes_max` bytes, so that the connection can be used again. The rest of a longer one stays
    /// unread.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub(crate) async fn skip(mut self, bytes_max: u64) -> Result<(), BodyError> {
        if self.size_hint().lower() > bytes_max {
            return Ok(());
        }
        let mut length = 0;
        while let Some(frame) = self.frame().await {
            length += frame?.into_data().map_or(0, |data| data.len() as u64);
            if length > bytes_max {
                break;
            }
        }
        Ok(())
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
