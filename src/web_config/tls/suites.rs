//! Versions, cipher suites and groups, in Go's order of preference.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::{CipherSuite as Id, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::p521::SECP521R1;
use crate::web_config::{CipherSuite, Curve, TlsSettings, TlsVersion};

/// The versions between two, without those that rustls lacks.
pub(super) fn versions(min: TlsVersion, max: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(TlsVersion::Tls13, &version::TLS13), (TlsVersion::Tls12, &version::TLS12)];
    known
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, version)| version)
        .collect()
}

/// The suites of TLS 1.3, and those of TLS 1.2 that the settings allow.
pub(super) fn suites(settings: &TlsSettings) -> Vec<SupportedCipherSuite> {
    let in_order = [
        (CipherSuite::EcdheEcdsaAes128GcmSha256, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        (CipherSuite::EcdheRsaAes128GcmSha256, cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        (CipherSuite::EcdheEcdsaAes256GcmSha384, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        (CipherSuite::EcdheRsaAes256GcmSha384, cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        (
            CipherSuite::EcdheEcdsaChacha20Poly1305Sha256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
        (
            CipherSuite::EcdheRsaChacha20Poly1305Sha256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ];
    let mut suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let is_allowed =
        |name: &CipherSuite| list(&settings.cipher_suites).is_none_or(|list| list.contains(name));
    suites.extend(in_order.into_iter().filter(|(name, _)| is_allowed(name)).map(|(_, suite)| suite));
    suites
}

/// The names in the settings that rustls lacks.
pub(super) fn unsupported(settings: &TlsSettings) -> Vec<&'static str> {
    let named = settings.cipher_suites.iter().flatten();
    named.filter_map(|suite| cbc_name(*suite)).collect()
}

fn cbc_name(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::EcdheEcdsaAes128CbcSha => Some("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
        CipherSuite::EcdheEcdsaAes256CbcSha => Some("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
        CipherSuite::EcdheRsaAes128CbcSha => Some("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
        CipherSuite::EcdheRsaAes256CbcSha => Some("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
        _ => None,
    }
}

/// Moves ChaCha20 before AES, and leaves the order among equals.
pub(super) fn chacha_first(mut suites: Vec<SupportedCipherSuite>) -> Vec<SupportedCipherSuite> {
    suites.sort_by_key(|suite| !is_chacha(suite.suite()));
    suites
}

fn is_chacha(suite: Id) -> bool {
    matches!(
        suite,
        Id::TLS13_CHACHA20_POLY1305_SHA256
            | Id::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | Id::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// Whether a client prefers ChaCha20, because it computes AES slowly: its first suite that Go knows is not AES-GCM with an ephemeral key.
pub(super) fn prefers_chacha(client_suites: &[Id]) -> bool {
    let first = client_suites.iter().find_map(|suite| match *suite {
        Id::TLS13_AES_128_GCM_SHA256
        | Id::TLS13_AES_256_GCM_SHA384
        | Id::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Id::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        | Id::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | Id::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(false),
        suite if is_chacha(suite) || is_older(suite) => Some(true),
        _ => None,
    });
    first.unwrap_or(true)
}

/// The other suites that Go knows: with CBC, RC4, or without an ephemeral key.
fn is_older(suite: Id) -> bool {
    const OLDER: [u16; 16] = [
        0x0005, 0x000a, 0x002f, 0x0035, 0x003c, 0x009c, 0x009d, 0xc007, 0xc009, 0xc00a, 0xc011, 0xc012,
        0xc013, 0xc014, 0xc023, 0xc027,
    ];
    OLDER.contains(&u16::from(suite))
}

/// The groups of the key exchange. A list disables the hybrids with ML-KEM, which have no name there.
pub(super) fn groups(curves: &Option<Vec<Curve>>) -> Vec<&'static dyn SupportedKxGroup> {
    let in_order = [
        (Curve::X25519, kx_group::X25519),
        (Curve::P256, kx_group::SECP256R1),
        (Curve::P384, kx_group::SECP384R1),
        (Curve::P521, SECP521R1),
    ];
    let list = list(curves);
    let mut groups = match list {
        None => vec![kx_group::X25519MLKEM768, kx_group::SECP256R1MLKEM768],
        Some(_) => Vec::new(),
    };
    let is_allowed = |curve: &Curve| list.is_none_or(|list| list.contains(curve));
    groups.extend(in_order.into_iter().filter(|(curve, _)| is_allowed(curve)).map(|(_, group)| group));
    groups
}

/// A list in the settings. An empty one counts as none.
fn list<T>(list: &Option<Vec<T>>) -> Option<&[T]> {
    list.as_deref().filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_suite_of_the_client_decides() {
        let grease = Id::from(0x0a0a);
        let (aes, chacha) = (Id::TLS13_AES_256_GCM_SHA384, Id::TLS13_CHACHA20_POLY1305_SHA256);
        for (suites, expected) in [
            (&[aes, chacha][..], false),
            (&[chacha, aes], true),
            (&[grease, aes, chacha], false),
            (&[grease, Id::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, aes], true),
            (&[Id::TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, aes], true),
            (&[], true),
        ] {
            assert_eq!(prefers_chacha(suites), expected, "{suites:?}");
        }
    }

    #[test]
    fn names_of_groups_follow_the_settings() {
        let names =
            |curves| groups(&curves).iter().map(|group| format!("{:?}", group.name())).collect::<Vec<_>>();
        let all = ["X25519MLKEM768", "secp256r1MLKEM768", "X25519", "secp256r1", "secp384r1", "secp521r1"];
        assert_eq!(names(None), all);
        assert_eq!(names(Some(vec![])), all);
        assert_eq!(names(Some(vec![Curve::P521, Curve::X25519])), ["X25519", "secp521r1"]);
    }
}
