//! From the content of a file to valid settings: all checks, in the order of the official program and with its messages.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::file::{FileContent, TlsSection};
use super::read::{FileError, read};
use super::tls::TlsError;
use super::yaml::{YamlError, shown};
use super::{CipherSuite, ClientAuth, Pem, RateLimit, TlsSettings, TlsVersion, WebConfig};

/// Why a web configuration is invalid. The messages are those of the official program where it has one. They contain no values that
/// may be secret.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// The file itself, or the file of the certificate authorities, cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The file is not YAML, or has other keys or types.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A header that is not in the list of allowed headers.
    #[error("HTTP header {0} can not be configured")]
    HeaderName(String),
    /// A header with another value than the allowed ones.
    #[error("invalid value for {name}. Expected one of: {expected}, but got: {value:?}")]
    HeaderValue {
        /// The header.
        name: String,
        /// The allowed values.
        expected: &'static str,
        /// The value in the file.
        value: String,
    },
    /// A header with control characters.
    #[error("invalid value for {0}: control characters are not allowed")]
    HeaderControl(String),
    /// A user's password hash is not one of bcrypt.
    #[error("user {user}: crypto/bcrypt: {problem}")]
    Hash {
        /// The name of the user.
        user: String,
        /// What is wrong with the hash.
        problem: HashProblem,
    },
    /// There are TLS settings, but no certificate.
    #[error("missing one of cert or cert_file")]
    CertificateMissing,
    /// There are TLS settings, but no key.
    #[error("missing one of key or key_file")]
    KeyMissing,
    /// The file of the certificate or key cannot be read.
    #[error("failed to read {key} ({path}): {source}", path = .source.path().display())]
    PemFile {
        /// The key of the file's path.
        key: &'static str,
        /// The reason.
        source: FileError,
    },
    /// `client_auth_type` is unknown.
    #[error("invalid ClientAuth: {0}")]
    ClientAuth(String),
    /// There are authorities for client certificates, but clients are not asked for one.
    #[error("client CA's have been configured without a Client Auth Policy")]
    ClientAuthMissing,
    /// HTTP/2 needs a cipher suite that the list lacks.
    #[error(
        "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one of \
         TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
    )]
    Http2Cipher,
    /// The settings of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The thread that watches the file cannot be started.
    #[error("cannot start the thread that watches the web configuration: {0}")]
    Thread(#[source] io::Error),
}

/// What is wrong with a password hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashProblem {
    /// It has fewer than 59 bytes.
    #[error("hashedSecret too short to be a bcrypted password")]
    TooShort,
    /// It does not start with `$`.
    #[error("bcrypt hashes must start with '$'")]
    Prefix,
    /// Its version is higher than 2.
    #[error("bcrypt algorithm version '{0}' requested is newer than current version '2'")]
    Version(char),
    /// Its cost is not a number.
    #[error("the cost is not a number")]
    CostMalformed,
    /// Its cost is not between 4 and 31.
    #[error("cost {0} is outside allowed inclusive range 4..31")]
    Cost(i32),
}

/// The headers that may be configured. Those with a list accept only these values.
const HEADERS: [(&str, &[&str], &str); 5] = [
    ("Strict-Transport-Security", &[], ""),
    ("X-Content-Type-Options", &["nosniff"], r#"["nosniff"]"#),
    ("X-Frame-Options", &["deny", "sameorigin"], r#"["deny" "sameorigin"]"#),
    ("X-XSS-Protection", &[], ""),
    ("Content-Security-Policy", &[], ""),
];

/// Valid settings, or almost.
pub(super) struct Checked {
    pub config: WebConfig,
    /// What is wrong with the settings of TLS, which is reported only if the certificate and the key are valid.
    pub late: Option<WebConfigError>,
}

impl Checked {
    /// Checks everything that needs no look into certificates. Relative paths are relative to `folder`.
    pub(super) fn from_content(content: FileContent, folder: &Path) -> Result<Self, WebConfigError> {
        let headers = headers(&content.headers)?;
        for (name, hash) in &content.users {
            check_hash(hash.as_bytes())
                .map_err(|problem| WebConfigError::Hash { user: shown(name, '"'), problem })?;
        }
        let rate_limit = rate_limit(&content);
        let (tls, late) = match tls_settings(content.tls, folder)? {
            Some((tls, late)) => (Some(tls), late),
            None => (None, None),
        };
        let http2 = content.http2;
        Ok(Self { config: WebConfig { tls, http2, headers, users: content.users, rate_limit }, late })
    }
}

fn headers(headers: &BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, WebConfigError> {
    let mut valid = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let Some((_, values, expected)) = HEADERS.into_iter().find(|(allowed, _, _)| allowed == name) else {
            return Err(WebConfigError::HeaderName(shown(name, '"')));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            let (name, value) = (name.clone(), value.clone());
            return Err(WebConfigError::HeaderValue { name, expected, value });
        }
        // As Go does when it sends a header.
        let sent = value.replace(['\r', '\n'], " ");
        let sent = HeaderValue::from_bytes(sent.trim_matches([' ', '\t']).as_bytes());
        let sent = sent.map_err(|_| WebConfigError::HeaderControl(name.clone()))?;
        valid.push((HeaderName::from_bytes(name.as_bytes()).expect("an allowed header"), sent));
    }
    Ok(valid)
}

/// Checks the shape of a hash as Go's `bcrypt.Cost` does. The salt and the digest are checked when somebody logs in.
fn check_hash(hash: &[u8]) -> Result<(), HashProblem> {
    const LENGTH_MIN: usize = 59;
    if hash.len() < LENGTH_MIN {
        return Err(HashProblem::TooShort);
    }
    if hash[0] != b'$' {
        return Err(HashProblem::Prefix);
    }
    if hash[1] > b'2' {
        return Err(HashProblem::Version(char::from(hash[1])));
    }
    let cost_at = if hash[2] == b'$' { 3 } else { 4 };
    let cost = std::str::from_utf8(&hash[cost_at..cost_at + 2]).ok().and_then(|cost| cost.parse().ok());
    match cost {
        None => Err(HashProblem::CostMalformed),
        Some(4..=31) => Ok(()),
        Some(cost) => Err(HashProblem::Cost(cost)),
    }
}

/// A limit whose interval is zero or negative allows everything. A negative burst allows nothing, like zero.
fn rate_limit(content: &FileContent) -> Option<RateLimit> {
    let nanoseconds = u64::try_from(content.interval_nanoseconds).ok().filter(|&interval| interval > 0)?;
    let burst = u64::try_from(content.burst).unwrap_or(0);
    Some(RateLimit { interval: Duration::from_nanos(nanoseconds), burst })
}

/// The settings of TLS, with a problem that the official program reports only after it has loaded the certificate. `None` if TLS is
/// not configured: the versions, suites, curves and names alone do not switch it on.
fn tls_settings(
    section: TlsSection,
    folder: &Path,
) -> Result<Option<(TlsSettings, Option<WebConfigError>)>, WebConfigError> {
    let certificate = pem(section.cert_file, section.cert, folder);
    let key = pem(section.key_file, section.key, folder);
    let client_ca = pem(section.client_ca_file, section.client_ca, folder);
    let word = section.client_auth_type;
    if certificate.is_none() && key.is_none() && client_ca.is_none() && word.is_empty() {
        return Ok(None);
    }
    let certificate = certificate.ok_or(WebConfigError::CertificateMissing)?;
    let key = key.ok_or(WebConfigError::KeyMissing)?;
    for (name, pem) in [("cert_file", &certificate), ("key_file", &key)] {
        if let Pem::File(path) = pem {
            read(path).map_err(|source| WebConfigError::PemFile { key: name, source })?;
        }
    }
    let client_auth = match word.as_str() {
        "" | "NoClientCert" => Some(ClientAuth::NoClientCert),
        "RequestClientCert" => Some(ClientAuth::RequestClientCert),
        "RequireAnyClientCert" | "RequireClientCert" => Some(ClientAuth::RequireAnyClientCert),
        "VerifyClientCertIfGiven" => Some(ClientAuth::VerifyClientCertIfGiven),
        "RequireAndVerifyClientCert" => Some(ClientAuth::RequireAndVerifyClientCert),
        _ => None,
    };
    let late = match client_auth {
        None => Some(WebConfigError::ClientAuth(shown(&word, ' '))),
        Some(ClientAuth::NoClientCert) if client_ca.is_some() => Some(WebConfigError::ClientAuthMissing),
        Some(_) => None,
    };
    let settings = TlsSettings {
        certificate,
        key,
        client_ca,
        client_auth: client_auth.unwrap_or_default(),
        allowed_sans: section.client_allowed_sans,
        min_version: section.min_version.unwrap_or(TlsVersion::Tls12),
        max_version: section.max_version.unwrap_or(TlsVersion::Tls13),
        cipher_suites: Some(section.cipher_suites).filter(|suites| !suites.is_empty()),
        curves: Some(section.curve_preferences).filter(|curves| !curves.is_empty()),
    };
    Ok(Some((settings, late)))
}

impl TlsSection {
    /// The files that the section names and that would be read.
    pub(super) fn files(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file];
        files.into_iter().filter(|file| !file.is_empty()).map(move |file| folder.join(file))
    }
}

/// The file wins over the inline text.
fn pem(file: String, inline: String, folder: &Path) -> Option<Pem> {
    if !file.is_empty() {
        return Some(Pem::File(folder.join(file)));
    }
    (!inline.is_empty()).then_some(Pem::Inline(inline))
}

/// RFC 9113, section 9.2.2, demands one of two suites below TLS 1.3.
pub(super) fn lacks_http2_cipher(tls: &TlsSettings) -> bool {
    tls.min_version < TlsVersion::Tls13
        && tls.cipher_suites.as_ref().is_some_and(|suites| {
            !suites.contains(&CipherSuite::EcdheRsaAes128GcmSha256)
                && !suites.contains(&CipherSuite::EcdheEcdsaAes128GcmSha256)
        })
}

#[cfg(test)]
mod tests;
