//! The web configuration file (`--web.config.file`): TLS, HTTP/2, response headers, users, and the rate limit.
//!
//! The types here are the settings after all checks. The format is that of exporter-toolkit, which the official program uses.

mod checks;
mod file;
pub(crate) mod metrics;
mod names;
pub(crate) mod passwords;
mod read;
pub mod tls;
mod watch;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config::GoDuration;

pub use checks::{HashProblem, WebConfigError};
pub use read::FileError;
pub use watch::{Active, Current, Reload, Watch, load};
pub use yaml::YamlError;

/// The settings of a valid web configuration file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// TLS settings; `None` for plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Whether HTTP/2 is offered over TLS.
    pub http2: bool,
    /// Headers of every response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Names of users with their bcrypt hashes. Empty if requests need no authentication.
    pub users: BTreeMap<String, String>,
    /// The limit on requests per second of all clients together; `None` if there is none.
    pub rate_limit: Option<RateLimit>,
}

/// Shows neither hashes nor the contents of inline certificates.
impl fmt::Debug for WebConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebConfig")
            .field("tls", &self.tls)
            .field("http2", &self.http2)
            .field("headers", &self.headers)
            .field("users", &self.users.keys())
            .field("rate_limit", &self.rate_limit)
            .finish()
    }
}

/// A token bucket for all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The time until one more request is allowed; more than zero.
    pub interval: Duration,
    /// The size of the bucket, which is full at the start. With 0, no request is allowed.
    pub burst: u64,
}

impl RateLimit {
    /// The interval as Go prints it.
    pub(crate) fn go_interval(&self) -> GoDuration {
        GoDuration::from_nanoseconds(i64::try_from(self.interval.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Settings of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate of the server, with its chain.
    pub certificate: Pem,
    /// The private key of the server.
    pub key: Pem,
    /// The authorities for client certificates; `None` for those of the system.
    pub client_ca: Option<Pem>,
    /// Whether clients need a certificate.
    pub client_auth: ClientAuth,
    /// The names of which a client certificate must have one; `None` if any name is accepted. An empty list refuses every client.
    pub allowed_sans: Option<Vec<String>>,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The highest version. It may be below the lowest; then every handshake fails.
    pub max_version: TlsVersion,
    /// The allowed cipher suites; `None` for the default. The order has no effect.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// The allowed groups of the key exchange; `None` for the default. The order has no effect.
    pub curves: Option<Vec<Curve>>,
}

/// The source of certificates or keys in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file. Relative paths in the configuration are already joined to its folder.
    File(PathBuf),
    /// Text in the configuration file itself.
    Inline(String),
}

/// Never shows an inline text, because it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Inline(_) => f.write_str("Inline(..)"),
        }
    }
}

/// Whether clients are asked for a certificate, need one, and whether it is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    #[default]
    NoClientCert,
    /// Clients are asked for a certificate. It is optional and not verified.
    RequestClientCert,
    /// Clients need a certificate, which is not verified.
    RequireAnyClientCert,
    /// Clients are asked for a certificate. It is optional, and verified if given.
    VerifyClientCertIfGiven,
    /// Clients need a certificate, which is verified.
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the versions")]
pub enum TlsVersion {
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}

/// A cipher suite that the file may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the suites")]
pub enum CipherSuite {
    Aes128GcmSha256,
    Aes256GcmSha384,
    Chacha20Poly1305Sha256,
    EcdheEcdsaAes128CbcSha,
    EcdheEcdsaAes256CbcSha,
    EcdheRsaAes128CbcSha,
    EcdheRsaAes256CbcSha,
    EcdheEcdsaAes128GcmSha256,
    EcdheEcdsaAes256GcmSha384,
    EcdheRsaAes128GcmSha256,
    EcdheRsaAes256GcmSha384,
    EcdheEcdsaChacha20Poly1305Sha256,
    EcdheRsaChacha20Poly1305Sha256,
}

/// A group of the key exchange that the file may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the curves")]
pub enum Curve {
    P256,
    P384,
    P521,
    X25519,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secrets() {
        let config = WebConfig {
            tls: Some(TlsSettings {
                certificate: Pem::File("/etc/cert.pem".into()),
                key: Pem::Inline("SECRET-KEY".into()),
                client_ca: None,
                client_auth: ClientAuth::NoClientCert,
                allowed_sans: None,
                min_version: TlsVersion::Tls12,
                max_version: TlsVersion::Tls13,
                cipher_suites: None,
                curves: None,
            }),
            users: BTreeMap::from([("alice".into(), "SECRET-HASH".into())]),
            ..WebConfig::default()
        };
        let text = format!("{config:?}");
        assert!(text.contains("/etc/cert.pem") && text.contains("alice"), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
    }
}
