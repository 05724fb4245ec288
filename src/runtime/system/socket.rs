//! A connection's socket: operations of the ring, and direct system calls. Also what else needs `unsafe`, of which this is the only
//! module.
//!
//! monoio lends only the number of a descriptor, while rustix' safe calls require a borrow whose lifetime proves that the descriptor
//! is open. [`Socket`] provides that proof.
#![expect(
    unsafe_code,
    reason = "monoio and systemd pass descriptors as numbers; the environment is not thread-safe"
)]

use std::cell::UnsafeCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf};
use monoio::net::UnixStream;
use rustix::buffer::spare_capacity;
use rustix::io::FdFlags;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

use crate::runtime::tcp::TcpStream;

/// How much of the sent data the peer has not acknowledged (`SIOCOUTQ`).
const UNACKNOWLEDGED: rustix::ioctl::Opcode = 0x5411;

/// Takes over a descriptor that the program was started with, and closes it on `exec`.
///
/// # Errors
/// If it is not open.
pub(in crate::runtime) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow ends with the call, which fails without an effect if the descriptor is not open.
    rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open. It was passed to this process to own it, and `activation::take` is called once, before anything
    // is opened that could have the same number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Removes variables from the environment.
pub(in crate::runtime) fn remove_variables(names: &[&str]) {
    for name in names {
        // SAFETY: `activation::take` is called before the program starts a thread.
        unsafe { std::env::remove_var(name) };
    }
}

/// Gives a connection of a Unix socket the runtime's type for TCP.
///
/// # Errors
/// If it cannot be registered with the runtime.
pub(in crate::runtime) fn from_unix(stream: UnixStream) -> io::Result<TcpStream> {
    // SAFETY: `into_raw_fd` gives up the ownership of an open descriptor.
    let descriptor = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
    TcpStream::from_std(descriptor.into())
}

/// One of the owners of a socket. It keeps the socket open, and its calls never wait.
pub(crate) struct Socket {
    descriptor: RawFd,
    /// Holds the stream that owns the descriptor.
    _keeper: OwnedReadHalf<TcpStream>,
}

/// Reads by operations of the runtime.
pub(crate) struct ReadHalf(OwnedReadHalf<TcpStream>);

/// Writes by operations of the runtime. Unlike the runtime's own type, it does not shut the connection down when it is dropped: a close
/// follows nearly always.
pub(crate) struct WriteHalf(Rc<UnsafeCell<TcpStream>>);

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
        // SAFETY: nothing else writes, because there is one `WriteHalf` per stream and `self` is borrowed exclusively. Reads may happen at
        // the same time: the runtime declares its type as one that can be split.
        unsafe { &mut *self.0.get() }.write_all(buffer).await
    }
}

impl Socket {
    /// Splits a stream. The descriptor is closed when all parts, their clones and all operations in flight have ended.
    pub(crate) fn split(stream: TcpStream) -> (Socket, ReadHalf, WriteHalf) {
        let descriptor = stream.as_raw_fd();
        let stream = Rc::new(UnsafeCell::new(stream));
        let socket = Socket { descriptor, _keeper: OwnedReadHalf(stream.clone()) };
        (socket, ReadHalf(OwnedReadHalf(stream.clone())), WriteHalf(stream))
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

    /// Receives what the kernel has into the rest of the buffer's capacity. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel has nothing.
    pub(crate) fn receive_more(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let receive = || rustix::net::recv(self, spare_capacity(&mut *buffer), RecvFlags::DONTWAIT);
        Ok(rustix::io::retry_on_intr(receive)?.1)
    }

    /// Sends a FIN after what was sent.
    pub(crate) fn close_write(&self) {
        // Fails only if the connection has ended.
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// How many bytes the kernel has accepted that the peer's kernel has not acknowledged.
    pub(crate) fn unread(&self) -> u64 {
        // SAFETY: for a TCP or Unix socket, this request writes one `int`.
        let unread =
            unsafe { rustix::ioctl::ioctl(self, rustix::ioctl::Getter::<UNACKNOWLEDGED, i32>::new()) };
        // Fails only if the connection has ended, which the next write reports.
        u64::try_from(unread.unwrap_or(0)).unwrap_or(0)
    }

    /// Whether the peer has reset the connection. A peer that only closed its side may still wait for a response.
    pub(crate) fn is_reset(&self) -> bool {
        crate::runtime::tcp::is_reset(self)
    }

    /// Whether the peer will send nothing more, because it has closed its side or reset the connection.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        crate::runtime::tcp::is_closed_by_peer(self)
    }

    /// Resets the connection, so that the kernel drops unsent data at once and the peer does not mistake a truncated response for a
    /// complete one.
    ///
    /// Disconnecting resets at once. A reset by the close alone comes too late: a FIN may be sent before it, and a peer that resumes
    /// reading in that moment would see the FIN.
    pub(crate) fn reset(&self) {
        // If both fail, the close sends a FIN behind the unsent data; nothing else depends on it. So does a Unix socket, whose peer has
        // everything that was sent, and sees from the framing that the response is incomplete.
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
        // the only reference to it, which it is not while `_keeper` is one.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}
