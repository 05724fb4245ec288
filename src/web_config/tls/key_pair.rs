//! The certificate and the private key of the server, by the rules and with the messages of Go's `tls.X509KeyPair`.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::der::{self, Certificate};
use super::pem;

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyPairError {
    /// The certificate's input has no block.
    #[error("tls: failed to find any PEM data in certificate input")]
    NoCertificate,
    /// The certificate's input has only a key.
    #[error(
        "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
    )]
    KeyAsCertificate,
    /// The certificate's input has only other blocks.
    #[error(
        "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{0}]"
    )]
    OtherThanCertificate(String),
    /// The key's input has no block.
    #[error("tls: failed to find any PEM data in key input")]
    NoKey,
    /// The key's input has only a certificate.
    #[error("tls: found a certificate rather than a key in the PEM for the private key")]
    CertificateAsKey,
    /// The key's input has only other blocks.
    #[error(
        "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{0}]"
    )]
    OtherThanKey(String),
    /// The certificate cannot be parsed.
    #[error("x509: malformed certificate")]
    MalformedCertificate,
    /// The key is encrypted, of an unknown kind, or malformed.
    #[error("tls: failed to parse private key")]
    UnusableKey,
    /// The certificate is for a key of another kind.
    #[error("tls: private key type does not match public key type")]
    OtherKindOfKey,
    /// The certificate is for another key.
    #[error("tls: private key does not match public key")]
    OtherKey,
}

/// Makes a pair of PEM texts. All certificates of the first form the chain; the key is the first of the second.
pub(super) fn load(
    certificate: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, KeyPairError> {
    let (certificates, others): (Vec<_>, Vec<_>) =
        pem::blocks(certificate).into_iter().partition(|block| block.label == "CERTIFICATE");
    if certificates.is_empty() {
        return Err(match &others[..] {
            [] => KeyPairError::NoCertificate,
            [only] if only.label.ends_with("PRIVATE KEY") => KeyPairError::KeyAsCertificate,
            _ => KeyPairError::OtherThanCertificate(labels(&others)),
        });
    }
    let chain: Vec<CertificateDer<'static>> =
        certificates.into_iter().map(|block| block.contents.into()).collect();

    let blocks = pem::blocks(key);
    let is_key = |label: &str| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY");
    let Some(key) = blocks.iter().find(|block| is_key(&block.label)) else {
        return Err(match &blocks[..] {
            [] => KeyPairError::NoKey,
            [only] if only.label == "CERTIFICATE" => KeyPairError::CertificateAsKey,
            _ => KeyPairError::OtherThanKey(labels(&blocks)),
        });
    };

    let leaf = Certificate::parse(&chain[0]).ok_or(KeyPairError::MalformedCertificate)?;
    let key = PrivateKeyDer::try_from(key.contents.clone()).map_err(|_| KeyPairError::UnusableKey)?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| KeyPairError::UnusableKey)?;
    let public_key = key.public_key().ok_or(KeyPairError::UnusableKey)?;
    if der::key_algorithm(&public_key) != der::key_algorithm(leaf.public_key) {
        return Err(KeyPairError::OtherKindOfKey);
    }
    if der::key_bits(&public_key) != der::key_bits(leaf.public_key) {
        return Err(KeyPairError::OtherKey);
    }
    Ok(CertifiedKey::new(chain, key))
}

/// As Go prints a list.
fn labels(blocks: &[pem::Block]) -> String {
    blocks.iter().map(|block| &*block.label).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    fn pair(key: &KeyPair) -> (String, String) {
        let certificate = CertificateParams::default().self_signed(key).expect("the parameters are valid");
        (certificate.pem(), key.serialize_pem())
    }

    fn error(certificate: &str, key: &str) -> String {
        let loaded = load(certificate.as_bytes(), key.as_bytes(), &default_provider());
        loaded.err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn messages_are_those_of_go() {
        let generate = |algorithm| KeyPair::generate_for(algorithm).expect("a key can be generated");
        let (certificate, key) = pair(&generate(&rcgen::PKCS_ECDSA_P256_SHA256));
        let (other, other_key) = pair(&generate(&rcgen::PKCS_ECDSA_P384_SHA384));
        let (edwards, edwards_key) = pair(&generate(&rcgen::PKCS_ED25519));
        assert_eq!(error(&certificate, &key), "");
        assert_eq!(error(&edwards, &edwards_key), "");
        assert_eq!(error(&format!("{key}{certificate}"), &format!("{certificate}{key}")), "");
        for (certificate, key, expected) in [
            ("", &*key, "tls: failed to find any PEM data in certificate input"),
            (&key, &key, "PEM inputs may have been switched"),
            (&format!("{key}{key}"), &key, "of the following types: [PRIVATE KEY PRIVATE KEY]"),
            (&certificate, "", "tls: failed to find any PEM data in key input"),
            (&certificate, &certificate, "tls: found a certificate rather than a key"),
            (&certificate, &format!("{certificate}{other}"), "types: [CERTIFICATE CERTIFICATE]"),
            (&certificate, &other_key, "tls: private key does not match public key"),
            (&certificate, &edwards_key, "tls: private key type does not match public key type"),
            (
                &certificate,
                &key.replace("PRIVATE", "ENCRYPTED PRIVATE").replace("MI", "MH"),
                "failed to parse private key",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n",
                &key,
                "x509: malformed certificate",
            ),
        ] {
            let text = error(certificate, key);
            assert!(text.contains(expected), "{text:?} instead of {expected:?}");
        }
    }
}
