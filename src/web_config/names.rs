//! The names of versions, cipher suites and curves in the file.

use super::{CipherSuite, Curve, TlsVersion};

const VERSIONS: [(&str, TlsVersion); 4] = [
    ("TLS10", TlsVersion::Tls10),
    ("TLS11", TlsVersion::Tls11),
    ("TLS12", TlsVersion::Tls12),
    ("TLS13", TlsVersion::Tls13),
];

const CURVES: [(&str, Curve); 4] = [
    ("CurveP256", Curve::P256),
    ("CurveP384", Curve::P384),
    ("CurveP521", Curve::P521),
    ("X25519", Curve::X25519),
];

const CIPHER_SUITES: [(&str, CipherSuite); 13] = [
    ("TLS_AES_128_GCM_SHA256", CipherSuite::Aes128GcmSha256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::Aes256GcmSha384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::Chacha20Poly1305Sha256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", CipherSuite::EcdheEcdsaAes128CbcSha),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", CipherSuite::EcdheEcdsaAes256CbcSha),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", CipherSuite::EcdheRsaAes128CbcSha),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", CipherSuite::EcdheRsaAes256CbcSha),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::EcdheEcdsaAes128GcmSha256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::EcdheEcdsaAes256GcmSha384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::EcdheRsaAes128GcmSha256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::EcdheRsaAes256GcmSha384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::EcdheEcdsaChacha20Poly1305Sha256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::EcdheRsaChacha20Poly1305Sha256),
];

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    let named = table.iter().find(|(_, known)| known == value);
    named.expect("the tables are complete").0
}

impl TlsVersion {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        find(&VERSIONS, name)
    }

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        name_of(&VERSIONS, &self)
    }
}

impl Curve {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        find(&CURVES, name)
    }

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        name_of(&CURVES, &self)
    }
}

impl CipherSuite {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        find(&CIPHER_SUITES, name)
    }

    /// Its name in the file and in RFC 8446 or RFC 5289.
    pub fn name(self) -> &'static str {
        name_of(&CIPHER_SUITES, &self)
    }
}
