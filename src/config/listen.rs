//! Addresses to listen on. Resolving names and binding sockets is done in `runtime`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// One `--web.listen-address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:9091`, and, as in Go, `0.0.0.0:9091` and `[::]:9091`: all interfaces, with IPv6 and IPv4 on one socket, or only IPv4 if
    /// the machine has no IPv6.
    AllInterfaces {
        /// The port; with 0 the system chooses one.
        port: u16,
    },
    /// `127.0.0.1:9091`, `[::1]:9091`.
    Socket(SocketAddr),
    /// `localhost:9091`: a name, resolved at the start.
    Host {
        /// The name.
        name: String,
        /// The port; with 0 the system chooses one.
        port: u16,
    },
    /// `unix:/run/sluicegate.sock`: a Unix socket. The official program does not have it.
    Unix(PathBuf),
}

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text does not end in `:port`.
    #[error("missing port; use :9091 or host:9091")]
    PortMissing,
    /// The port is not a number up to 65535.
    #[error("the port must be a number from 0 to 65535")]
    PortInvalid,
    /// `unix:` without a path.
    #[error("missing path; use unix:/path/of/the/socket")]
    PathMissing,
    /// `vsock://:9091`.
    #[error("vsock is not supported; use TCP or a Unix socket")]
    Vsock,
    /// The part before the port is neither a name nor an address.
    #[error("expected a host name or an IP address before the port; IPv6 needs brackets, as in [::1]:9091")]
    HostInvalid,
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(AddressError::PathMissing)
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text.starts_with("vsock://") {
            return Err(AddressError::Vsock);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::PortMissing)?;
        if text.ends_with(']') {
            return Err(AddressError::PortMissing);
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::PortInvalid);
        }
        let port: u16 = port.parse().map_err(|_| AddressError::PortInvalid)?;
        if host.is_empty() {
            return Ok(Self::AllInterfaces { port });
        }
        let bracketed = host.starts_with('[');
        let address: Option<IpAddr> = if bracketed {
            // A zone (`[fe80::1%1]`) is accepted in socket addresses only.
            text.parse::<SocketAddr>().ok().map(|socket| socket.ip())
        } else {
            host.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4)
        };
        match address {
            Some(ip) if ip.is_unspecified() => Ok(Self::AllInterfaces { port }),
            Some(_) => text.parse().map(Self::Socket).map_err(|_| AddressError::HostInvalid),
            None if !bracketed && is_name(host) => Ok(Self::Host { name: host.to_owned(), port }),
            None => Err(AddressError::HostInvalid),
        }
    }
}

/// Whether the text has the form of a host name.
fn is_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllInterfaces { port } => write!(f, ":{port}"),
            Self::Socket(socket) => write!(f, "{socket}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_addresses_like_go() {
        let all = |port| Ok(ListenAddress::AllInterfaces { port });
        assert_eq!(":9091".parse(), all(9091));
        assert_eq!(":0".parse(), all(0));
        assert_eq!("0.0.0.0:9091".parse(), all(9091));
        assert_eq!("[::]:9091".parse(), all(9091));
        for text in ["127.0.0.1:9091", "[::1]:9091", "[fe80::1%3]:9091"] {
            assert_eq!(text.parse(), Ok(ListenAddress::Socket(text.parse().expect("a socket address"))));
        }
        assert_eq!("unix:/run/s:1".parse(), Ok(ListenAddress::Unix("/run/s:1".into())));
        assert_eq!(
            "unix:s".parse::<ListenAddress>().map(|address| address.to_string()),
            Ok("unix:s".to_owned())
        );
        assert_eq!("localhost:1".parse(), Ok(ListenAddress::Host { name: "localhost".to_owned(), port: 1 }));
    }

    #[test]
    fn rejects_invalid_addresses() {
        use AddressError::*;
        for (text, expected) in [
            ("", PortMissing),
            ("unix:", PathMissing),
            ("vsock://:9091", Vsock),
            ("foo", PortMissing),
            ("[::1]", PortMissing),
            ("foo:", PortInvalid),
            ("foo:http", PortInvalid),
            ("foo:+1", PortInvalid),
            ("foo:65536", PortInvalid),
            ("::1:9091", HostInvalid),
            ("[127.0.0.1]:9091", HostInvalid),
            ("a b:1", HostInvalid),
            ("http://x:1", HostInvalid),
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(expected), "{text}");
        }
    }
}
