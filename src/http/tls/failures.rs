//! Why a handshake failed, in the words of the official program where it has some, and the log of it.

use crate::runtime::address::Peer;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::http::limits::Handshake;
use crate::web_config::tls::refusal;

/// How many failures are logged per [`LOG_WINDOW`].
const LOGGED_MAX: u64 = 10;
const LOG_WINDOW: Duration = Duration::from_secs(1);

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the handshake did not end in time")]
    TimedOut,
    /// The connection was closed for another one, or because the program ends.
    #[error("the connection was closed to make room")]
    NoRoom,
    #[error("too much memory is in use by requests")]
    NoMemory,
    #[error("EOF")]
    Disconnected,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("client sent an HTTP request to an HTTPS server")]
    PlainHttp,
    #[error("tls: first record does not look like a TLS handshake")]
    NotTls,
    #[error("tls: client offered only unsupported versions")]
    NoVersion,
    #[error("{}", words(.0))]
    Tls(Error),
}

impl Failure {
    pub(super) fn outcome(&self) -> Handshake {
        match self {
            Self::TimedOut => Handshake::TimedOut,
            Self::PlainHttp | Self::NotTls => Handshake::NotTls,
            Self::NoRoom
            | Self::NoMemory
            | Self::Disconnected
            | Self::Io(_)
            | Self::NoVersion
            | Self::Tls(_) => Handshake::Failed,
        }
    }
}

/// How many failures were logged in the current window.
struct Logged {
    window: Option<Instant>,
    count: u64,
}

static LOGGED: Mutex<Logged> = Mutex::new(Logged { window: None, count: 0 });

/// Logs a failure, unless there were many just before.
pub(super) fn log(peer: Peer, failure: &Failure) {
    let suppressed = {
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        logged.next(Instant::now())
    };
    match suppressed {
        None => {}
        Some(0) => tracing::info!(%peer, reason = %failure, "TLS handshake error"),
        Some(suppressed) => tracing::info!(%peer, reason = %failure, suppressed, "TLS handshake error"),
    }
}

impl Logged {
    /// Counts a failure. Returns `None` if it is one too many, otherwise how many were so in the window before.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let is_new = self.window.is_none_or(|start| now.duration_since(start) >= LOG_WINDOW);
        let mut suppressed = 0;
        if is_new {
            suppressed = self.count.saturating_sub(LOGGED_MAX);
            (self.window, self.count) = (Some(now), 0);
        }
        self.count += 1;
        (self.count <= LOGGED_MAX).then_some(suppressed)
    }
}

/// An error of rustls in the words of Go.
fn words(error: &Error) -> String {
    if let Some(reason) = refusal(error) {
        return reason.to_owned();
    }
    let known = match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        }
        Error::InvalidCertificate(CertificateError::Expired) => {
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"
        }
        Error::InvalidCertificate(CertificateError::BadEncoding) => {
            "tls: failed to parse client certificate: x509: malformed certificate"
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "tls: client offered only unsupported versions",
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server"
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "tls: no key exchanges supported by both client and server"
        }
        Error::NoApplicationProtocol => "tls: client requested unsupported application protocols",
        Error::AlertReceived(alert) => return format!("remote error: tls: {}", alert_words(*alert)),
        other => return format!("tls: {other}"),
    };
    known.to_owned()
}

/// An alert in the words of Go.
fn alert_words(alert: AlertDescription) -> String {
    let known = match alert {
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::UserCanceled => "user canceled",
        other => return format!("alert({})", u8::from(other)),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_logged_up_to_a_rate() {
        let mut logged = Logged { window: None, count: 0 };
        let start = Instant::now();
        let in_window: Vec<_> = (0..LOGGED_MAX + 5).map(|_| logged.next(start)).collect();
        assert_eq!(in_window.iter().flatten().count() as u64, LOGGED_MAX);
        assert_eq!(logged.next(start + LOG_WINDOW), Some(5), "those that were not logged are counted");
        assert_eq!(logged.next(start + 2 * LOG_WINDOW), Some(0));
    }

    #[test]
    fn reasons_are_those_of_the_official_program() {
        for (error, expected) in [
            (Error::NoCertificatesPresented, "tls: client didn't provide a certificate"),
            (Error::AlertReceived(AlertDescription::BadCertificate), "remote error: tls: bad certificate"),
            (Error::AlertReceived(AlertDescription::InternalError), "remote error: tls: alert(80)"),
        ] {
            assert_eq!(Failure::Tls(error).to_string(), expected);
        }
    }
}
