//! The web configuration file with certificates: what is accepted and refused at the start, and reloads.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::support::tls_client::{Identity, chain, get};
use crate::support::{Gateway, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a web configuration, and with certificates and keys in PEM.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// Writes a certificate and its key.
    fn identity(&self, name: &str) -> Identity {
        let identity = Identity::new(&["localhost"]);
        self.write(&format!("{name}.crt"), &identity.certificate_pem);
        self.write(&format!("{name}.key"), &identity.key_pem);
        identity
    }

    fn flag(&self) -> String {
        format!("--web.config.file={}", self.path("web.yml").display())
    }
}

const FILES: &str = "cert_file: server.crt, key_file: server.key";

fn get_health(gateway: &Gateway, client: Option<&Identity>) -> io::Result<CertificateDer<'static>> {
    let (certificate, response) = get(gateway.port(), "/-/healthy", client)?;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    Ok(certificate)
}

fn wait_for_certificate(gateway: &Gateway, expected: &Identity) {
    wait_for("the new certificate", PATIENCE, || {
        let certificate = get_health(gateway, None).ok()?;
        (certificate == *expected.certificate()).then_some(())
    });
}

/// Waits for a gateway with TLS; `Gateway::start` waits for one without.
fn start(folder: &Folder) -> Gateway {
    let mut flags = vec![folder.flag()];
    flags.extend(std::env::var("SLUICEGATE_TEST_DRIVER").map(|driver| format!("--runtime.driver={driver}")));
    let gateway = Gateway::begin(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("the gateway to listen", PATIENCE, || gateway.log().contains("TLS is enabled.").then_some(()));
    gateway
}

/// Both programs. `SLUICEGATE_TEST_PROGRAM` selects the one to test.
mod cases {
    use super::*;

    #[derive(Debug)]
    enum Outcome {
        /// The program serves TLS.
        Tls,
        /// The program ends, and its log contains the text.
        Refused(&'static str),
    }
    use Outcome::{Refused, Tls};

    /// The settings of `tls_server_config`; whether HTTP/2 is on; the outcome. `FOLDER` is the folder of the file, `CERT` and `KEY` are
    /// inline texts.
    const CASES: &[(&str, bool, Outcome)] = &[
        (FILES, true, Tls),
        ("cert: CERT, key: KEY", true, Tls),
        ("cert_file: server.crt, key: KEY", true, Tls),
        ("cert_file: server.crt, cert: junk, key_file: FOLDER/server.key, key: junk", true, Tls),
        (
            "cert_file: server.crt, key_file: other.key",
            true,
            Refused("failed to load X509KeyPair: tls: private key does not match public key"),
        ),
        (
            "FILES, client_ca_file: missing.crt",
            true,
            Refused("open FOLDER/missing.crt: no such file or directory"),
        ),
        (
            "FILES, client_ca_file: missing.crt, client_auth_type: Foo",
            true,
            Refused("open FOLDER/missing.crt: no such file or directory"),
        ),
        (
            "FILES, client_ca_file: /dev/null",
            true,
            Refused("client CA's have been configured without a Client Auth Policy"),
        ),
        (
            "FILES, client_ca: CERT, client_auth_type: NoClientCert",
            true,
            Refused("client CA's have been configured without a Client Auth Policy"),
        ),
        ("FILES, client_auth_type: Foo", true, Refused("invalid ClientAuth: Foo")),
        (
            "cert_file: server.crt, key_file: other.key, client_auth_type: Foo",
            true,
            Refused("failed to load X509KeyPair: tls: private key does not match public key"),
        ),
        ("FILES, client_auth_type: RequestClientCert, client_ca_file: /dev/null", true, Tls),
        ("FILES, client_auth_type: VerifyClientCertIfGiven, client_ca_file: /dev/null", true, Tls),
        ("FILES, client_allowed_sans: [], client_auth_type: NoClientCert", true, Tls),
        ("FILES, curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]", true, Tls),
        ("FILES, prefer_server_cipher_suites: false, min_version: TLS13, max_version: TLS13", true, Tls),
        (
            "FILES, cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, \
             TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, \
             TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
             TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, \
             TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, \
             TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]",
            true,
            Tls,
        ),
        (
            "FILES, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], max_version: TLS12",
            true,
            Refused(
                "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one \
                 of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)",
            ),
        ),
        ("FILES, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], max_version: TLS12", false, Tls),
        ("FILES, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], min_version: TLS13", true, Tls),
    ];

    #[test]
    fn are_accepted_or_refused() {
        let folder = Folder::new();
        let server = folder.identity("server");
        folder.identity("other");
        let place = folder.path("").display().to_string();
        for (settings, http2, outcome) in CASES {
            let settings = settings
                .replace("FILES", FILES)
                .replace("FOLDER/", &place)
                .replace("CERT", &format!("{:?}", server.certificate_pem))
                .replace("KEY", &format!("{:?}", server.key_pem));
            let text = format!("tls_server_config: {{{settings}}}\nhttp_server_config: {{http2: {http2}}}\n");
            folder.write("web.yml", &text);
            match outcome {
                Tls => {
                    let gateway = start(&folder);
                    let line = format!("msg=\"TLS is enabled.\" http2={http2}");
                    assert!(gateway.log().contains(&line), "{settings}: {}", gateway.log());
                    let certificate = get_health(&gateway, None).expect("a handshake");
                    assert_eq!(certificate, *server.certificate(), "{settings}");
                }
                Refused(message) => {
                    let (_, log) = Gateway::fails_to_start(&[&folder.flag()]);
                    let message = message.replace("FOLDER/", &place);
                    assert!(log.contains(&message), "{settings}: {message} in {log}");
                }
            }
        }
    }

    #[test]
    fn rsa_keys_and_chains_are_accepted() {
        let folder = Folder::new();
        let rsa = Identity::with_rsa(&["localhost"]);
        let (issued, intermediate) = Identity::with_intermediate(&["localhost"]);
        folder.write("rsa.crt", &rsa.certificate_pem);
        folder.write("rsa.key", &rsa.key_pem);
        folder.write("pkcs1.key", &rsa.pkcs1_pem());
        folder.write("chain.crt", &issued.certificate_pem);
        folder.write("chain.key", &issued.key_pem);
        let chain = vec![issued.certificate().clone(), intermediate];
        let rsa_chain = vec![rsa.certificate().clone()];
        let inline = |identity: &Identity| {
            format!("cert: {:?}, key: {:?}", identity.certificate_pem, identity.key_pem)
        };
        for (settings, expected) in [
            ("cert_file: rsa.crt, key_file: rsa.key".to_owned(), &rsa_chain),
            ("cert_file: rsa.crt, key_file: pkcs1.key".to_owned(), &rsa_chain),
            (inline(&rsa), &rsa_chain),
            ("cert_file: chain.crt, key_file: chain.key".to_owned(), &chain),
            (inline(&issued), &chain),
            (
                "cert_file: chain.crt, key_file: chain.key, min_version: TLS12, max_version: TLS12"
                    .to_owned(),
                &chain,
            ),
        ] {
            folder.write("web.yml", &format!("tls_server_config: {{{settings}}}\n"));
            let gateway = start(&folder);
            assert_eq!(get_health(&gateway, None).expect("a handshake"), expected[0], "{settings}");
            assert_eq!(&super::chain(gateway.port()).expect("a handshake"), expected, "{settings}");
        }
    }

    #[test]
    fn certificates_and_keys_that_do_not_belong_together_are_refused() {
        let folder = Folder::new();
        folder.identity("server");
        let (rsa, other) = (Identity::with_rsa(&["localhost"]), Identity::with_rsa(&["localhost"]));
        let (issued, _) = Identity::with_intermediate(&["localhost"]);
        folder.write("rsa.crt", &rsa.certificate_pem);
        folder.write("rsa.key", &rsa.key_pem);
        folder.write("other.key", &other.key_pem);
        folder.write("chain.key", &issued.key_pem);
        // The issuer's certificate before that of the server.
        let at = issued.certificate_pem[1..].find("-----BEGIN").expect("two certificates") + 1;
        let (leaf, intermediate) = issued.certificate_pem.split_at(at);
        folder.write("swapped.crt", &format!("{intermediate}{leaf}"));
        for (certificate, key, message) in [
            ("rsa.crt", "other.key", "tls: private key does not match public key"),
            ("swapped.crt", "chain.key", "tls: private key does not match public key"),
            ("rsa.crt", "server.key", "tls: private key type does not match public key type"),
            ("server.crt", "rsa.key", "tls: private key type does not match public key type"),
        ] {
            let settings = format!("cert_file: {certificate}, key_file: {key}");
            folder.write("web.yml", &format!("tls_server_config: {{{settings}}}\n"));
            let (_, log) = Gateway::fails_to_start(&[&folder.flag()]);
            let message = format!("failed to load X509KeyPair: {message}");
            assert!(log.contains(&message), "{settings}: {message} in {log}");
        }
    }

    #[test]
    fn clients_need_a_certificate_only_as_long_as_the_file_says_so() {
        let folder = Folder::new();
        folder.identity("server");
        let client = Identity::new(&["client"]);
        folder.write(
            "web.yml",
            &format!("tls_server_config: {{{FILES}, client_auth_type: RequireAnyClientCert}}\n"),
        );
        let gateway = start(&folder);
        get_health(&gateway, None).expect_err("a certificate is required");
        get_health(&gateway, Some(&client)).expect("any certificate will do");
        folder.write("web.yml", &format!("tls_server_config: {{{FILES}}}\n"));
        wait_for("a handshake without a certificate", PATIENCE, || get_health(&gateway, None).ok());
    }

    #[test]
    fn a_certificate_that_is_renewed_in_place_is_used() {
        let folder = Folder::new();
        let first = folder.identity("server");
        folder.write("web.yml", &format!("tls_server_config: {{{FILES}}}\n"));
        let gateway = start(&folder);
        wait_for_certificate(&gateway, &first);
        let second = Identity::new(&["localhost"]);
        // The official program, which reads the files at each handshake, refuses those in between.
        folder.write("server.key", &second.key_pem);
        folder.write("server.crt", &second.certificate_pem);
        wait_for_certificate(&gateway, &second);
    }
}

fn wait_for_log(gateway: &Gateway, text: &str) {
    wait_for(text, PATIENCE, || gateway.log().contains(text).then_some(()));
}

#[test]
fn certificates_that_are_replaced_through_a_symlink_are_used() {
    let folder = Folder::new();
    for version in ["v1", "v2"] {
        fs::create_dir(folder.path(version)).expect("a folder");
    }
    let [first, second] = ["v1", "v2"].map(|version| folder.identity(&format!("{version}/server")));
    symlink("v1", folder.path("data")).expect("a link");
    let files = "cert_file: data/server.crt, key_file: data/server.key";
    folder.write("web.yml", &format!("tls_server_config: {{{files}}}\n"));
    let gateway = start(&folder);
    wait_for_certificate(&gateway, &first);
    symlink("v2", folder.path("new")).expect("a link");
    fs::rename(folder.path("new"), folder.path("data")).expect("the link is replaced");
    wait_for_certificate(&gateway, &second);
}

#[test]
fn a_key_that_does_not_fit_leaves_the_old_pair_in_force() {
    let folder = Folder::new();
    let first = folder.identity("server");
    let other = folder.identity("other");
    folder.write("web.yml", &format!("tls_server_config: {{{FILES}}}\n"));
    let gateway = start(&folder);
    folder.write("server.key", &other.key_pem);
    wait_for_log(&gateway, "private key does not match public key");
    assert_eq!(get_health(&gateway, None).expect("a handshake"), *first.certificate());
    folder.write("server.crt", &other.certificate_pem);
    wait_for_certificate(&gateway, &other);
}

#[test]
fn tls_stays_enabled_until_a_restart() {
    let folder = Folder::new();
    let server = folder.identity("server");
    folder.write("web.yml", &format!("tls_server_config: {{{FILES}}}\n"));
    let gateway = start(&folder);
    folder.write("web.yml", "{}");
    wait_for_log(&gateway, "but TLS stays enabled");
    assert_eq!(get_health(&gateway, None).expect("a handshake"), *server.certificate());
    folder
        .write("web.yml", &format!("tls_server_config: {{{FILES}}}\nhttp_server_config: {{http2: false}}\n"));
    wait_for_log(&gateway, "http2 was changed");
    get_health(&gateway, None).expect("a handshake");
}
