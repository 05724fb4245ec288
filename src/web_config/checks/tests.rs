//! The order of the checks, and their messages.

use super::*;

/// A hash with the right shape.
const HASH: &str = "$2y$10$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn checked(text: &str) -> Result<Checked, WebConfigError> {
    let content = FileContent::parse(text.as_bytes()).expect("valid YAML");
    Checked::from_content(content, Path::new("/nonexistent"))
}

fn valid(text: &str) -> WebConfig {
    match checked(text) {
        Ok(Checked { config, late: None }) => config,
        Ok(Checked { late: Some(error), .. }) | Err(error) => panic!("{text}: {error}"),
    }
}

fn error(text: &str) -> String {
    match checked(text) {
        Ok(Checked { late: Some(error), .. }) | Err(error) => error.to_string(),
        Ok(_) => panic!("accepted {text}"),
    }
}

#[test]
fn only_some_headers_can_be_configured() {
    let config = valid(
        "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=1\n    \
         X-Content-Type-Options: nosniff\n    X-Frame-Options: deny\n    X-XSS-Protection: 1\n    \
         Content-Security-Policy: \" a\\n b \"\n",
    );
    let headers: Vec<_> =
        config.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
    assert_eq!(
        headers,
        [
            ("content-security-policy", "a  b"),
            ("strict-transport-security", "max-age=1"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "deny"),
            ("x-xss-protection", "1"),
        ]
    );
    let refused = |header: &str| error(&format!("http_server_config: {{headers: {{{header}}}}}"));
    assert_eq!(refused("Content-Type: foo"), "HTTP header \"Content-Type\" can not be configured");
    assert_eq!(refused("x-frame-options: deny"), "HTTP header \"x-frame-options\" can not be configured");
    assert_eq!(
        refused("X-Content-Type-Options: sniff"),
        "invalid value for X-Content-Type-Options. Expected one of: [\"nosniff\"], but got: \"sniff\""
    );
    for value in ["foo", "DENY", ""] {
        assert_eq!(
            refused(&format!("X-Frame-Options: {value}")),
            format!(
                "invalid value for X-Frame-Options. Expected one of: [\"deny\" \"sameorigin\"], but got: \"{value}\""
            )
        );
    }
    assert_eq!(
        refused("Content-Security-Policy: \"\\0\""),
        "invalid value for Content-Security-Policy: control characters are not allowed"
    );
}

#[test]
fn hashes_are_checked_by_their_shape() {
    let with = |hash: &str| format!("basic_auth_users: {{alice: '{hash}'}}");
    for prefix in ["$2y$10$", "$2a$04$", "$2b$31$", "$2x$10$", "$2$10$a", "$1$10$a"] {
        let hash = format!("{prefix}{}", &HASH[7..]);
        assert_eq!(valid(&with(&hash)).users["alice"], hash);
    }
    for (hash, problem) in [
        (String::new(), "hashedSecret too short to be a bcrypted password"),
        ("doe".to_owned(), "hashedSecret too short to be a bcrypted password"),
        (HASH[..58].to_owned(), "hashedSecret too short to be a bcrypted password"),
        (HASH.replace("$10$", "$99$"), "cost 99 is outside allowed inclusive range 4..31"),
        (HASH.replace("$10$", "$03$"), "cost 3 is outside allowed inclusive range 4..31"),
        (HASH.replace("$10$", "$x0$"), "the cost is not a number"),
        (
            HASH.replace("$2y", "$3y"),
            "bcrypt algorithm version '3' requested is newer than current version '2'",
        ),
        ("x".repeat(60), "bcrypt hashes must start with '$'"),
        ("é".repeat(60), "bcrypt hashes must start with '$'"),
        (format!("$2yé{}", "é".repeat(60)), "the cost is not a number"),
    ] {
        assert_eq!(error(&with(&hash)), format!("user \"alice\": crypto/bcrypt: {problem}"), "{hash}");
    }
}

#[test]
fn limits_without_an_interval_are_none() {
    let limit = |interval: &str, burst: &str| {
        valid(&format!("rate_limit: {{interval: {interval}, burst: {burst}}}")).rate_limit
    };
    assert_eq!(limit("0", "0"), None);
    assert_eq!(limit("-1s", "5"), None);
    let interval = Duration::from_secs(1);
    for (text, burst) in [("0", 0), ("-5", 0), ("5", 5)] {
        assert_eq!(limit("1s", text), Some(RateLimit { interval, burst }));
    }
    assert_eq!(valid("rate_limit: {interval: 1s}").rate_limit, Some(RateLimit { interval, burst: 0 }));
}

#[test]
fn tls_needs_a_certificate_and_a_key() {
    let refused = |settings: &str| error(&format!("tls_server_config: {{{settings}}}"));
    for settings in
        ["cert_file: '', key: x", "cert: '', key_file: x", "client_auth_type: x", "client_ca: x", "key: x"]
    {
        assert_eq!(refused(settings), "missing one of cert or cert_file", "{settings}");
    }
    for settings in ["cert: x", "cert: x, key_file: ''", "cert_file: /dev/null, key: ~"] {
        assert_eq!(refused(settings), "missing one of key or key_file", "{settings}");
    }
    assert_eq!(valid("tls_server_config: {min_version: TLS13, client_allowed_sans: [x]}").tls, None);
}

#[test]
fn files_have_to_exist_and_win_over_inline_texts() {
    let refused = |settings: &str| error(&format!("tls_server_config: {{{settings}}}"));
    assert_eq!(
        refused("cert_file: c.pem, cert: x, key_file: k.pem"),
        "failed to read cert_file (/nonexistent/c.pem): open /nonexistent/c.pem: no such file or directory"
    );
    assert_eq!(
        refused("cert: x, key_file: /nonexistent/k.pem, key: x"),
        "failed to read key_file (/nonexistent/k.pem): open /nonexistent/k.pem: no such file or directory"
    );
    let tls = valid("tls_server_config: {cert_file: /dev/null, cert: x, key: k}").tls.expect("TLS");
    assert_eq!((tls.certificate, tls.key), (Pem::File("/dev/null".into()), Pem::Inline("k".into())));
}

#[test]
fn clients_are_checked_after_the_certificate() {
    let tls = |settings: &str| checked(&format!("tls_server_config: {{cert: c, key: k, {settings}}}"));
    for (word, mode) in [
        ("NoClientCert", ClientAuth::NoClientCert),
        ("RequestClientCert", ClientAuth::RequestClientCert),
        ("RequireAnyClientCert", ClientAuth::RequireAnyClientCert),
        ("RequireClientCert", ClientAuth::RequireAnyClientCert),
        ("VerifyClientCertIfGiven", ClientAuth::VerifyClientCertIfGiven),
        ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerifyClientCert),
    ] {
        let checked = tls(&format!("client_auth_type: {word}")).expect("a valid word");
        assert!(checked.late.is_none());
        assert_eq!(checked.config.tls.expect("TLS").client_auth, mode);
    }
    for (settings, message) in [
        ("client_auth_type: Foo", "invalid ClientAuth: Foo"),
        ("client_auth_type: noclientcert", "invalid ClientAuth: noclientcert"),
        ("client_ca: x", "client CA's have been configured without a Client Auth Policy"),
        (
            "client_ca_file: /dev/null, client_auth_type: NoClientCert",
            "client CA's have been configured without a Client Auth Policy",
        ),
    ] {
        let late = tls(settings).expect("reported after the certificate").late;
        assert_eq!(late.expect("a problem").to_string(), message);
    }
}

#[test]
fn http2_needs_one_of_two_suites_below_tls_1_3() {
    let lacks = |settings: &str| {
        let config = valid(&format!("tls_server_config: {{cert: c, key: k, {settings}}}"));
        lacks_http2_cipher(&config.tls.expect("TLS"))
    };
    let lacking = "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]";
    assert!(lacks(lacking));
    assert!(!lacks(&format!("{lacking}, min_version: TLS13")));
    assert!(!lacks("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]"));
    assert!(!lacks("cipher_suites: []"));
}

#[test]
fn headers_come_before_hashes_and_hashes_before_tls() {
    let mut text = "tls_server_config: {client_auth_type: x}\n".to_owned();
    assert_eq!(error(&text), "missing one of cert or cert_file");
    text.push_str("basic_auth_users: {john: doe}\n");
    assert!(error(&text).contains("too short"));
    text.push_str("http_server_config: {headers: {Content-Type: foo}}\n");
    assert!(error(&text).contains("can not be configured"));
}
