//! Listeners: one per core and address, on a port that only one gateway can use at a time.
//!
//! The cores share a port by SO_REUSEPORT, which would also let a second gateway of the same user join and receive half of the traffic.
//! So the first listener of an address is bound and set to listen *without* that option. The kernel admits exactly one such socket, even
//! if two gateways start at the same moment, and admits none while other sockets share the port. Only then does the same socket get the
//! option, and the listeners of the other cores join it. The port is never free and always has a listener, so no lock is needed and no
//! connection is lost. One case remains: a *different* program of the same user that sets SO_REUSEPORT itself can join later.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::activation::FIRST_DESCRIPTOR;
use super::address::BoundAddress;
use super::threads::DriverInUse;
use super::unix_listener::{self, SocketFile};

/// What precedes the path of a Unix socket in an address.
const UNIX_PREFIX: &str = "unix:";

/// How many connections the kernel queues per listener until they are accepted (capped by net.core.somaxconn).
pub(super) const BACKLOG: i32 = 4096;
/// How long a connection is silent before the kernel probes the peer.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long to retry while an address is in use, because a gateway may be shutting down.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address is invalid or in use.
    #[error("cannot listen on {address}: {}", reason(source))]
    Address {
        /// The address as given.
        address: String,
        /// The reason of the operating system.
        source: io::Error,
    },
    /// systemd passed no sockets. The text is that of the official program.
    #[error("no socket activation file descriptors found")]
    NothingInherited,
    /// systemd passed something that is not a listening stream socket.
    #[error(
        "descriptor {number} from systemd is {found}, but only listening TCP and Unix stream sockets can be used; change the socket unit"
    )]
    Inherited {
        /// The descriptor.
        number: usize,
        /// What it is.
        found: String,
    },
    /// A socket that systemd passed cannot be set up.
    #[error("cannot use descriptor {number} from systemd: {source}")]
    InheritedSetup {
        /// The descriptor.
        number: usize,
        /// The reason of the operating system.
        source: io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub enum ListeningSocket {
    /// TCP, with a queue of its own.
    Tcp(TcpListener),
    /// TCP, with a queue from which all cores accept.
    SharedTcp(TcpListener),
    /// A Unix stream socket. All cores accept from its queue.
    Unix(UnixListener),
}

impl From<TcpListener> for ListeningSocket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program is already listening on it".to_owned(),
        _ => error.to_string(),
    }
}

/// The listeners of all cores, bound and listening.
#[derive(Debug)]
pub struct Listeners {
    /// By core, then by address.
    cores: Vec<Vec<ListeningSocket>>,
    addresses: Vec<BoundAddress>,
    files: Vec<SocketFile>,
}

impl Listeners {
    /// Binds every address for every core. `:9091` means all addresses, IPv6 and IPv4. Port 0 means a free port, the same on all cores.
    /// `unix:PATH` is a Unix socket.
    ///
    /// # Errors
    /// If an address is invalid or in use.
    pub fn bind<A: AsRef<str>>(addresses: &[A], cores: usize) -> Result<Listeners, ListenError> {
        let mut listeners = Self::none(cores);
        for address in addresses.iter().map(AsRef::as_ref) {
            match address.strip_prefix(UNIX_PREFIX) {
                Some(path) => listeners.bind_path(Path::new(path)),
                None => listeners.bind_address(address),
            }
            .map_err(|source| ListenError::Address { address: address.to_owned(), source })?;
        }
        Ok(listeners)
    }

    /// Uses the sockets that systemd passed, for every core. All cores accept from the same queue.
    ///
    /// # Errors
    /// If there are none, or one of them is not a listening stream socket.
    pub fn inherit(descriptors: Vec<OwnedFd>, cores: usize) -> Result<Listeners, ListenError> {
        if descriptors.is_empty() {
            return Err(ListenError::NothingInherited);
        }
        let mut listeners = Self::none(cores);
        for (descriptor, number) in descriptors.into_iter().zip(FIRST_DESCRIPTOR as usize..) {
            let socket = inherited(descriptor).map_err(|found| ListenError::Inherited { number, found })?;
            listeners.share(&socket).map_err(|source| ListenError::InheritedSetup { number, source })?;
        }
        Ok(listeners)
    }

    fn none(cores: usize) -> Self {
        Self { cores: (0..cores).map(|_| Vec::new()).collect(), addresses: Vec::new(), files: Vec::new() }
    }

    /// The bound addresses, with their real ports.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The listeners of each core, one per address, and the files to keep until the program ends.
    ///
    /// On epoll, accepting must never block the thread. On io_uring, the ring has to be able to wait for a connection. This is set here,
    /// before the first core accepts: cores may share a socket, and one that starts late must not undo what another has set to drain it.
    ///
    /// # Errors
    /// If a socket cannot be set up for the driver.
    pub fn into_parts(self, driver: DriverInUse) -> io::Result<(Vec<Vec<ListeningSocket>>, Vec<SocketFile>)> {
        let is_nonblocking = driver == DriverInUse::Epoll;
        for socket in self.cores.iter().flatten() {
            match socket {
                ListeningSocket::Tcp(listener) | ListeningSocket::SharedTcp(listener) => {
                    listener.set_nonblocking(is_nonblocking)?;
                }
                ListeningSocket::Unix(listener) => listener.set_nonblocking(is_nonblocking)?,
            }
        }
        Ok((self.cores, self.files))
    }

    fn bind_path(&mut self, path: &Path) -> io::Result<()> {
        let (listener, file) = with_retries(|| unix_listener::bind(path))?;
        self.files.push(file);
        self.share(&ListeningSocket::Unix(listener))
    }

    /// Gives all cores the same socket.
    fn share(&mut self, socket: &ListeningSocket) -> io::Result<()> {
        let address = match socket {
            ListeningSocket::Tcp(listener) | ListeningSocket::SharedTcp(listener) => {
                BoundAddress::Tcp(listener.local_addr()?)
            }
            ListeningSocket::Unix(listener) => BoundAddress::Unix(
                listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default(),
            ),
        };
        for core in &mut self.cores {
            core.push(match socket {
                ListeningSocket::Tcp(listener) | ListeningSocket::SharedTcp(listener) => {
                    ListeningSocket::SharedTcp(listener.try_clone()?)
                }
                ListeningSocket::Unix(listener) => ListeningSocket::Unix(listener.try_clone()?),
            });
        }
        self.addresses.push(address);
        Ok(())
    }

    fn bind_address(&mut self, address: &str) -> io::Result<()> {
        let first = with_retries(|| first_listener(address))?;
        let bound = first.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP address"))?;
        // From here on, other sockets of the same user that set the option can share the port.
        first.set_reuse_port(true)?;
        let mut first = Some(first);
        for core in &mut self.cores {
            let socket = match first.take() {
                Some(socket) => socket,
                None => {
                    let socket = new_socket(bound)?;
                    socket.set_reuse_port(true)?;
                    socket.bind(&SockAddr::from(bound))?;
                    socket.listen(BACKLOG)?;
                    socket
                }
            };
            core.push(ListeningSocket::Tcp(socket.into()));
        }
        self.addresses.push(BoundAddress::Tcp(bound));
        Ok(())
    }
}

/// Checks a descriptor that systemd passed. The error says what it is instead.
fn inherited(descriptor: OwnedFd) -> Result<ListeningSocket, String> {
    let kind = sockopt::socket_type(&descriptor).map_err(|_| "not a socket".to_owned())?;
    if kind == SocketType::DGRAM {
        return Err("a datagram socket".to_owned());
    } else if kind != SocketType::STREAM {
        return Err("not a stream socket".to_owned());
    } else if !sockopt::socket_acceptconn(&descriptor).unwrap_or(false) {
        return Err("a socket that does not listen".to_owned());
    }
    match sockopt::socket_domain(&descriptor) {
        Ok(AddressFamily::INET | AddressFamily::INET6) => {
            let socket = Socket::from(descriptor);
            // Accepted connections inherit the options. Without them, the gateway works as well.
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
            Ok(ListeningSocket::SharedTcp(socket.into()))
        }
        Ok(AddressFamily::UNIX) => Ok(ListeningSocket::Unix(descriptor.into())),
        _ => Err("a socket of another family".to_owned()),
    }
}

/// Retries while the address is in use. The ring of a killed gateway can hold its listeners for a moment after the process has ended, and
/// a restart must not fail because of that.
fn with_retries<T>(listen: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < IN_USE_TIMEOUT => {
                std::thread::sleep(IN_USE_TIMEOUT / 20);
            }
            result => return result,
        }
    }
}

/// The first listener of an address, which is exclusive.
fn first_listener(address: &str) -> io::Result<Socket> {
    let Some(port) = address.strip_prefix(':') else {
        return exclusive(resolve(address)?);
    };
    let port = port.parse::<u16>().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a port"))?;
    match exclusive((Ipv6Addr::UNSPECIFIED, port).into()) {
        // The kernel has no IPv6, or it is disabled.
        Err(err) if matches!(err.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            exclusive((Ipv4Addr::UNSPECIFIED, port).into())
        }
        result => result,
    }
}

/// The first IPv4 address of a host name, otherwise its first address, as in the official program.
fn resolve(address: &str) -> io::Result<SocketAddr> {
    let all: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let chosen = all.iter().find(|address| address.is_ipv4()).or(all.first());
    chosen.copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host name has no address"))
}

fn exclusive(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(address)?;
    socket.bind(&SockAddr::from(address))?;
    // The kernel checks again here: two sockets can be bound at the same time (SO_REUSEADDR), but only one can listen.
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket with the options that accepted connections inherit, which saves a system call per connection.
fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of an earlier run in TIME_WAIT do not block the port.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::{Arc, Barrier};

    use super::{Listeners, ListeningSocket};

    fn address_of(listeners: &Listeners) -> SocketAddr {
        listeners.addresses()[0].tcp().expect("a TCP address")
    }

    fn port_of(listeners: &Listeners) -> u16 {
        address_of(listeners).port()
    }

    fn tcp(socket: &ListeningSocket) -> &TcpListener {
        match socket {
            ListeningSocket::Tcp(listener) => listener,
            ListeningSocket::SharedTcp(_) | ListeningSocket::Unix(_) => panic!("not an own TCP socket"),
        }
    }

    #[test]
    fn all_cores_share_one_free_port() {
        let listeners = Listeners::bind(&["127.0.0.1:0"], 3).expect("a port is free");
        let address = address_of(&listeners);
        assert_ne!(address.port(), 0);
        for core in listeners.cores {
            assert_eq!(tcp(&core[0]).local_addr().expect("the listener is bound"), address);
        }
    }

    #[test]
    fn a_second_gateway_cannot_bind_the_port() {
        let listeners = Listeners::bind(&["127.0.0.1:0"], 2).expect("a port is free");
        let port = port_of(&listeners);
        for rival in [format!("127.0.0.1:{port}"), format!(":{port}"), format!("0.0.0.0:{port}")] {
            let err = Listeners::bind(&[rival.as_str()], 2).expect_err("the port is taken");
            assert_eq!(
                err.to_string(),
                format!("cannot listen on {rival}: another program is already listening on it")
            );
        }
    }

    #[test]
    fn of_many_simultaneous_starts_at_most_one_gets_the_port() {
        for _ in 0..8 {
            let port = port_of(&Listeners::bind(&["127.0.0.1:0"], 1).expect("a port is free"));
            let barrier = Arc::new(Barrier::new(4));
            let starts: Vec<_> = (0..4)
                .map(|_| {
                    let barrier = barrier.clone();
                    std::thread::spawn(move || {
                        barrier.wait();
                        let result = Listeners::bind(&[format!("127.0.0.1:{port}")], 2).ok();
                        barrier.wait();
                        result.is_some()
                    })
                })
                .collect();
            let winners = starts.into_iter().filter_map(|start| start.join().ok()).filter(|&won| won).count();
            assert!(winners <= 1, "{winners} gateways share port {port}");
        }
    }

    #[test]
    fn early_connections_are_queued() {
        let listeners = Listeners::bind(&["127.0.0.1:0"], 4).expect("a port is free");
        let address = address_of(&listeners);
        let clients: Vec<_> =
            (0..32).map(|_| TcpStream::connect(address).expect("the kernel queues the connection")).collect();
        let mut accepted = 0;
        for core in listeners.cores {
            let listener = tcp(&core[0]);
            listener.set_nonblocking(true).expect("the option can be set");
            while listener.accept().is_ok() {
                accepted += 1;
            }
        }
        assert_eq!(accepted, clients.len());
    }

    #[test]
    fn a_port_alone_means_ipv6_and_ipv4() {
        let listeners = Listeners::bind(&[":0"], 1).expect("a port is free");
        let port = port_of(&listeners);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        if let Ok(address) = format!("[::1]:{port}").parse::<SocketAddr>()
            && address_of(&listeners).is_ipv6()
        {
            assert!(TcpStream::connect(address).is_ok());
        }
        assert!(Listeners::bind(&["nonsense"], 1).is_err());
        assert!(Listeners::bind(&[":x"], 1).is_err());
    }
}
