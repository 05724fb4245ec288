//! TLS, with rustls as the client and certificates that the test makes.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::support::{Gateway, wait_for};

const TIMEOUT: Duration = Duration::from_secs(20);
/// How a response to HTTP/1.0 begins.
const OK: &[u8] = b"HTTP/1.0 200 ";

/// A certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

/// A certificate that is its own authority, as a self-signed one of a client often is.
fn identity(name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("the name is valid");
    params.extended_key_usages = vec![usage];
    if params.extended_key_usages == [ExtendedKeyUsagePurpose::ClientAuth] {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().expect("a key can be generated");
    let certificate = params.self_signed(&key).expect("the parameters are valid");
    Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
}

/// A gateway with TLS.
struct Server {
    gateway: Gateway,
    folder: TempDir,
    identity: Identity,
}

impl Server {
    /// Starts a gateway. `settings` are further lines of `tls_server_config`.
    fn start(settings: &[&str], flags: &[&str]) -> Self {
        Self::start_with(settings, flags, None)
    }

    fn start_with(settings: &[&str], flags: &[&str], client_ca: Option<&Identity>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = identity("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let mut text = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n".to_owned();
        for line in settings {
            writeln!(text, "  {line}").expect("writing to a String succeeds");
        }
        if let Some(client_ca) = client_ca {
            fs::write(folder.path().join("clients.crt"), &client_ca.pem).expect("a file");
            text.push_str("  client_ca_file: clients.crt\n");
        }
        let file = folder.path().join("web.yml");
        fs::write(&file, text).expect("a file");
        install(&folder, &identity);
        let flag = format!("--web.config.file={}", file.display());
        let driver =
            std::env::var("SLUICEGATE_TEST_DRIVER").map(|driver| format!("--runtime.driver={driver}"));
        let mut all = vec![&*flag];
        all.extend(driver.as_deref().ok());
        all.extend(flags);
        // Another process may take the port before the gateway binds it.
        for _ in 0..3 {
            let gateway = Gateway::begin(&all);
            let listens = wait_for("the gateway to listen or to fail", TIMEOUT, || {
                let log = gateway.log();
                let (listens, fails) = (log.contains("TLS is enabled."), log.contains("gateway failed"));
                (listens || fails).then_some(listens)
            });
            if listens {
                return Self { gateway, folder, identity };
            }
        }
        panic!("the gateway does not start with {all:?}");
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.gateway.port())).expect("the gateway listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a valid timeout");
        stream
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        client: Option<&Identity>,
    ) -> Arc<ClientConfig> {
        client_config(&self.identity, versions, client)
    }

    fn open(&self, config: &Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("localhost").expect("the name is valid");
        let tls = ClientConnection::new(config.clone(), name).expect("the settings are valid");
        Client(StreamOwned::new(tls, self.connect()))
    }

    /// Waits until the log has a text; a thread writes it.
    fn await_log(&self, text: &str) {
        wait_for(text, TIMEOUT, || self.gateway.log().contains(text).then_some(()));
    }

    /// The value of a metric of the gateway.
    fn metric(&self, name: &str) -> String {
        let response = self.open(&self.client(&[&TLS13], None)).get("/metrics").expect("a response");
        let text = String::from_utf8(response).expect("the scrape is UTF-8");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {text}")).trim().to_owned()
    }
}

fn install(folder: &TempDir, identity: &Identity) {
    fs::write(folder.path().join("server.crt"), &identity.pem).expect("a file");
    fs::write(folder.path().join("server.key"), identity.key.serialize_pem()).expect("a file");
}

fn client_config(
    server: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    client: Option<&Identity>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(server.certificate.clone()).expect("the certificate is valid");
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .expect("the versions have suites")
        .with_root_certificates(roots);
    Arc::new(match client {
        Some(Identity { certificate, key, .. }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("the key is valid");
            builder.with_client_auth_cert(vec![certificate.clone()], key).expect("they match")
        }
        None => builder.with_no_client_auth(),
    })
}

struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        self.0.flush()
    }

    /// Reads to the end, which must be announced by `close_notify`.
    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut response = Vec::new();
        self.0.read_to_end(&mut response).map(|_| response)
    }

    fn get(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.send(&format!("GET {path} HTTP/1.0\r\n\r\n"))?;
        self.read_to_end()
    }

    /// Pushes on a connection that is kept alive, and returns the status line.
    fn put(&mut self, path: &str, body: &str) -> io::Result<String> {
        let length = body.len();
        self.send(&format!("PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}"))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.to_ascii_lowercase().contains("content-length: 0"), "{head}");
        Ok(head.lines().next().unwrap_or_default().to_owned())
    }

    fn kind(&self) -> Option<HandshakeKind> {
        self.0.conn.handshake_kind()
    }
}

/// The alert in an error of the client.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[test]
fn pushes_and_scrapes_work_in_both_versions_and_end_with_close_notify() {
    let server = Server::start(&[], &[]);
    for version in [&TLS12, &TLS13] {
        let config = server.client(&[version], None);
        let mut client = server.open(&config);
        assert_eq!(client.kind(), None);
        for value in 0..3 {
            let status = client.put("/metrics/job/a", &format!("m {value}\n")).expect("a response");
            assert_eq!(status, "HTTP/1.1 200 OK");
        }
        let response = client.get("/metrics").expect("a response that ends with close_notify");
        assert!(String::from_utf8_lossy(&response).contains("m{instance=\"\",job=\"a\"} 2\n"));
        let resumed = {
            let mut client = server.open(&config);
            client.get("/-/ready").expect("a response");
            client.kind()
        };
        assert_eq!(resumed, Some(HandshakeKind::Resumed), "{version:?}");
    }
    assert_eq!(server.metric("sluicegate_tls_handshakes_total{result=\"resumed\"}"), "2");
}

#[test]
fn large_bodies_and_responses_pass_with_a_slow_reader() {
    let server = Server::start(&[], &["--push.body-bytes-max=64MiB"]);
    let mut body = String::new();
    for index in 0..100_000 {
        writeln!(body, "metric_with_a_name{{index=\"{index}\"}} {index}")
            .expect("writing to a String succeeds");
    }
    let mut client = server.open(&server.client(&[&TLS13], None));
    assert_eq!(client.put("/metrics/job/a", &body).expect("a response"), "HTTP/1.1 200 OK");
    client
        .send("GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .expect("the request is sent");
    let mut response = Vec::new();
    let mut piece = vec![0; 300_000];
    loop {
        let count = client.0.read(&mut piece).expect("the response goes on");
        if count == 0 {
            break;
        }
        response.extend_from_slice(&piece[..count]);
        if response.len() < 1 << 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let text = String::from_utf8(response).expect("the scrape is UTF-8");
    assert_eq!(text.matches("metric_with_a_name{").count(), 100_000);
}

#[test]
fn plain_requests_are_answered_for_every_method() {
    let server = Server::start(&[], &[]);
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"] {
        for target in ["/metrics/job/a", "http://a/"] {
            let mut stream = server.connect();
            write!(stream, "{method} {target} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nm ")
                .expect("sent");
            let mut response = String::new();
            stream.read_to_string(&mut response).expect("a response, no reset");
            assert_eq!(
                response, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
                "{method} {target}"
            );
        }
    }
    let mut stream = server.connect();
    stream.write_all(b"SSH-2.0-OpenSSH\r\n").expect("sent");
    let mut response = Vec::new();
    // A reset is possible, because the gateway does not read the rest.
    let _ = stream.read_to_end(&mut response);
    assert_eq!(response, b"");
    assert_eq!(server.metric("sluicegate_tls_handshakes_total{result=\"not_tls\"}"), "17");
    server.await_log("client sent an HTTP request to an HTTPS server");
}

#[test]
fn a_slow_handshake_is_closed_and_a_slow_head_gets_408() {
    let server = Server::start(&[], &["--web.head-timeout=1s"]);
    let mut silent = server.connect();
    let mut half = server.connect();
    // The header of a record that never ends.
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("sent");
    let mut slow = server.open(&server.client(&[&TLS13], None));
    slow.send("GET / HTTP/1.1\r\nhost:").expect("sent");
    let response = slow.read_to_end().expect("a response that ends with close_notify");
    assert!(response.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&response));
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the end of the stream");
        assert_eq!(rest, b"");
    }
    assert_eq!(server.metric("sluicegate_tls_handshakes_total{result=\"timeout\"}"), "2");
}

#[test]
fn garbage_and_truncated_handshakes_end_the_connection_only() {
    let server = Server::start(&[], &[]);
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").expect("the name is valid");
    let mut tls =
        ClientConnection::new(server.client(&[&TLS13], None), name).expect("the settings are valid");
    tls.write_tls(&mut hello).expect("writing to memory succeeds");
    for at in (0..hello.len()).step_by(7) {
        let mut damaged = hello.clone();
        damaged[at] ^= 0xff;
        for message in [&hello[..at], &damaged] {
            let mut stream = server.connect();
            stream.write_all(message).expect("sent");
            let _ = stream.shutdown(Shutdown::Write);
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{at}"),
            }
        }
    }
    // After the handshake, bytes that are no record.
    let mut client = server.open(&server.client(&[&TLS13], None));
    client.put("/metrics/job/a", "m 1\n").expect("a response");
    client.0.sock.write_all(&[23, 3, 3, 0, 32]).expect("sent");
    client.0.sock.write_all(&[7; 32]).expect("sent");
    let error = client.read_to_end().expect_err("the record is invalid");
    assert_eq!(alert(&error), Some(AlertDescription::BadRecordMac), "{error}");
    let mut client = server.open(&server.client(&[&TLS13], None));
    assert!(client.get("/-/healthy").expect("a response").starts_with(OK));
}

#[test]
fn incomplete_records_of_idle_connections_are_counted() {
    const RECORD_BYTES: usize = 12_000;
    let server = Server::start(&[], &["--memory.in-flight-max=2MiB"]);
    let config = server.client(&[&TLS13], None);
    let mut clients: Vec<Client> = (0..150)
        .map(|_| {
            let mut client = server.open(&config);
            assert_eq!(client.put("/metrics/job/a", "m 1\n").expect("a response"), "HTTP/1.1 200 OK");
            // The header of a record of 16,000 bytes, and not all of them. The gateway may have ended the connection.
            let _ = client.0.sock.write_all(&[&[23, 3, 3, 0x3e, 0x80][..], &[7; RECORD_BYTES]].concat());
            client
        })
        .collect();
    let (mut refused, mut kept) = (0, 0);
    let mut refused_at_the_end = false;
    for client in &mut clients {
        client.0.sock.set_read_timeout(Some(Duration::from_millis(200))).expect("a valid timeout");
        let response = client.read_to_end();
        refused_at_the_end = response.is_ok();
        match response {
            Ok(response) => {
                let text = String::from_utf8_lossy(&response).into_owned();
                assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("retry-after: 1"), "{text}");
                refused += 1;
            }
            Err(_) => kept += 1,
        }
    }
    // Each of them reserves at least 18 KB, and less than 40.
    assert!(refused_at_the_end && refused >= 30 && kept >= 50, "{refused} refused, {kept} kept");
    drop(clients);
    wait_for("the memory", TIMEOUT, || {
        (server.metric("sluicegate_in_flight_bytes ").parse::<f64>().expect("a number") < 65_536.0)
            .then_some(())
    });
}

#[test]
fn a_handshake_whose_client_has_left_is_not_carried_out() {
    let server = Server::start(&[], &[]);
    let name = ServerName::try_from("localhost").expect("the name is valid");
    let mut tls =
        ClientConnection::new(server.client(&[&TLS13], None), name).expect("the settings are valid");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("writing to memory succeeds");
    let (first, last) = hello.split_at(hello.len() - 1);
    let mut stream = server.connect();
    stream.write_all(first).expect("sent");
    // The last byte and the end arrive together.
    socket2::SockRef::from(&stream).set_tcp_cork(true).expect("an open socket");
    stream.write_all(last).expect("sent");
    stream.shutdown(Shutdown::Write).expect("an open socket");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("the end of the stream");
    assert_eq!(response, b"");
    assert_eq!(server.metric("sluicegate_tls_handshakes_total{result=\"failed\"}"), "1");
}

#[test]
fn a_client_with_an_old_version_gets_the_alert_protocol_version() {
    let server = Server::start(&[], &[]);
    // The hello of TLS 1.1: no session, one suite, no compression, no extensions.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let length = hello.len() as u8;
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = server.connect();
    stream.write_all(&record).expect("sent");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("an alert, no reset");
    assert_eq!(response, [21, 3, 3, 0, 2, 2, u8::from(AlertDescription::ProtocolVersion)]);
    server.await_log("tls: client offered only unsupported versions");
}

#[test]
fn clients_need_a_certificate_of_the_authority_with_an_allowed_name() {
    let (known, other) =
        ["test3", "test4"].map(|name| identity(name, ExtendedKeyUsagePurpose::ClientAuth)).into();
    let settings = ["client_auth_type: RequireAndVerifyClientCert", "client_allowed_sans: [one, test3, two]"];
    let server = Server::start_with(&settings, &[], Some(&known));
    let get = |versions: &[&'static SupportedProtocolVersion], client| {
        let mut client = server.open(&server.client(versions, client));
        client.get("/-/ready").map_err(|error| alert(&error))
    };
    for versions in [&[&TLS12][..], &[&TLS13]] {
        assert!(get(versions, Some(&known)).expect("a response").starts_with(OK));
        assert_eq!(get(versions, None), Err(Some(AlertDescription::CertificateRequired)), "{versions:?}");
        assert_eq!(get(versions, Some(&other)), Err(Some(AlertDescription::UnknownCA)));
    }
    for reason in
        ["tls: client didn't provide a certificate", "x509: certificate signed by unknown authority"]
    {
        server.await_log(reason);
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let server = Server::start(&[], &[]);
    let mut kept = server.open(&server.client(&[&TLS13], None));
    kept.put("/metrics/job/a", "m 1\n").expect("a response");
    let renewed = identity("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    install(&server.folder, &renewed);
    let config = client_config(&renewed, &[&TLS13], None);
    wait_for("the new certificate", TIMEOUT, || server.open(&config).get("/-/ready").ok());
    assert_eq!(kept.put("/metrics/job/a", "m 2\n").expect("an old connection goes on"), "HTTP/1.1 200 OK");
}

#[test]
fn a_client_without_close_notify_still_gets_its_response() {
    let server = Server::start(&[], &[]);
    let mut client = server.open(&server.client(&[&TLS13], None));
    client.send("GET /-/healthy HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
    client.0.sock.shutdown(Shutdown::Write).expect("an open connection");
    assert!(client.read_to_end().expect("a response").starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn messages_about_certificates_are_those_of_the_official_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web.yml");
    let identity = identity("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    install(&folder, &identity);
    let flag = format!("--web.config.file={}", file.display());
    for (settings, expected) in [
        ("cert_file: none.crt, key_file: server.key", "failed to read cert_file ("),
        ("cert_file: server.crt, key_file: none.key", "none.key: no such file or directory"),
        ("cert_file: server.key, key_file: server.crt", "PEM inputs may have been switched"),
        ("cert_file: server.crt, key_file: server.key, max_version: TLS11", "max_version is below TLS12"),
    ] {
        fs::write(&file, format!("tls_server_config: {{{settings}}}\n")).expect("a file");
        let (status, log) = Gateway::fails_to_start(&[&flag]);
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(expected), "{expected} in {log}");
    }
}

#[test]
fn difference_27_tls_has_no_obsolete_versions_and_suites() {
    let server = Server::start(
        &[
            "min_version: TLS10",
            "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
        ],
        &[],
    );
    let mut client = server.open(&server.client(&[&TLS13], None));
    assert!(client.get("/-/ready").expect("a response").starts_with(OK));
    let error = server
        .open(&server.client(&[&TLS12], None))
        .get("/-/ready")
        .expect_err("no suite is left for this certificate");
    assert_eq!(alert(&error), Some(AlertDescription::HandshakeFailure));
    for warning in ["min_version is below TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"] {
        server.await_log(warning);
    }

    // The official program panics.
    let server = Server::start(&["client_auth_type: RequestClientCert", "client_allowed_sans: [a]"], &[]);
    let error = server.open(&server.client(&[&TLS13], None)).get("/-/ready").expect_err("there is no name");
    assert_eq!(alert(&error), Some(AlertDescription::CertificateRequired));
}
