//! What a connection needs from whatever carries its bytes.

use std::io;
use std::task::{Context, Poll};

use hyper::rt::{Read, Write};

use crate::runtime::socket::Socket;

/// Carries the bytes of one connection: hyper's reads and writes, and the ways in which a connection ends.
///
/// A flush is complete when the kernel has everything, and shutting down only flushes, so that a connection can linger before its end.
pub(super) trait Transport: Read + Write + Unpin {
    fn socket(&self) -> &Socket;

    /// Whether the client has negotiated HTTP/2.
    fn is_http2(&self) -> bool;

    /// Sends a short response in place of hyper's, if everything before it was sent. If the kernel has no space for these few bytes,
    /// the client is not reading, and they are dropped.
    fn send_canned(&mut self, response: &[u8]);

    /// Closes the write side: the peer receives the end of the stream after the flushed bytes.
    fn close_write(&mut self);

    /// Tells the peer that the connection ends, if the protocol has a way to. The transport is dropped next, which closes the connection.
    fn end(&mut self);

    /// Reads and discards. Returns the number of bytes, 0 at the end.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>>;
}
