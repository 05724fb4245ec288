//! A body that a future produces while the client reads it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

/// The rest of a response cannot be produced, so its connection ends. The log or a metric has the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response cannot be completed")]
pub(crate) struct Aborted;

/// Where the future puts the next piece.
pub(crate) struct Output {
    next: Rc<Cell<Option<Bytes>>>,
}

impl Output {
    /// Sends a piece. Continues when the connection has room for another one.
    pub(crate) async fn send(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.next.set(Some(piece));
        // Needs no waker, because the body polls the future after it has taken the piece.
        std::future::poll_fn(|_| {
            let next = self.next.take();
            let is_taken = next.is_none();
            self.next.set(next);
            if is_taken { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

type Producer = Pin<Box<dyn Future<Output = Result<(), Aborted>>>>;

/// The future and its next piece.
pub(super) struct Produced {
    next: Rc<Cell<Option<Bytes>>>,
    /// `None` once it has ended.
    future: Option<Producer>,
}

impl Produced {
    pub(super) fn new<F>(make: impl FnOnce(Output) -> F) -> Self
    where
        F: Future<Output = Result<(), Aborted>> + 'static,
    {
        let next = Rc::<Cell<Option<Bytes>>>::default();
        let future = make(Output { next: next.clone() });
        Self { next, future: Some(Box::pin(future)) }
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        let ended = future.as_mut().poll(context);
        if ended.is_ready() {
            self.future = None;
        }
        match (self.next.take(), ended) {
            (_, Poll::Ready(Err(aborted))) => Poll::Ready(Some(Err(aborted))),
            (Some(piece), _) => Poll::Ready(Some(Ok(piece))),
            (None, Poll::Ready(Ok(()))) => Poll::Ready(None),
            (None, Poll::Pending) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::poll_fn;

    #[test]
    fn pieces_are_produced_one_at_a_time() {
        let produced = Rc::new(Cell::new(0));
        let count = produced.clone();
        let mut body = Produced::new(|output| async move {
            for piece in ["a", "", "b"] {
                count.set(count.get() + 1);
                output.send(Bytes::from_static(piece.as_bytes())).await;
            }
            Err(Aborted)
        });
        let mut next =
            || poll_fn(|context| body.poll_next(context)).now_or_never().expect("a piece is ready");
        assert_eq!((next(), produced.get()), (Some(Ok(Bytes::from_static(b"a"))), 1));
        assert_eq!((next(), produced.get()), (Some(Ok(Bytes::from_static(b"b"))), 3));
        assert_eq!(next(), Some(Err(Aborted)));
        assert_eq!(next(), None);
    }
}
