//! Handshakes in memory, with rustls as the client.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::Resumption;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::*;
use crate::web_config::{CipherSuite, Curve};

/// A certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .expect("the names are valid");
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
    params
}

fn self_signed(params: &CertificateParams) -> Identity {
    let key = KeyPair::generate().expect("a key can be generated");
    let certificate = params.self_signed(&key).expect("the parameters are valid");
    Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(&["authority"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key can be generated");
    CertifiedIssuer::self_signed(params, key).expect("the parameters are valid")
}

fn issued(params: &CertificateParams, issuer: &CertifiedIssuer<'static, KeyPair>) -> Identity {
    let key = KeyPair::generate().expect("a key can be generated");
    let certificate = params.signed_by(&key, issuer).expect("the parameters are valid");
    Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
}

fn for_clients(names: &[&str]) -> CertificateParams {
    let mut params = params(names);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn settings(server: &Identity) -> TlsSettings {
    TlsSettings {
        certificate: Pem::Inline(server.pem.clone()),
        key: Pem::Inline(server.key.serialize_pem()),
        client_ca: None,
        client_auth: ClientAuth::NoClientCert,
        allowed_sans: None,
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        cipher_suites: None,
        curves: None,
    }
}

/// What a client offers.
struct Client<'a> {
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Option<Vec<SupportedCipherSuite>>,
    groups: Option<Vec<&'static dyn SupportedKxGroup>>,
    protocols: &'a [&'a [u8]],
    identity: Option<&'a Identity>,
}

impl Default for Client<'_> {
    fn default() -> Self {
        Client { versions: vec![&TLS13, &TLS12], suites: None, groups: None, protocols: &[], identity: None }
    }
}

impl Client<'_> {
    fn config(&self, server: &Identity) -> Arc<ClientConfig> {
        let mut provider = default_provider();
        provider.cipher_suites = self.suites.clone().unwrap_or(provider.cipher_suites);
        provider.kx_groups = self.groups.clone().unwrap_or(provider.kx_groups);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(server.certificate.clone()).expect("the certificate is valid");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .expect("the versions have suites")
            .with_root_certificates(roots);
        let mut config = match self.identity {
            Some(Identity { certificate, key, .. }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("the key is valid");
                builder.with_client_auth_cert(vec![certificate.clone()], key).expect("they match")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

/// Both ends after a handshake.
#[derive(Debug)]
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

/// The reason for the log, and the alert that the client got.
type Refusal = (rustls::Error, Option<AlertDescription>);

fn connect(configs: &ServerConfigs, client: &Arc<ClientConfig>) -> Result<Pair, Refusal> {
    let name = ServerName::try_from("localhost").expect("the name is valid");
    let mut client = ClientConnection::new(client.clone(), name).expect("the settings are valid");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("writing to memory succeeds");
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &hello[..]).expect("reading from memory succeeds");
    let accepted = acceptor.accept().expect("the hello is valid").expect("the hello is complete");
    let config = configs.for_client(&accepted.client_hello()).expect("a version is allowed");
    let mut server = match accepted.into_connection(config) {
        Ok(server) => server,
        Err((error, mut alert)) => {
            let mut records = Vec::new();
            alert.write_all(&mut records).expect("writing to memory succeeds");
            return Err((error, alert_for(client, &records)));
        }
    };
    loop {
        let mut records = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut records).expect("writing to memory succeeds");
        }
        let mut input = &records[..];
        while !input.is_empty() {
            client.read_tls(&mut input).expect("reading from memory succeeds");
            client.process_new_packets().expect("the client accepts the server");
        }
        if !server.is_handshaking() && !client.is_handshaking() && !client.wants_write() {
            configs.check(&server).map_err(|error| (error, None))?;
            return Ok(Pair { client, server });
        }
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).expect("writing to memory succeeds");
        }
        let mut input = &records[..];
        while !input.is_empty() {
            server.read_tls(&mut input).expect("reading from memory succeeds");
            if let Err(error) = server.process_new_packets() {
                let mut records = Vec::new();
                server.write_tls(&mut records).expect("writing to memory succeeds");
                return Err((error, alert_for(client, &records)));
            }
        }
    }
}

fn alert_for(mut client: ClientConnection, mut records: &[u8]) -> Option<AlertDescription> {
    while !records.is_empty() {
        client.read_tls(&mut records).expect("reading from memory succeeds");
        if let Err(rustls::Error::AlertReceived(alert)) = client.process_new_packets() {
            return Some(alert);
        }
    }
    None
}

fn server() -> Identity {
    self_signed(&params(&["localhost"]))
}

fn build(settings: &TlsSettings) -> ServerConfigs {
    ServerConfigs::build(settings, true).expect("the settings are valid")
}

fn alert(settings: &TlsSettings, server: &Identity, client: &Client<'_>) -> Option<AlertDescription> {
    connect(&build(settings), &client.config(server)).expect_err("the client is refused").1
}

#[test]
fn versions_are_limited() {
    let server = server();
    let usual = settings(&server);
    for version in [&TLS12, &TLS13] {
        let client = Client { versions: vec![version], ..Client::default() };
        let pair = connect(&build(&usual), &client.config(&server)).expect("the version is allowed");
        assert_eq!(pair.server.protocol_version(), Some(version.version));
    }
    let only_13 = TlsSettings { min_version: TlsVersion::Tls13, ..usual.clone() };
    let client = Client { versions: vec![&TLS12], ..Client::default() };
    assert_eq!(alert(&only_13, &server, &client), Some(AlertDescription::ProtocolVersion));
    let only_12 =
        TlsSettings { min_version: TlsVersion::Tls10, max_version: TlsVersion::Tls12, ..usual.clone() };
    let client = Client { versions: vec![&TLS13], ..Client::default() };
    assert_eq!(alert(&only_12, &server, &client), Some(AlertDescription::ProtocolVersion));

    let old = TlsSettings { min_version: TlsVersion::Tls10, max_version: TlsVersion::Tls11, ..usual.clone() };
    assert!(matches!(ServerConfigs::build(&old, true), Err(TlsError::OldVersions)));
    let none = TlsSettings { min_version: TlsVersion::Tls13, max_version: TlsVersion::Tls12, ..usual };
    assert!(build(&none).orders.is_none(), "the gateway starts, but accepts nobody");
}

#[test]
fn cipher_suites_are_chosen_in_the_order_of_go() {
    let server = server();
    let usual = settings(&server);
    let chosen = |settings: &TlsSettings, version, suites: &[SupportedCipherSuite]| {
        let client = Client { versions: vec![version], suites: Some(suites.to_vec()), ..Client::default() };
        let pair = connect(&build(settings), &client.config(&server)).expect("a suite is allowed");
        pair.client.negotiated_cipher_suite().expect("the handshake is complete").suite()
    };
    let (aes_128, aes_256, chacha) = (
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_CHACHA20_POLY1305_SHA256,
    );
    assert_eq!(chosen(&usual, &TLS13, &[aes_256, chacha, aes_128]), aes_128.suite());
    assert_eq!(chosen(&usual, &TLS13, &[aes_256, chacha]), aes_256.suite());
    assert_eq!(chosen(&usual, &TLS13, &[chacha, aes_256, aes_128]), chacha.suite());

    let (aes_128, aes_256, chacha) = (
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    );
    assert_eq!(chosen(&usual, &TLS12, &[aes_256, chacha, aes_128]), aes_128.suite());
    assert_eq!(chosen(&usual, &TLS12, &[chacha, aes_256, aes_128]), chacha.suite());
    let listed = vec![CipherSuite::EcdheEcdsaAes256GcmSha384, CipherSuite::EcdheEcdsaAes128GcmSha256];
    let listed = TlsSettings { cipher_suites: Some(listed), ..usual.clone() };
    assert_eq!(
        chosen(&listed, &TLS12, &[aes_256, aes_128]),
        aes_128.suite(),
        "the order of the list has no effect"
    );
    let client = Client { versions: vec![&TLS12], suites: Some(vec![chacha]), ..Client::default() };
    assert_eq!(alert(&listed, &server, &client), Some(AlertDescription::HandshakeFailure));

    let cbc = Some(vec![CipherSuite::EcdheRsaAes128CbcSha]);
    let cbc = TlsSettings { cipher_suites: cbc, ..usual };
    let client = Client { versions: vec![&TLS12], ..Client::default() };
    assert_eq!(alert(&cbc, &server, &client), Some(AlertDescription::ProtocolVersion));
    assert_eq!(
        chosen(&cbc, &TLS13, &[suite::TLS13_AES_128_GCM_SHA256]),
        suite::TLS13_AES_128_GCM_SHA256.suite()
    );
    let cbc = TlsSettings { max_version: TlsVersion::Tls12, ..cbc };
    let error = ServerConfigs::build(&cbc, true).expect_err("nothing is left").to_string();
    assert!(error.ends_with("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"), "{error}");
}

#[test]
fn groups_are_limited() {
    let server = server();
    let usual = settings(&server);
    let p521 = TlsSettings { curves: Some(vec![Curve::P521]), ..usual.clone() };
    for version in [&TLS12, &TLS13] {
        let client =
            Client { versions: vec![version], groups: Some(vec![p521::SECP521R1]), ..Client::default() };
        for settings in [&usual, &p521] {
            let pair = connect(&build(settings), &client.config(&server)).expect("the group is allowed");
            let group = pair.client.negotiated_key_exchange_group().expect("there was a key exchange");
            assert_eq!(group.name(), rustls::NamedGroup::secp521r1);
        }
        let client =
            Client { versions: vec![version], groups: Some(vec![kx_group::SECP384R1]), ..Client::default() };
        assert_eq!(alert(&p521, &server, &client), Some(AlertDescription::HandshakeFailure));
    }
    let hybrid =
        Client { groups: Some(vec![kx_group::X25519MLKEM768]), versions: vec![&TLS13], ..Client::default() };
    assert!(connect(&build(&usual), &hybrid.config(&server)).is_ok());
    let listed = TlsSettings { curves: Some(vec![Curve::X25519]), ..usual };
    assert_eq!(alert(&listed, &server, &hybrid), Some(AlertDescription::HandshakeFailure));
}

#[test]
fn without_http2_no_protocol_is_negotiated() {
    let server = server();
    let settings = settings(&server);
    let protocol = |http2, protocols: &[&[u8]]| {
        let configs = ServerConfigs::build(&settings, http2).expect("the settings are valid");
        let client = Client { protocols, ..Client::default() };
        connect(&configs, &client.config(&server))
            .map(|pair| pair.client.alpn_protocol().map(<[u8]>::to_vec))
            .map_err(|(_, alert)| alert)
    };
    assert_eq!(protocol(true, &[]), Ok(None));
    assert_eq!(protocol(true, &[b"foo", b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(protocol(true, &[b"http/1.1", b"h2"]), Ok(Some(b"h2".to_vec())), "the server prefers HTTP/2");
    assert_eq!(protocol(true, &[b"foo"]), Err(Some(AlertDescription::NoApplicationProtocol)));
    assert_eq!(protocol(false, &[b"foo"]), Ok(None));
}

#[test]
fn sessions_are_resumed_also_after_a_reload() {
    let server = server();
    for version in [&TLS12, &TLS13] {
        let config = Client { versions: vec![version], ..Client::default() }.config(&server);
        let in_force = build(&settings(&server));
        let kinds = [&in_force, &build(&settings(&server))].map(|configs| {
            let pair = connect(configs, &config).expect("the client is accepted");
            pair.server.handshake_kind().expect("the handshake is complete")
        });
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?}");
    }
}

#[test]
fn modes_decide_whether_clients_need_certificates() {
    let (server, client) = (server(), self_signed(&for_clients(&["client"])));
    for (client_auth, none_is_accepted, unverified_is_accepted) in [
        (ClientAuth::NoClientCert, true, true),
        (ClientAuth::RequestClientCert, true, true),
        (ClientAuth::RequireAnyClientCert, false, true),
        (ClientAuth::VerifyClientCertIfGiven, true, false),
        (ClientAuth::RequireAndVerifyClientCert, false, false),
    ] {
        let other = authority().pem();
        let settings = TlsSettings { client_auth, client_ca: Some(Pem::Inline(other)), ..settings(&server) };
        for version in [&TLS12, &TLS13] {
            let outcome = |identity| {
                let client = Client { versions: vec![version], identity, ..Client::default() };
                connect(&build(&settings), &client.config(&server)).map(drop).map_err(|(_, alert)| alert)
            };
            let expected = |is_accepted, alert| if is_accepted { Ok(()) } else { Err(Some(alert)) };
            assert_eq!(
                outcome(None),
                expected(none_is_accepted, AlertDescription::CertificateRequired),
                "{client_auth:?} {version:?}"
            );
            assert_eq!(
                outcome(Some(&client)),
                expected(unverified_is_accepted, AlertDescription::UnknownCA),
                "{client_auth:?} {version:?}"
            );
        }
    }
}

#[test]
fn certificates_of_clients_are_verified() {
    let (server, authority) = (server(), authority());
    let requires = |ca: &str| TlsSettings {
        client_auth: ClientAuth::RequireAndVerifyClientCert,
        client_ca: Some(Pem::Inline(ca.to_owned())),
        ..settings(&server)
    };
    let outcome = |settings: &TlsSettings, identity: &Identity| {
        let client = Client { identity: Some(identity), ..Client::default() };
        connect(&build(settings), &client.config(&server)).map(drop).map_err(|(_, alert)| alert)
    };
    let by_authority = requires(&authority.pem());
    assert_eq!(outcome(&by_authority, &issued(&for_clients(&["client"]), &authority)), Ok(()));
    assert_eq!(
        outcome(&by_authority, &issued(&params(&["client"]), &authority)),
        Ok(()),
        "it names no usages"
    );

    let mut authority_itself = for_clients(&["client"]);
    authority_itself.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (refused, _) = connect(
        &build(&by_authority),
        &Client { identity: Some(&issued(&authority_itself, &authority)), ..Client::default() }
            .config(&server),
    )
    .map_or_else(|refusal| refusal, |_| panic!("difference 27: a client that is an authority"));
    assert_eq!(refused, rustls::CertificateError::UnknownIssuer.into());
    authority_itself.is_ca = IsCa::ExplicitNoCa;
    assert_eq!(outcome(&by_authority, &issued(&authority_itself, &authority)), Ok(()));

    let expired = |mut params: CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params
    };
    let for_servers = |mut params: CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    };
    let unknown = issued(&for_clients(&["client"]), &self::authority());
    assert_eq!(outcome(&by_authority, &unknown), Err(Some(AlertDescription::UnknownCA)));
    let late = issued(&expired(for_clients(&["client"])), &authority);
    assert_eq!(outcome(&by_authority, &late), Err(Some(AlertDescription::CertificateExpired)));
    let wrong = issued(&for_servers(params(&["client"])), &authority);
    assert_eq!(outcome(&by_authority, &wrong), Err(Some(AlertDescription::BadCertificate)));

    // Certificates that are their own authorities.
    let own = |mut params: CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let identity = self_signed(&params);
        outcome(&requires(&identity.pem), &identity)
    };
    assert_eq!(own(for_clients(&["client"])), Ok(()));
    assert_eq!(own(params(&["client"])), Ok(()));
    assert_eq!(own(expired(params(&["client"]))), Err(Some(AlertDescription::CertificateExpired)));
    assert_eq!(own(for_servers(params(&["client"]))), Err(Some(AlertDescription::BadCertificate)));

    // A text without certificates is accepted, but nobody has a certificate of these authorities.
    assert_eq!(
        outcome(&requires("nothing"), &issued(&for_clients(&["client"]), &authority)),
        Err(Some(AlertDescription::UnknownCA))
    );
    let of_the_system = TlsSettings { client_ca: None, ..by_authority };
    assert_eq!(
        outcome(&of_the_system, &issued(&for_clients(&["client"]), &authority)),
        Err(Some(AlertDescription::UnknownCA))
    );
}

#[test]
fn certificates_need_an_allowed_name_in_each_mode() {
    let server = server();
    let mut named = for_clients(&["test3", "Other"]);
    named.subject_alt_names.push(SanType::IpAddress("10.0.0.1".parse().expect("an address")));
    let client = self_signed(&named);
    let allowing = |client_auth, names: &[&str]| TlsSettings {
        client_auth,
        client_ca: Some(Pem::Inline(client.pem.clone())),
        allowed_sans: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..settings(&server)
    };
    for client_auth in [
        ClientAuth::RequestClientCert,
        ClientAuth::RequireAnyClientCert,
        ClientAuth::VerifyClientCertIfGiven,
        ClientAuth::RequireAndVerifyClientCert,
    ] {
        let outcome = |names: &[&str], identity| {
            let client = Client { identity, ..Client::default() };
            connect(&build(&allowing(client_auth, names)), &client.config(&server)).map(drop)
        };
        for names in [&["one", "test3", "two"][..], &["10.0.0.1"]] {
            assert!(outcome(names, Some(&client)).is_ok(), "{client_auth:?} {names:?}");
        }
        for names in [&["bad"][..], &["TEST3"], &["client"], &[]] {
            let (error, alert) = outcome(names, Some(&client)).expect_err("no name is allowed");
            assert_eq!(alert, Some(AlertDescription::BadCertificate), "{client_auth:?} {names:?}");
            let expected =
                format!("could not find allowed SANs in client cert, found: [{}]", names.join(" "));
            assert_eq!(refusal(&error), Some(&*expected));
        }
        let (_, alert) = outcome(&["test3"], None).expect_err("there is no name");
        assert_eq!(alert, Some(AlertDescription::CertificateRequired), "{client_auth:?}");
    }
    let unasked = allowing(ClientAuth::NoClientCert, &["bad"]);
    assert!(connect(&build(&unasked), &Client::default().config(&server)).is_ok());
}

#[test]
fn a_resumed_session_is_checked_again() {
    let (server, client) = (server(), self_signed(&for_clients(&["test3"])));
    let allowing = |name: &str| {
        build(&TlsSettings {
            client_auth: ClientAuth::RequireAnyClientCert,
            allowed_sans: Some(vec![name.to_owned()]),
            ..settings(&server)
        })
    };
    let config = Client { identity: Some(&client), ..Client::default() }.config(&server);
    let in_force = allowing("test3");
    assert!(connect(&in_force, &config).is_ok());
    let pair = connect(&allowing("test3"), &config).expect("the name is allowed");
    assert_eq!(pair.server.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(connect(&allowing("bad"), &config).is_err(), "the name is not allowed any more");
    let unasked = Client::default().config(&server);
    assert!(connect(&build(&settings(&server)), &unasked).is_ok());
    assert!(connect(&allowing("test3"), &unasked).is_err(), "a session without a certificate");
}

#[test]
fn messages_about_files_are_those_of_the_official_program() {
    let server = server();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.pem");
    let message = |settings: &TlsSettings| {
        let error = ServerConfigs::build(settings, true).expect_err("a file is missing").to_string();
        error.replace(&missing.display().to_string(), "PATH")
    };
    let usual = settings(&server);
    let file = || Pem::File(missing.clone());
    let open = "open PATH: no such file or directory";
    assert_eq!(
        message(&TlsSettings { certificate: file(), ..usual.clone() }),
        format!("failed to read cert_file (PATH): {open}")
    );
    assert_eq!(
        message(&TlsSettings { key: file(), ..usual.clone() }),
        format!("failed to read key_file (PATH): {open}")
    );
    assert_eq!(message(&TlsSettings { client_ca: Some(file()), ..usual.clone() }), open);
    let directory = Pem::File(folder.path().to_owned());
    let error = ServerConfigs::build(&TlsSettings { certificate: directory, ..usual.clone() }, true);
    let text = error.expect_err("a folder is no file").to_string();
    assert!(text.ends_with(": is a directory") && text.contains("): read "), "{text}");
    let empty = TlsSettings { certificate: Pem::Inline(String::new()), ..usual };
    assert_eq!(
        ServerConfigs::build(&empty, true).expect_err("there is no certificate").to_string(),
        "failed to load X509KeyPair: tls: failed to find any PEM data in certificate input"
    );
}
