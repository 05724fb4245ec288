//! The bridge between hyper and the runtime: hyper's reads and writes as operations of the ring.
//!
//! hyper lends its buffers for the length of a call, while a ring (and monoio on epoll alike) has to own them until the operation
//! completes. So the bridge has its own buffers. It moves data by five rules, which were measured against the alternatives:
//!
//! * A read is an operation into a small buffer of the bridge, from which hyper gets a copy. If a read fills the buffer, more has
//!   probably arrived; direct calls fetch it until the kernel has nothing left.
//! * The first read is a direct call, because the request of a new connection has usually arrived. So the first poll of a new
//!   connection sees its request, however many connections arrive with it.
//! * A poll of a connection reads at most one request (several if they are pipelined), so that a client that sends the next one at
//!   once lets the others of the core continue.
//! * Small writes gather in a buffer. It is written as one operation when hyper flushes.
//! * Larger writes go from hyper's own slices, by a direct call that does not wait. If the kernel has no space, a piece is copied into
//!   an operation; its completion signals that there is space again.
//!
//! Each direction is a small task (`read_forever`, `write_forever`) that the bridge polls and that lives as long as the connection. So an
//! operation in flight is never dropped before the connection, and a request allocates nothing here.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::deadlines::ConnectionDeadline;
use super::transport::Transport;
use crate::runtime::socket::{ReadHalf, Socket, WriteHalf};
use crate::runtime::tcp::TcpStream;

/// The buffer of a read operation; fits the head and body of a typical push. Every idle connection holds one.
const READ_BYTES: usize = 4 << 10;
/// How many read buffers a core keeps for new connections.
const SPARE_INPUTS_MAX: usize = 64;
/// The buffer of direct reads; held only while a large body arrives.
///
/// hyper doubles its own buffer after a read that fills it, and keeps it as long as the connection; with this size, at 32 KiB.
const BULK_BYTES: usize = (32 << 10) - 1;
/// How many direct reads may follow each other before one goes through the ring, so that a fast sender lets the other connections of the
/// core continue.
const BULK_READS_MAX: usize = 8;
/// Writes up to this size gather; a typical response is smaller.
const GATHER_BYTES_MAX: usize = 2 << 10;
/// How much is copied into an operation that waits for space in the kernel.
const WAITING_PIECE_BYTES: usize = 16 << 10;
/// How much may be written directly before the connection lets others have their turn. A client that reads as fast as the core writes
/// would otherwise keep the core for a whole response.
const DIRECT_BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 1 << 20 };
/// Maximum slices of one direct write: the gathered bytes, then up to 16 pieces of hyper with their framing.
const SLICES_MAX: usize = 65;

/// A connection as hyper sees it.
pub(super) struct Bridge {
    socket: Socket,
    deadline: Rc<ConnectionDeadline>,

    read_task: Pin<Box<dyn Future<Output = ()>>>,
    read_exchange: Rc<BufferExchange>,
    reading: bool,
    /// Nothing was read yet.
    is_new: bool,
    input: Vec<u8>,
    input_start: usize,
    /// The last read filled its buffer, so the kernel probably has more.
    has_more: bool,
    /// The number of direct reads since the last read through the ring.
    bulk_reads: usize,
    ended: bool,
    bulk: Vec<u8>,

    /// `None` once the write side is closed.
    write_task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    write_exchange: Rc<BufferExchange>,
    writing: bool,
    gathered: Vec<u8>,
    /// How much was written directly since the last pause.
    direct_bytes: usize,
}

thread_local! {
    /// Empty buffers of connections that have ended, for the next ones of this core.
    static SPARE_INPUTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Where the bridge and one of its tasks exchange a buffer.
#[derive(Default)]
struct BufferExchange {
    next: Cell<Option<Vec<u8>>>,
    result: Cell<Option<(io::Result<usize>, Vec<u8>)>>,
}

impl BufferExchange {
    /// The next buffer to work on. Needs no waker, because the bridge polls the task after it provides a buffer.
    async fn next_buffer(&self) -> Vec<u8> {
        std::future::poll_fn(|_| self.next.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

async fn read_forever(mut half: ReadHalf, exchange: Rc<BufferExchange>) {
    loop {
        let buffer = exchange.next_buffer().await;
        exchange.result.set(Some(half.read(buffer).await));
    }
}

async fn write_forever(mut half: WriteHalf, exchange: Rc<BufferExchange>) {
    loop {
        let buffer = exchange.next_buffer().await;
        exchange.result.set(Some(half.write_all(buffer).await));
    }
}

/// An empty buffer for reads.
fn spare_input() -> Vec<u8> {
    SPARE_INPUTS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(READ_BYTES))
}

impl Bridge {
    pub(crate) fn new(stream: TcpStream, deadline: Rc<ConnectionDeadline>) -> Bridge {
        let (socket, reader, writer) = Socket::split(stream);
        let (read_exchange, write_exchange) =
            (Rc::<BufferExchange>::default(), Rc::<BufferExchange>::default());
        Bridge {
            socket,
            deadline,
            read_task: Box::pin(read_forever(reader, read_exchange.clone())),
            read_exchange,
            reading: false,
            is_new: true,
            input: spare_input(),
            input_start: 0,
            has_more: false,
            bulk_reads: 0,
            ended: false,
            bulk: Vec::new(),
            write_task: Some(Box::pin(write_forever(writer, write_exchange.clone()))),
            write_exchange,
            writing: false,
            gathered: Vec::new(),
            direct_bytes: 0,
        }
    }

    /// Reads what arrived, without telling the deadline. Returns the number of bytes, 0 at the end.
    pub(super) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = self.receive_bulk(cursor.remaining())? {
            cursor.put_slice(&self.bulk[..count]);
            return Poll::Ready(Ok(count));
        }
        ready!(self.poll_input(context))?;
        let unread = &self.input[self.input_start..];
        let count = unread.len().min(cursor.remaining());
        cursor.put_slice(&unread[..count]);
        self.input_start += count;
        Poll::Ready(Ok(count))
    }

    /// Ready when the kernel has everything that was written, without telling the deadline.
    pub(super) fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_settled(context))?;
            if self.gathered.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.start_write();
        }
    }

    /// Whether the kernel has everything that was written.
    pub(super) fn is_sent(&self) -> bool {
        !self.writing && self.gathered.is_empty()
    }

    /// Fetches into the bulk buffer what arrived after a full read. Returns `None` if the next read must go through the ring.
    fn receive_bulk(&mut self, max: usize) -> io::Result<Option<usize>> {
        if !self.has_more || self.input_start < self.input.len() {
            return Ok(None);
        }
        if self.deadline.is_between_requests() {
            self.stop_bulk();
            return Ok(None);
        }
        if self.bulk_reads == BULK_READS_MAX {
            self.has_more = false;
            return Ok(None);
        }
        self.bulk_reads += 1;
        self.bulk.resize(BULK_BYTES, 0);
        let room = max.min(BULK_BYTES);
        match self.socket.receive(&mut self.bulk[..room]) {
            Ok(0) => {
                self.ended = true;
                self.stop_bulk();
                Ok(Some(0))
            }
            Ok(count) => Ok(Some(count)),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                self.stop_bulk();
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    fn stop_bulk(&mut self) {
        self.has_more = false;
        self.bulk = Vec::new();
    }

    fn count_received(&self, count: usize) -> io::Result<()> {
        if self.deadline.bytes_received(count) { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// Ready when there is unread input, or the stream has ended.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input_start < self.input.len() || self.ended {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(&mut self.is_new) && self.receive_first()? {
            return Poll::Ready(Ok(()));
        }
        let is_started = !self.reading;
        if is_started {
            let mut buffer = std::mem::take(&mut self.input);
            buffer.clear();
            self.read_exchange.next.set(Some(buffer));
            self.reading = true;
        }
        // The task never ends; its result is in the exchange.
        let _ = self.read_task.as_mut().poll(context);
        let Some((result, buffer)) = self.read_exchange.result.take() else { return Poll::Pending };
        self.reading = false;
        self.input = buffer;
        self.input_start = 0;
        match result {
            Ok(count) => {
                self.ended = count == 0;
                self.bulk_reads = 0;
                if count == self.input.capacity() {
                    self.has_more = true;
                } else {
                    self.stop_bulk();
                }
                if is_started && count > 0 && self.deadline.is_between_requests() {
                    // epoll reads at once. The next poll finds the input.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            }
            Err(err) => {
                self.input.clear();
                Poll::Ready(Err(err))
            }
        }
    }

    /// Reads what has arrived on a new connection. Returns false if nothing has.
    fn receive_first(&mut self) -> io::Result<bool> {
        match self.socket.receive_more(&mut self.input) {
            Ok(count) => {
                self.ended = count == 0;
                self.has_more = count == self.input.capacity();
                Ok(true)
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Ready when no write is in flight.
    pub(super) fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.writing {
            return Poll::Ready(Ok(()));
        }
        let Some(task) = &mut self.write_task else { return Poll::Ready(Err(closed())) };
        let _ = task.as_mut().poll(context);
        let Some((result, buffer)) = self.write_exchange.result.take() else { return Poll::Pending };
        self.writing = false;
        // The larger buffer of a waiting piece is not kept, because most responses are small.
        if buffer.capacity() <= 2 * GATHER_BYTES_MAX {
            self.gathered = buffer;
            self.gathered.clear();
        }
        Poll::Ready(result.map(|count| self.deadline.bytes_sent(count)))
    }

    fn start_write(&mut self) {
        self.write_exchange.next.set(Some(std::mem::take(&mut self.gathered)));
        self.writing = true;
    }

    /// Writes slices that are too large to gather, after the gathered bytes. Returns how many of their bytes were taken.
    fn poll_write_large(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.direct_bytes >= DIRECT_BYTES_MAX {
            self.direct_bytes = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let mut all = [IoSlice::new(&[]); SLICES_MAX];
            all[0] = IoSlice::new(&self.gathered);
            let count = slices.len().min(SLICES_MAX - 1);
            all[1..=count].copy_from_slice(&slices[..count]);
            let sent = self.socket.send(&all[usize::from(self.gathered.is_empty())..=count]);
            self.deadline.bytes_sent(*sent.as_ref().unwrap_or(&0));
            self.direct_bytes += *sent.as_ref().unwrap_or(&0);
            match sent {
                Ok(sent) if sent > self.gathered.len() => {
                    let taken = sent - self.gathered.len();
                    self.gathered.clear();
                    return Poll::Ready(Ok(taken));
                }
                Ok(sent) => {
                    self.gathered.drain(..sent);
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.direct_bytes = 0;
                    let mut taken = 0;
                    for slice in slices {
                        let room = WAITING_PIECE_BYTES.saturating_sub(self.gathered.len());
                        let piece = &slice[..slice.len().min(room)];
                        self.gathered.extend_from_slice(piece);
                        taken += piece.len();
                    }
                    self.start_write();
                    // Submits the operation. hyper calls again for the rest and finds it in flight.
                    if let Poll::Ready(Err(err)) = self.poll_settled(context) {
                        return Poll::Ready(Err(err));
                    }
                    return Poll::Ready(Ok(taken));
                }
                Err(err) => return Poll::Ready(Err(err)),
            }
        }
    }
}

fn closed() -> io::Error {
    io::Error::from(io::ErrorKind::NotConnected)
}

impl Transport for Bridge {
    fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Never without TLS, as in the official program.
    fn is_http2(&self) -> bool {
        false
    }

    fn send_canned(&mut self, response: &[u8]) {
        let _ = self.socket.send(&[IoSlice::new(response)]);
    }

    /// The peer receives a FIN.
    fn close_write(&mut self) {
        self.write_task = None;
        self.socket.close_write();
    }

    /// The close sends a FIN.
    fn end(&mut self) {}

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(count) = self.receive_bulk(BULK_BYTES)? {
            return Poll::Ready(Ok(count));
        }
        ready!(self.poll_input(context))?;
        let count = self.input.len() - self.input_start;
        self.input_start = self.input.len();
        Poll::Ready(Ok(count))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if self.reading || self.writing {
            // The descriptor is closed only after these operations have ended.
            self.socket.close_write();
        } else if self.input.capacity() == READ_BYTES {
            SPARE_INPUTS.with_borrow_mut(|spare| {
                if spare.len() < SPARE_INPUTS_MAX {
                    self.input.clear();
                    spare.push(std::mem::take(&mut self.input));
                }
            });
        }
    }
}

impl Read for Bridge {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.poll_receive(context, cursor))?;
        if count > 0 { Poll::Ready(self.count_received(count)) } else { Poll::Ready(Ok(())) }
    }
}

impl Write for Bridge {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_settled(context))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if this.gathered.len() + total > GATHER_BYTES_MAX {
            return this.poll_write_large(context, slices);
        }
        for slice in slices {
            this.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Ready when the kernel has everything, so that the connection can be closed after a response.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(context))?;
        self.deadline.flushed();
        Poll::Ready(Ok(()))
    }

    /// Only flushes. The FIN follows later, so that a lingering close can happen before.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use hyper::rt::{Read, ReadBuf, Write as _};

    use super::Bridge;
    use crate::http::deadlines::{ConnectionTable, TableEntry};
    use crate::http::limits::Limits;
    use crate::runtime::budget::Budget;
    use crate::runtime::tcp::{AcceptStop, Listener};
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};
    use crate::runtime::{sleep, yield_now};

    /// A connection whose client has sent `bytes`.
    async fn connected(bytes: &[u8]) -> (Bridge, TableEntry, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        let mut client = StdStream::connect(address).expect("it listens");
        client.write_all(bytes).expect("the kernel has space");
        let listener = Listener::new(listener, &AcceptStop::default()).expect("the listener is registered");
        let (stream, _) = listener.accept().await.expect("the client connects");
        let entry = ConnectionTable::new(&Limits::default(), Budget::new(None)).enter();
        (Bridge::new(stream, entry.deadline().clone()), entry, client)
    }

    /// Polls a read once. Returns the number of bytes if it is ready.
    async fn read_once(bridge: &mut Bridge) -> Option<usize> {
        poll_fn(|context| {
            let mut buffer = [0; 100];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut *bridge).poll_read(context, buffer.unfilled());
            Poll::Ready(read.is_ready().then(|| buffer.filled().len()))
        })
        .await
    }

    #[test]
    fn the_first_poll_reads_what_has_arrived() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            run_on_cores(1, choice, |CoreIndex(_)| async {
                let (mut bridge, _entry, _client) = connected(b"GET").await;
                assert_eq!(read_once(&mut bridge).await, Some(3));
                assert_eq!(read_once(&mut bridge).await, None);
            })
            .expect("epoll works everywhere");
        }
    }

    /// A client that read a large response as fast as it was written kept the core until the response was complete.
    #[test]
    fn a_long_response_is_written_in_several_polls() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            run_on_cores(1, choice, |CoreIndex(_)| async {
                let (mut bridge, _entry, _client) = connected(b"").await;
                let piece = vec![b'x'; super::DIRECT_BYTES_MAX];
                let mut written = Vec::new();
                for _ in 0..3 {
                    let write = |context: &mut Context<'_>| {
                        Poll::Ready(Pin::new(&mut bridge).poll_write(context, &piece).is_ready())
                    };
                    written.push(poll_fn(write).await);
                }
                assert_eq!(written, [true, false, true]);
            })
            .expect("epoll works everywhere");
        }
    }

    #[test]
    fn a_connection_reads_its_next_request_in_another_poll() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            run_on_cores(1, choice, |CoreIndex(_)| async {
                let (mut bridge, entry, mut client) = connected(b"one").await;
                assert_eq!(read_once(&mut bridge).await, Some(3));
                let deadline = entry.deadline();
                deadline.head_received(false);
                deadline.response_started(None);
                deadline.response_body_taken();
                deadline.flushed();
                client.write_all(b"four").expect("the kernel has space");
                // The driver knows that the socket is readable.
                sleep(Duration::from_millis(5)).await;
                assert_eq!(read_once(&mut bridge).await, None);
                let mut read = None;
                while read.is_none() {
                    yield_now().await;
                    read = read_once(&mut bridge).await;
                }
                assert_eq!(read, Some(4));
            })
            .expect("epoll works everywhere");
        }
    }
}
