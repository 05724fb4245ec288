//! A connection's socket: operations of the ring, and direct system calls.
//!
//! monoio lends only the number of a descriptor, while rustix' safe calls require a borrow whose lifetime proves that the descriptor
//! is open. [`Socket`] provides that proof.
#![expect(unsafe_code, reason = "monoio lends the descriptor of a socket only as a number")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, sockopt};

use crate::runtime::tcp::TcpStream;

/// How much of the sent data the peer has not acknowledged (`SIOCOUTQ`).
const UNACKNOWLEDGED: rustix::ioctl::Opcode = 0x5411;

/// One of the owners of a socket. It keeps the socket open, and its calls never wait.
pub(crate) struct Socket {
    descriptor: RawFd,
    /// Holds the stream that owns the descriptor.
    _keeper: OwnedReadHalf<TcpStream>,
}

/// Reads by operations of the runtime.
pub(crate) struct ReadHalf(OwnedReadHalf<TcpStream>);

/// Writes by operations of the runtime. Dropping it sends a FIN.
pub(crate) struct WriteHalf(OwnedWriteHalf<TcpStream>);

impl ReadHalf {
    /// Reads into the buffer's capacity. The runtime owns the buffer until the operation completes; dropping the future before that is
    /// safe, but loses the data.
    pub(crate) async fn read(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.0.read(buffer).await
    }
}

impl WriteHalf {
    /// Writes the whole buffer.
    pub(crate) async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.0.write_all(buffer).await
    }
}

impl Socket {
    /// Splits a stream. The descriptor is closed when all parts, their clones and all operations in flight have ended.
    pub(crate) fn split(stream: TcpStream) -> (Socket, ReadHalf, WriteHalf) {
        let descriptor = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        let socket = Socket { descriptor, _keeper: OwnedReadHalf(reader.0.clone()) };
        (socket, ReadHalf(reader), WriteHalf(writer))
    }

    /// Sends what fits into the kernel's buffer.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut no_control = SendAncillaryBuffer::default();
        Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(self, slices, &mut no_control, flags))?)
    }

    /// Receives what the kernel has. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel has nothing.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT))?;
        Ok(received.1)
    }

    /// How many bytes the kernel has accepted that the peer's kernel has not acknowledged.
    pub(crate) fn unread(&self) -> u64 {
        // SAFETY: for a TCP socket, this request writes one `int`.
        let unread =
            unsafe { rustix::ioctl::ioctl(self, rustix::ioctl::Getter::<UNACKNOWLEDGED, i32>::new()) };
        // Fails only if the connection has ended, which the next write reports.
        u64::try_from(unread.unwrap_or(0)).unwrap_or(0)
    }

    /// Whether the peer has reset the connection. A peer that only closed its side may still wait for a response.
    pub(crate) fn is_reset(&self) -> bool {
        super::tcp::is_reset(self)
    }

    /// Resets the connection, so that the kernel drops unsent data at once and the peer does not mistake a truncated response for a
    /// complete one.
    ///
    /// Disconnecting resets at once. A reset by the close alone comes too late: dropping the write half sends a FIN before it, and a
    /// peer that resumes reading in that moment would see the FIN.
    pub(crate) fn reset(&self) {
        // If both fail, the close sends a FIN behind the unsent data; nothing else depends on it.
        if rustix::net::connect_unspec(self).is_err() {
            let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
        }
    }
}

impl Clone for Socket {
    fn clone(&self) -> Self {
        Self { descriptor: self.descriptor, _keeper: OwnedReadHalf(self._keeper.0.clone()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the stream that owned it in `split` lives. `_keeper` holds that stream for the
        // life of `self`, to which the borrow is bound. The descriptor cannot be taken out of the stream earlier: that would need
        // `reunite` on both halves, which fails while `_keeper` is a third owner.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}
