//! Where a gateway listens, with TLS or without, and connections to it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// Where a gateway listens.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    tls: Option<Tls>,
}

/// What clients of a gateway with TLS need.
#[derive(Clone)]
struct Tls {
    certificate: CertificateDer<'static>,
    /// Of clients that speak HTTP/1.1 and resume sessions.
    usual: Arc<ClientConfig>,
}

/// A connection to a gateway.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Target {
    /// A gateway that does not encrypt.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Writes a certificate, its key and `web.yml` into a folder, for a gateway that listens on this address.
    pub fn with_tls(address: SocketAddr, folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        std::fs::write(folder.join("server.crt"), certificate.pem())?;
        std::fs::write(folder.join("server.key"), key.serialize_pem())?;
        let settings = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";
        std::fs::write(folder.join("web.yml"), settings)?;
        let certificate = certificate.der().clone();
        let usual = Arc::new(client_config(&certificate, default_provider(), rustls::ALL_VERSIONS)?);
        Ok(Self { address, tls: Some(Tls { certificate, usual }) })
    }

    /// Makes a well-behaved connection of a TCP stream.
    pub fn encrypt(&self, stream: TcpStream) -> io::Result<Stream> {
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => Ok(Stream::Tls(Box::new(client(tls.usual.clone(), stream)?))),
        }
    }

    /// The settings of an attacker that does not resume sessions, for a gateway with TLS.
    pub fn attacker_config(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig> {
        self.attacker_config_with(default_provider(), versions)
    }

    /// The same with the suites of this provider.
    pub fn attacker_config_with(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ClientConfig> {
        let tls = self.tls.as_ref().context("the gateway has no TLS")?;
        let mut config = client_config(&tls.certificate, provider, versions)?;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// A connection of a well-behaved client.
    pub fn connect(&self, timeout: Duration) -> io::Result<Stream> {
        let stream = TcpStream::connect_timeout(&self.address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        self.encrypt(stream)
    }
}

/// A connection with these settings, before the handshake.
pub fn client(config: Arc<ClientConfig>, stream: TcpStream) -> io::Result<TlsStream> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    Ok(StreamOwned::new(ClientConnection::new(config, name).map_err(io::Error::other)?, stream))
}

fn client_config(
    certificate: &CertificateDer<'static>,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    Ok(builder.with_protocol_versions(versions)?.with_root_certificates(roots).with_no_client_auth())
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
