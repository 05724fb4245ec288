//! The body of a response: bytes, pieces, or what a future produces.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::produced::{Aborted, Output, Produced};

/// The body of a response.
#[derive(Default)]
pub(crate) struct ResponseBody {
    content: Content,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    /// Ready pieces, and how many of their bytes are left to send.
    Pieces(VecDeque<Bytes>, u64),
    /// Pieces that are produced while they are sent.
    Produced(Produced),
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.content {
            Content::Empty => out.write_str("empty"),
            Content::Pieces(pieces, left) => write!(out, "{} pieces, {left} bytes", pieces.len()),
            Content::Produced(_) => out.write_str("produced"),
        }
    }
}

impl ResponseBody {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    /// Ready pieces, in order. Empty ones are left out.
    pub(crate) fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { content: Content::Pieces(pieces, len) }
    }

    /// Pieces that are produced while they are sent.
    pub(crate) fn produced<F>(make: impl FnOnce(Output) -> F) -> Self
    where
        F: Future<Output = Result<(), Aborted>> + 'static,
    {
        Self { content: Content::Produced(Produced::new(make)) }
    }

    /// The number of bytes to send, if known.
    pub(crate) fn len(&self) -> Option<u64> {
        match &self.content {
            Content::Empty => Some(0),
            Content::Pieces(_, left) => Some(*left),
            Content::Produced(_) => None,
        }
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self::pieces([bytes]) }
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Pieces(pieces, left) => Poll::Ready(pieces.pop_front().map(|piece| {
                *left -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Content::Produced(produced) => {
                produced.poll_next(context).map(|piece| Some(piece?.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.len().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
