//! Listeners: one per core and address, on a port that only one gateway can use at a time.
//!
//! The cores share a port by SO_REUSEPORT, which would also let a second gateway of the same user join and receive half of the traffic.
//! So the first listener of an address is bound and set to listen *without* that option. The kernel admits exactly one such socket, even
//! if two gateways start at the same moment, and admits none while other sockets share the port. Only then does the same socket get the
//! option, and the listeners of the other cores join it. The port is never free and always has a listener, so no lock is needed and no
//! connection is lost. One case remains: a *different* program of the same user that sets SO_REUSEPORT itself can join later.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// How many connections the kernel queues per listener until they are accepted (capped by net.core.somaxconn).
const BACKLOG: i32 = 4096;
/// How long a connection is silent before the kernel probes the peer.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long to retry while an address is in use, because a gateway may be shutting down.
const IN_USE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the gateway cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", reason(source))]
pub struct ListenError {
    address: String,
    source: io::Error,
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
    cores: Vec<Vec<TcpListener>>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds every address for every core. `:9091` means all addresses, IPv6 and IPv4. Port 0 means a free port, the same on all cores.
    ///
    /// # Errors
    /// If an address is invalid or in use.
    pub fn bind<A: AsRef<str>>(addresses: &[A], cores: usize) -> Result<Listeners, ListenError> {
        let mut listeners =
            Listeners { cores: (0..cores).map(|_| Vec::new()).collect(), addresses: Vec::new() };
        for address in addresses.iter().map(AsRef::as_ref) {
            listeners
                .bind_address(address)
                .map_err(|source| ListenError { address: address.to_owned(), source })?;
        }
        Ok(listeners)
    }

    /// The bound addresses, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The listeners of each core, one per address.
    pub fn into_cores(self) -> Vec<Vec<TcpListener>> {
        self.cores
    }

    fn bind_address(&mut self, address: &str) -> io::Result<()> {
        let first = first_listener_with_retries(address)?;
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
            core.push(socket.into());
        }
        self.addresses.push(bound);
        Ok(())
    }
}

/// Like [`first_listener`], but retries while the address is in use. The ring of a killed gateway can hold its listeners for a moment after
/// the process has ended, and a restart must not fail because of that.
fn first_listener_with_retries(address: &str) -> io::Result<Socket> {
    let started = Instant::now();
    loop {
        match first_listener(address) {
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
    use std::net::{SocketAddr, TcpStream};
    use std::sync::{Arc, Barrier};

    use super::Listeners;

    #[test]
    fn all_cores_share_one_free_port() {
        let listeners = Listeners::bind(&["127.0.0.1:0"], 3).expect("a port is free");
        let address = listeners.addresses()[0];
        assert_ne!(address.port(), 0);
        for core in listeners.into_cores() {
            assert_eq!(core[0].local_addr().expect("the listener is bound"), address);
        }
    }

    #[test]
    fn a_second_gateway_cannot_bind_the_port() {
        let listeners = Listeners::bind(&["127.0.0.1:0"], 2).expect("a port is free");
        let port = listeners.addresses()[0].port();
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
            let port = Listeners::bind(&["127.0.0.1:0"], 1).expect("a port is free").addresses()[0].port();
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
        let address = listeners.addresses()[0];
        let clients: Vec<_> =
            (0..32).map(|_| TcpStream::connect(address).expect("the kernel queues the connection")).collect();
        let mut accepted = 0;
        for core in listeners.into_cores() {
            core[0].set_nonblocking(true).expect("the option can be set");
            while core[0].accept().is_ok() {
                accepted += 1;
            }
        }
        assert_eq!(accepted, clients.len());
    }

    #[test]
    fn a_port_alone_means_ipv6_and_ipv4() {
        let listeners = Listeners::bind(&[":0"], 1).expect("a port is free");
        let port = listeners.addresses()[0].port();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        if let Ok(address) = format!("[::1]:{port}").parse::<SocketAddr>()
            && listeners.addresses()[0].is_ipv6()
        {
            assert!(TcpStream::connect(address).is_ok());
        }
        assert!(Listeners::bind(&["nonsense"], 1).is_err());
        assert!(Listeners::bind(&[":x"], 1).is_err());
    }
}
