//! TLS: from the settings of the web configuration to configurations of rustls.

mod clients;
mod der;
mod key_pair;
mod p521;
mod pem;
mod suites;
mod tickets;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ServerConnection};
use rustls::sign::SingleCertAndKey;
use rustls::{HandshakeKind, ServerConfig};

use super::{ClientAuth, Pem, TlsSettings, TlsVersion};
use clients::{Authorities, ClientVerifier};

pub use key_pair::KeyPairError;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificate or the key cannot be read.
    #[error("failed to read {key} ({}): {error}", .path.display())]
    Read {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// The certificate and the key cannot be used.
    #[error("failed to load X509KeyPair: {0}")]
    KeyPair(#[from] KeyPairError),
    /// The file of the authorities cannot be read.
    #[error("{0}")]
    Authorities(ReadError),
    /// Only versions that nobody should use are allowed.
    #[error("max_version is below TLS12, the lowest version that is supported")]
    OldVersions,
    /// Only cipher suites with CBC are allowed.
    #[error("cipher_suites has no suite that is supported: {0}")]
    NoSuite(String),
    /// rustls refuses the settings.
    #[error("TLS cannot be configured: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Why a file cannot be read, in the words of the official program.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {}", .path.display(), words(.source))]
pub struct ReadError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The configurations of rustls for all handshakes until the settings or the files change.
#[derive(Debug)]
pub struct ServerConfigs {
    /// `None` if the lowest version is above the highest, so that every handshake fails.
    orders: Option<Orders>,
    clients: Option<Arc<ClientVerifier>>,
}

/// Two configurations that differ only in the order of the cipher suites.
#[derive(Debug)]
struct Orders {
    usual: Arc<ServerConfig>,
    chacha_first: Arc<ServerConfig>,
}

impl ServerConfigs {
    /// Reads the files and makes the configurations. Logs what is accepted but has no effect.
    ///
    /// # Errors
    /// A file cannot be read, its contents cannot be used, or the settings allow nothing that is supported.
    pub fn build(settings: &TlsSettings, http2: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites::suites(settings),
            kx_groups: suites::groups(&settings.curves),
            ..default_provider()
        });
        let certificate = read_for(&settings.certificate, "cert_file")?;
        let key = read_for(&settings.key, "key_file")?;
        let key_pair = key_pair::load(&certificate, &key, &provider)?;
        let tickets = tickets::for_server(key_pair.key.public_key().as_deref().unwrap_or_default())?;
        let clients = client_verifier(settings, &provider)?.map(Arc::new);
        let Some(versions) = versions(settings, &provider)? else {
            return Ok(Self { orders: None, clients });
        };

        let resolver = Arc::new(SingleCertAndKey::from(key_pair));
        let config = |provider: CryptoProvider| -> Result<_, TlsError> {
            let builder =
                ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&versions)?;
            let builder = match &clients {
                Some(clients) => builder.with_client_cert_verifier(clients.clone()),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(resolver.clone());
            config.ignore_client_order = true;
            config.ticketer = tickets.clone();
            config.send_tls13_tickets = 1;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            if http2 {
                config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
            }
            Ok(Arc::new(config))
        };
        let chacha_first = suites::chacha_first(provider.cipher_suites.clone());
        let orders = Orders {
            usual: config((*provider).clone())?,
            chacha_first: config(CryptoProvider { cipher_suites: chacha_first, ..(*provider).clone() })?,
        };
        Ok(Self { orders: Some(orders), clients })
    }

    /// The configuration for a client. `None` if there is none for any, because no version is allowed.
    pub(crate) fn for_client(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let orders = self.orders.as_ref()?;
        let prefers_chacha = suites::prefers_chacha(hello.cipher_suites());
        Some(if prefers_chacha { &orders.chacha_first } else { &orders.usual }.clone())
    }

    /// Checks a connection after the handshake: what is true of a new session must be true of a resumed one, even if the settings have
    /// changed or the client's certificate has expired.
    ///
    /// # Errors
    /// The client's certificate is not accepted, or not any more.
    pub(crate) fn check(&self, connection: &ServerConnection) -> Result<(), rustls::Error> {
        match &self.clients {
            Some(clients) if connection.handshake_kind() == Some(HandshakeKind::Resumed) => {
                clients.verify_resumed(connection.peer_certificates().unwrap_or_default())
            }
            _ => Ok(()),
        }
    }
}

/// The protocols that are offered if HTTP/2 is enabled. Otherwise none is negotiated, and any offer is accepted.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a client's certificate was refused, if the reason is one of ours.
pub(crate) fn refusal(error: &rustls::Error) -> Option<&str> {
    clients::refusal(error)
}

/// The allowed versions; `None` if the lowest is above the highest.
fn versions(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<Option<Vec<&'static rustls::SupportedProtocolVersion>>, TlsError> {
    let (min, max) = (settings.min_version, settings.max_version);
    if max < TlsVersion::Tls12 {
        return Err(TlsError::OldVersions);
    }
    if min < TlsVersion::Tls12 {
        tracing::warn!("min_version is below TLS 1.2, the lowest version that is supported");
    }
    let unsupported = suites::unsupported(settings);
    if !unsupported.is_empty() {
        tracing::warn!(suites = unsupported.join(" "), "cipher suites with CBC are not supported");
    }
    if min > max {
        tracing::warn!("min_version is above max_version, so that every handshake fails");
        return Ok(None);
    }
    let versions = suites::versions(min, max);
    let is_usable = |suite: &rustls::SupportedCipherSuite| versions.contains(&suite.version());
    if !provider.cipher_suites.iter().any(is_usable) {
        return Err(TlsError::NoSuite(unsupported.join(" ")));
    }
    Ok(Some(versions))
}

/// `None` if clients are not asked for a certificate.
fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<ClientVerifier>, TlsError> {
    let given = match &settings.client_ca {
        Some(pem) => Some(read(pem).map_err(TlsError::Authorities)?),
        None => None,
    };
    let (is_mandatory, is_verified) = match settings.client_auth {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => (false, false),
        ClientAuth::RequireAnyClientCert => (true, false),
        ClientAuth::VerifyClientCertIfGiven => (false, true),
        ClientAuth::RequireAndVerifyClientCert => (true, true),
    };
    let authorities = is_verified.then(|| match &given {
        Some(text) => Authorities::new(certificates(text), true, provider),
        None => Authorities::new(system_authorities(), false, provider),
    });
    Ok(Some(ClientVerifier::new(is_mandatory, authorities, settings.allowed_sans.clone(), provider)))
}

fn certificates(text: &[u8]) -> Vec<CertificateDer<'static>> {
    let blocks = pem::blocks(text).into_iter();
    blocks
        .filter(|block| block.label == "CERTIFICATE" && !block.has_headers)
        .map(|block| block.contents.into())
        .collect()
}

fn system_authorities() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
        tracing::warn!(%error, "the certificates of the system cannot be read; all clients are refused");
    }
    found.certs
}

fn read_for(pem: &Pem, key: &'static str) -> Result<Vec<u8>, TlsError> {
    read(pem).map_err(|error| TlsError::Read { key, path: error.path.clone(), error })
}

fn read(pem: &Pem) -> Result<Vec<u8>, ReadError> {
    match pem {
        Pem::Inline(text) => Ok(text.clone().into_bytes()),
        Pem::File(path) => read_file(path),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |action, source| ReadError { action, path: path.to_owned(), source };
    let mut contents = Vec::new();
    let file = File::open(path).map_err(|source| failed("open", source))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut contents).map_err(|source| failed("read", source))?;
    Ok(contents)
}

/// How much of a file is read; a bundle of all public authorities takes 200 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The reason as Go words it: in lower case, without a number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests;
