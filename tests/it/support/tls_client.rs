//! A TLS client that accepts every certificate, and certificates for tests.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(20);

/// A self-signed certificate with its key.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The key in PEM.
    pub key_pem: String,
}

impl Identity {
    /// A new certificate for these DNS names.
    pub fn new(names: &[&str]) -> Self {
        Self::with_key(names, KeyPair::generate().expect("a key"))
    }

    /// A new certificate for an RSA key.
    pub fn with_rsa(names: &[&str]) -> Self {
        Self::with_key(names, rsa_key())
    }

    /// A certificate for an RSA key whose issuer is an intermediate, which follows in the PEM text. Returns the issuer's, too.
    pub fn with_intermediate(names: &[&str]) -> (Self, CertificateDer<'static>) {
        let authority = |name: &str| {
            let mut params = params(&[name]);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let root = CertifiedIssuer::self_signed(authority("root"), rsa_key()).expect("valid parameters");
        let intermediate = CertifiedIssuer::signed_by(authority("intermediate"), rsa_key(), &root);
        let intermediate = intermediate.expect("valid parameters");
        let key = rsa_key();
        let certificate = params(names).signed_by(&key, &intermediate).expect("valid parameters");
        let mut identity = Self::of(&certificate, key);
        identity.certificate_pem.push_str(&intermediate.pem());
        (identity, intermediate.der().clone())
    }

    fn with_key(names: &[&str], key: KeyPair) -> Self {
        let certificate = params(names).self_signed(&key).expect("valid parameters");
        Self::of(&certificate, key)
    }

    fn of(certificate: &Certificate, key: KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key,
        }
    }

    /// The RSA key in PKCS #1, as older programs write it: what the key in PKCS #8 contains.
    pub fn pkcs1_pem(&self) -> String {
        const HEADER_BYTES: usize = 26;
        let key = self.key.serialize_der();
        assert_eq!(
            key[HEADER_BYTES - 4..HEADER_BYTES - 2],
            [4, 0x82],
            "a string of bytes with a long length"
        );
        let text = STANDARD.encode(&key[HEADER_BYTES..]);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let label = "RSA PRIVATE KEY";
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// The certificate as sent in a handshake.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).expect("valid names")
}

fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key")
}

/// The certificates that the server sends in a handshake.
///
/// # Errors
/// If the handshake fails.
pub fn chain(port: u16) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut stream = connect(port, None, &[])?;
    stream.conn.complete_io(&mut stream.sock)?;
    let chain = stream.conn.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

/// Sends GET over a new TLS connection. Returns the server's certificate and the response with its head.
///
/// # Errors
/// If the handshake or the request fails.
pub fn get(
    port: u16,
    path: &str,
    client: Option<&Identity>,
) -> io::Result<(CertificateDer<'static>, String)> {
    let mut stream = connect(port, client, &[])?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let certificate = stream.conn.peer_certificates().and_then(|chain| chain.first()).expect("a certificate");
    Ok((certificate.clone().into_owned(), String::from_utf8_lossy(&response).into_owned()))
}

/// A new TLS connection, on which nothing was sent yet.
///
/// # Errors
/// If nobody listens.
pub fn connect(
    port: u16,
    client: Option<&Identity>,
    protocols: &[&[u8]],
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider supports them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let key = PrivateKeyDer::try_from(client.key.serialize_der()).expect("PKCS #8");
            config.with_client_auth_cert(vec![client.certificate.clone()], key).expect("a valid key")
        }
    };
    let name = ServerName::try_from("localhost").expect("a valid name");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let connection = ClientConnection::new(Arc::new(config), name).expect("a valid configuration");
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(StreamOwned::new(connection, socket))
}

/// Accepts every certificate.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
