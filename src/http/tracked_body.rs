//! Tracks when hyper has taken the whole body of a response.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use super::deadlines::ConnectionDeadline;

/// A response body that reports when hyper has taken all of it.
pub(crate) struct TrackedBody<B> {
    content: Content<B>,
    deadline: Rc<ConnectionDeadline>,
}

enum Content<B> {
    /// An error text of this module.
    Text(Full<Bytes>),
    /// The body that the service returned.
    Service(B),
}

impl<B> TrackedBody<B> {
    pub(crate) fn text(text: Bytes, deadline: Rc<ConnectionDeadline>) -> TrackedBody<B> {
        TrackedBody { content: Content::Text(Full::new(text)), deadline }
    }

    pub(crate) fn service(body: B, deadline: Rc<ConnectionDeadline>) -> TrackedBody<B> {
        TrackedBody { content: Content::Service(body), deadline }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.content {
            Content::Text(text) => Pin::new(text).poll_frame(context).map_err(|never| match never {}),
            Content::Service(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_end_stream(),
            Content::Service(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => text.size_hint(),
            Content::Service(body) => body.size_hint(),
        }
    }
}

impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        self.deadline.response_body_taken();
    }
}
