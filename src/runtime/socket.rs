//! Direct system calls on a socket whose descriptor is owned by a monoio runtime.
//!
//! monoio hands out only the number of a descriptor, while the safe calls of rustix want a borrow whose lifetime proves that it
//! is open. [`Socket`] makes that proof; it is the one place of this program with `unsafe`.
#![expect(unsafe_code, reason = "monoio's sockets lend their descriptor only as a number")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use monoio::io::{OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, sockopt};

/// A share of a socket that never waits. It keeps the socket open for as long as it lives.
pub(crate) struct Socket {
    descriptor: RawFd,
    /// Holds the stream that owns the descriptor.
    _keeper: OwnedReadHalf<TcpStream>,
}

impl Socket {
    /// Takes a stream apart. Dropping the write half sends a FIN; the descriptor is closed when all parts and all
    /// operations in flight are gone.
    pub(crate) fn split(stream: TcpStream) -> (Socket, OwnedReadHalf<TcpStream>, OwnedWriteHalf<TcpStream>) {
        let descriptor = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        let socket = Socket { descriptor, _keeper: OwnedReadHalf(reader.0.clone()) };
        (socket, reader, writer)
    }

    /// Sends what fits into the kernel's buffer now. `WouldBlock` if nothing fits.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut no_control = SendAncillaryBuffer::default();
        Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(self, slices, &mut no_control, flags))?)
    }

    /// Receives what the kernel has now. `WouldBlock` if it has nothing, 0 at the end.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT))?;
        Ok(received.1)
    }

    /// Makes the close a reset, so that the kernel forgets at once what the peer does not take.
    pub(crate) fn reset_on_close(&self) {
        // Without it the kernel keeps trying for a while; nothing else depends on it.
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the stream lives which owned it in `split`. `_keeper` holds that stream
        // for the life of `self`, to which the borrow is bound. Nobody can take the descriptor out of the stream before: that
        // would need `reunite` on both halves, which fails while `_keeper` is a third owner.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}
