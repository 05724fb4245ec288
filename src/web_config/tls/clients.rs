//! Certificates of clients: whether one is needed, who must have issued it, and for which names.
//!
//! webpki builds chains as Go does, with two exceptions for which this verifier exists: Go also accepts a certificate that is itself among
//! the authorities, and it can ask for certificates without verifying them.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::der::Certificate;

/// Decides which certificates of clients are accepted.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    is_mandatory: bool,
    /// `None` if certificates are not verified.
    authorities: Option<Authorities>,
    /// The names of which a certificate must have one; `None` if any is accepted.
    allowed_names: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Who may issue the certificates of clients.
#[derive(Debug)]
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// `None` if there is no certificate, so that nobody may.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    /// The names that clients get as a hint.
    hints: Vec<DistinguishedName>,
}

impl Authorities {
    /// Certificates that cannot be used are skipped, as in Go.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        give_hints: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let hints = if give_hints { roots.subjects() } else { Vec::new() };
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        Self { certificates, chains: chains.ok(), hints }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.certificates.iter().any(|certificate| certificate == leaf) {
            let parsed = parse(leaf)?;
            if !parsed.is_valid_at(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) {
                return Err(CertificateError::Expired.into());
            }
            return if parsed.allows_client_auth() { Ok(()) } else { Err(wrong_usage()) };
        }
        if Certificate::parse(leaf).is_some_and(|leaf| leaf.is_authority()) {
            // Difference 27: webpki never accepts the certificate of an authority as that of a client.
            return Err(CertificateError::UnknownIssuer.into());
        }
        let chains = self.chains.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        chains.verify_client_cert(leaf, intermediates, now).map(drop).map_err(with_alert_of_go)
    }
}

impl ClientVerifier {
    pub(super) fn new(
        is_mandatory: bool,
        authorities: Option<Authorities>,
        allowed_names: Option<Vec<String>>,
        provider: &CryptoProvider,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        // The official program panics if a client has no certificate to look for names in.
        let is_mandatory = is_mandatory || allowed_names.is_some();
        Self { is_mandatory, authorities, allowed_names, algorithms }
    }

    /// Checks the certificate of a resumed session, which TLS itself does not look at again.
    pub(super) fn verify_resumed(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        match chain {
            [] if self.is_mandatory => Err(Error::NoCertificatesPresented),
            [] => Ok(()),
            [leaf, intermediates @ ..] => {
                self.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop)
            }
        }
    }

    fn verify_names(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let Some(allowed) = &self.allowed_names else { return Ok(()) };
        if parse(leaf)?.names().iter().any(|name| allowed.contains(name)) {
            return Ok(());
        }
        Err(refused(format!("could not find allowed SANs in client cert, found: [{}]", allowed.join(" "))))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.as_ref().map_or(&[], |authorities| &authorities.hints)
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            authorities.verify(leaf, intermediates, now)?;
        }
        self.verify_names(leaf)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<Certificate<'a>, Error> {
    Certificate::parse(certificate).ok_or_else(|| CertificateError::BadEncoding.into())
}

fn wrong_usage() -> Error {
    refused("tls: failed to verify certificate: x509: certificate specifies an incompatible key usage".into())
}

/// An error with the alert `bad_certificate`; see [`refusal`].
fn refused(reason: String) -> Error {
    let expected = ServerName::try_from("client").expect("the name is valid");
    CertificateError::NotValidForNameContext { expected, presented: vec![reason] }.into()
}

/// The reason in an error of this module, if it has one of its own.
pub(super) fn refusal(error: &Error) -> Option<&str> {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            presented.first().map(String::as_str)
        }
        _ => None,
    }
}

/// Changes an error of webpki so that the client gets the alert that Go would send: `unknown_ca` if no chain ends at an authority,
/// `certificate_expired`, otherwise `bad_certificate`.
fn with_alert_of_go(error: Error) -> Error {
    use CertificateError as E;
    match error {
        Error::InvalidCertificate(E::BadSignature | E::UnknownIssuer) => E::UnknownIssuer.into(),
        Error::InvalidCertificate(
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. },
        ) => E::Expired.into(),
        Error::InvalidCertificate(E::InvalidPurpose | E::InvalidPurposeContext { .. }) => wrong_usage(),
        other => refused(format!("tls: failed to verify certificate: {other}")),
    }
}
