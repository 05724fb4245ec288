//! TLS between the bridge and hyper.
//!
//! rustls has its own buffers, which are bounded: it holds one incomplete record of the client at most, and takes bytes of a response
//! only after the bridge has taken those before. Records go from its buffers to the socket as slices.
//!
//! An incomplete record is counted in the budget as soon as it needs more than the buffer that every connection has, since a client could
//! otherwise hold 16 KiB on each idle connection.
//!
//! The deadlines count decrypted bytes of requests, and encrypted bytes of responses, because the kernel acknowledges those.

mod failures;
mod handshake;

use std::io::{self, BufRead, IoSlice, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use rustls::ServerConnection;

use super::bridge::Bridge;
use super::deadlines::ConnectionDeadline;
use super::transport::Transport;
use crate::runtime::budget::Reservation;
use crate::runtime::socket::Socket;

pub(super) use handshake::accept;

/// How many encrypted bytes of a response wait for the bridge at most.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How much rustls reads at a time. It keeps a buffer of this size.
const READ_BYTES: usize = 4 << 10;
/// What rustls holds of an incomplete record at most: 16 KiB, and what encryption may add.
const RECORD_BYTES_MAX: usize = (16 << 10) + 2048 + 5;

/// An encrypted connection as hyper sees it, after the handshake.
pub(super) struct TlsTransport {
    bridge: Bridge,
    tls: Box<ServerConnection>,
    deadline: Rc<ConnectionDeadline>,
    /// Bytes that have arrived since the last record with data; at least those of an incomplete record.
    incomplete_bytes: usize,
    /// The memory of an incomplete record.
    incomplete: Option<Reservation>,
}

/// The bridge as rustls reads from it.
struct Input<'a, 'b> {
    bridge: &'a mut Bridge,
    context: &'a mut Context<'b>,
}

/// The bridge as rustls writes to it.
struct Output<'a, 'b> {
    bridge: &'a mut Bridge,
    context: &'a mut Context<'b>,
}

impl io::Read for Input<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        now(self.bridge.poll_receive(self.context, buffer.unfilled()))
    }
}

impl io::Write for Output<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.bridge).poll_write_vectored(self.context, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a call returns that does not wait.
fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Pending if a call would have to wait.
fn later<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// Gives the bridge all records. Ready when it has them, which does not mean that they are sent.
fn poll_write_records(
    tls: &mut ServerConnection,
    bridge: &mut Bridge,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while tls.wants_write() {
        ready!(later(tls.write_tls(&mut Output { bridge, context })))?;
    }
    Poll::Ready(Ok(()))
}

/// Receives more of a record. Returns the number of bytes, 0 at the end.
fn poll_read_records(
    tls: &mut ServerConnection,
    bridge: &mut Bridge,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    later(tls.read_tls(&mut Input { bridge, context }))
}

/// Sends records without waiting, if everything before them was sent.
fn send_records(tls: &mut ServerConnection, bridge: &mut Bridge) {
    if !bridge.is_sent() {
        return;
    }
    let mut records = Vec::new();
    while tls.wants_write() {
        // Writing to memory succeeds.
        if tls.write_tls(&mut records).is_err() {
            return;
        }
    }
    bridge.send_canned(&records);
}

impl TlsTransport {
    fn new(bridge: Bridge, tls: Box<ServerConnection>, deadline: Rc<ConnectionDeadline>) -> Self {
        Self { bridge, tls, deadline, incomplete_bytes: 0, incomplete: None }
    }

    /// Takes note of bytes that have arrived, and whether they completed a record with data. Returns false if there is no memory for an
    /// incomplete record and no request in progress that needs it.
    fn count_incomplete(&mut self, bytes: usize, has_data: bool) -> bool {
        if has_data {
            self.incomplete_bytes = bytes;
            self.incomplete = None;
            return true;
        }
        self.incomplete_bytes = self.incomplete_bytes.saturating_add(bytes);
        if self.incomplete_bytes > READ_BYTES && self.incomplete.is_none() {
            self.incomplete = self.deadline.reserve(RECORD_BYTES_MAX);
            return self.incomplete.is_some() || !self.deadline.refuse_record();
        }
        true
    }

    fn poll_flush_records(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_write_records(&mut self.tls, &mut self.bridge, context)
    }
}

impl Transport for TlsTransport {
    fn socket(&self) -> &Socket {
        self.bridge.socket()
    }

    fn is_http2(&self) -> bool {
        self.tls.alpn_protocol() == Some(b"h2")
    }

    fn send_canned(&mut self, response: &[u8]) {
        if self.bridge.is_sent() && !self.tls.wants_write() && self.tls.writer().write_all(response).is_ok() {
            send_records(&mut self.tls, &mut self.bridge);
        }
    }

    /// The peer receives the alert `close_notify`, then a FIN.
    fn close_write(&mut self) {
        self.end();
        self.bridge.close_write();
    }

    fn end(&mut self) {
        self.tls.send_close_notify();
        send_records(&mut self.tls, &mut self.bridge);
    }

    /// Need not decrypt.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.bridge.poll_discard(context)
    }
}

impl Read for TlsTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let mut reader = this.tls.reader();
            match reader.fill_buf() {
                // The client has closed its side.
                Ok([]) => return Poll::Ready(Ok(())),
                Ok(bytes) => {
                    let count = bytes.len().min(cursor.remaining());
                    cursor.put_slice(&bytes[..count]);
                    reader.consume(count);
                    let fits = this.deadline.bytes_received(count);
                    return Poll::Ready(if fits { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) });
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                // The client closed its side without saying so. That a body is complete is checked by its framing.
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(err) => return Poll::Ready(Err(err)),
            }
            if this.tls.wants_write() {
                // Session tickets, for example. They need not be sent before the client is heard.
                let written = poll_write_records(&mut this.tls, &mut this.bridge, context)?;
                if written.is_ready() {
                    let _ = this.bridge.poll_sent(context)?;
                }
            } else {
                // Takes note of a write that has completed, so that an alert can follow it.
                let _ = this.bridge.poll_settled(context)?;
            }
            let bytes = ready!(poll_read_records(&mut this.tls, &mut this.bridge, context))?;
            match this.tls.process_new_packets() {
                Ok(state) if this.count_incomplete(bytes, state.plaintext_bytes_to_read() > 0) => {}
                Ok(_) => return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())),
                Err(err) => {
                    send_records(&mut this.tls, &mut this.bridge);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, err)));
                }
            }
        }
    }
}

impl Write for TlsTransport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_flush_records(context))?;
        let taken = this.tls.writer().write_vectored(slices)?;
        // If the bridge does not take them now, the next call continues.
        let _ = this.poll_flush_records(context)?;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_records(context))?;
        Pin::new(&mut self.bridge).poll_flush(context)
    }

    /// Only flushes, as the bridge does.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}
