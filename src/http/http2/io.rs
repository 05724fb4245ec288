//! What h2 reads and writes: a transport whose frames are followed, and which is still there after h2 has ended.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use super::frames::Frames;
use crate::http::deadlines::ConnectionDeadline;
use crate::http::transport::Transport;

/// How much is read at a time. A full window arrives in a few reads.
const READ_BYTES: usize = 8 << 10;
/// How often h2 may read before its connection lets others continue.
const READS_PER_TURN: usize = 16;

/// What a connection and its streams know about what is sent and received.
pub(super) struct Traffic {
    deadline: Rc<ConnectionDeadline>,
    frames: RefCell<Frames>,
    head_bytes_max: usize,
    /// The kernel had no space for the last write.
    is_blocked: Cell<bool>,
    /// Everything that h2 has written is with the kernel, so the last frame is complete.
    is_flushed: Cell<bool>,
    reads_left: Cell<usize>,
    /// The streams have to read before the connection does.
    must_yield: Cell<bool>,
    /// The connection ends because of what the client sent.
    is_refused: Cell<bool>,
}

/// The side of h2.
pub(super) struct FollowedTransport<T> {
    transport: Rc<RefCell<T>>,
    traffic: Rc<Traffic>,
    /// What has arrived and h2 may not have yet.
    rest: Vec<u8>,
}

impl Traffic {
    pub(super) fn new(deadline: Rc<ConnectionDeadline>, head_bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            frames: RefCell::new(Frames::new(deadline.now_millis())),
            deadline,
            head_bytes_max,
            is_blocked: Cell::new(false),
            is_flushed: Cell::new(true),
            reads_left: Cell::new(0),
            must_yield: Cell::new(false),
            is_refused: Cell::new(false),
        })
    }

    /// A poll of the connection begins.
    pub(super) fn begin_turn(&self) {
        self.reads_left.set(READS_PER_TURN);
    }

    /// Whether the connection has to let others continue before it is polled again.
    pub(super) fn take_must_yield(&self) -> bool {
        self.must_yield.replace(false)
    }

    /// Whether the kernel had no space for the last write.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    /// Whether another frame can follow what was sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed.get()
    }

    /// The last stream of which something has arrived.
    pub(super) fn last_stream(&self) -> u32 {
        self.frames.borrow().last_stream()
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    /// A response was sent.
    pub(super) fn response_sent(&self) {
        self.frames.borrow_mut().credit_response();
    }

    /// Bytes have arrived. Returns how many of them h2 may have now.
    fn received(&self, bytes: &[u8]) -> io::Result<usize> {
        let refused = |error: io::Error| {
            self.is_refused.set(true);
            error
        };
        let mut frames = self.frames.borrow_mut();
        let scanned = frames
            .scan(bytes, self.deadline.now_millis())
            .map_err(|error| refused(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        if scanned.body_bytes > 0 {
            self.deadline.body_progressed();
        }
        if scanned.is_head_complete {
            self.deadline.head_ended();
        }
        if frames.is_head_incomplete() {
            self.deadline.head_begun();
            if scanned.is_head_continued && !self.deadline.head_continued(self.head_bytes_max) {
                return Err(refused(io::ErrorKind::OutOfMemory.into()));
            }
        }
        if scanned.bytes < bytes.len() {
            self.reads_left.set(0);
        }
        Ok(scanned.bytes)
    }

    fn written<R>(&self, result: &Poll<io::Result<R>>) {
        self.is_blocked.set(result.is_pending());
    }
}

impl<T> FollowedTransport<T> {
    pub(super) fn new(transport: Rc<RefCell<T>>, traffic: Rc<Traffic>) -> Self {
        Self { transport, traffic, rest: Vec::new() }
    }
}

impl<T: Transport> Read for FollowedTransport<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(left) = this.traffic.reads_left.get().checked_sub(1) else {
            this.traffic.must_yield.set(true);
            return Poll::Pending;
        };
        this.traffic.reads_left.set(left);
        if !this.rest.is_empty() {
            let available = this.rest.len().min(cursor.remaining());
            let count = this.traffic.received(&this.rest[..available])?;
            cursor.put_slice(&this.rest[..count]);
            this.rest.drain(..count);
            return Poll::Ready(Ok(()));
        }
        // Copied, because the cursor does not lend what was written to it.
        let mut bytes = [0; READ_BYTES];
        let count = bytes.len().min(cursor.remaining());
        let mut buffer = ReadBuf::new(&mut bytes[..count]);
        ready!(Pin::new(&mut *this.transport.borrow_mut()).poll_read(context, buffer.unfilled()))?;
        let count = this.traffic.received(buffer.filled())?;
        let (now, rest) = buffer.filled().split_at(count);
        cursor.put_slice(now);
        this.rest = rest.to_vec();
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> FollowedTransport<T> {
    fn count_written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.traffic.written(&result);
        if let Poll::Ready(Ok(count)) = result {
            self.traffic.is_flushed.set(false);
            self.traffic.frames.borrow_mut().credit_bytes(count);
        }
        result
    }

    fn flushed(&self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.traffic.written(&result);
        if let Poll::Ready(Ok(())) = result {
            self.traffic.is_flushed.set(true);
        }
        result
    }
}

impl<T: Transport> Write for FollowedTransport<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.transport.borrow_mut()).poll_write(context, bytes);
        self.count_written(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.transport.borrow_mut()).poll_write_vectored(context, slices);
        self.count_written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut *self.transport.borrow_mut()).poll_flush(context);
        self.flushed(result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut *self.transport.borrow_mut()).poll_shutdown(context);
        self.flushed(result)
    }
}
