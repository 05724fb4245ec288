//! Every row of the dialect: what is accepted means the same, and what is refused has the message of Go's `yaml.v2`.

use super::*;

fn valid(text: &str) -> FileContent {
    FileContent::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn error(text: &str) -> String {
    FileContent::parse(text.as_bytes()).expect_err(text).to_string()
}

/// The message for values of the wrong type.
fn types(problems: &[&str]) -> String {
    format!("yaml: unmarshal errors:\n  {}", problems.join("\n  "))
}

fn http2(value: &str) -> bool {
    valid(&format!("http_server_config:\n  http2: {value}\n")).http2
}

fn header(value: &str) -> String {
    valid(&format!("http_server_config: {{headers: {{X: {value}}}}}")).headers["X"].clone()
}

#[test]
fn files_without_keys_are_valid() {
    for text in ["", "\n", "# nothing\n", "{}", "---\n{}\n...\n", "\u{feff}{}"] {
        assert_eq!(valid(text), FileContent { http2: true, ..FileContent::default() }, "{text:?}");
    }
    assert_eq!(valid("~"), FileContent::default());
}

#[test]
fn another_type_at_the_top_is_an_error() {
    for (text, line, found) in [("- a\n", 1, "seq"), ("word", 1, "str"), ("\n5\n", 2, "int")] {
        assert_eq!(
            error(text),
            types(&[&format!("line {line}: cannot unmarshal !!{found} into web.Config")])
        );
    }
}

#[test]
fn a_second_document_is_ignored() {
    assert!(!valid("http_server_config: {http2: false}\n---\nbroken: [").http2);
}

#[test]
fn unknown_and_repeated_keys_are_errors() {
    for (text, message) in [
        ("tls_server_config:\n  cert_filse: x\n", "line 2: field cert_filse not found in type web.TLSConfig"),
        ("http:\n", "line 1: field http not found in type web.Config"),
        ("rate_limit: {Burst: 1}", "line 1: field Burst not found in type web.RateLimiterConfig"),
        ("http_server_config: {header: }", "line 1: field header not found in type web.HTTPConfig"),
        (
            "basic_auth_users:\nbasic_auth_users:\n",
            "line 2: field basic_auth_users already set in type web.Config",
        ),
        ("basic_auth_users:\n  a: b\n  a: b\n", "line 3: key \"a\" already set in map"),
        ("http_server_config:\n  headers:\n    1: b\n    1: b\n", "line 4: key \"1\" already set in map"),
    ] {
        assert_eq!(error(text), types(&[message]));
    }
    let both =
        ["line 1: field x not found in type web.Config", "line 2: field y not found in type web.Config"];
    assert_eq!(error("x: 1\ny: 2\n"), types(&both));
}

#[test]
fn broken_syntax_is_an_error_of_libyaml() {
    for (text, message) in [
        ("tls_server_config:\n\tcert: x\n", "yaml: line 2: found character that cannot start any token"),
        ("a: b: c\n", "yaml: mapping values are not allowed in this context"),
        ("a: *b\n", "yaml: unknown anchor 'b' referenced"),
        ("a\u{1}: b\n", "yaml: control characters are not allowed"),
    ] {
        assert_eq!(error(text), message, "{text:?}");
    }
}

#[test]
fn booleans_are_those_of_yaml_1_1() {
    assert!(["true", "yes", "on", "y", "True", "YES", "!!bool true"].into_iter().all(http2));
    assert!(!["false", "no", "off", "n", "False", "NO", "~", "", "null"].into_iter().any(http2));
    for (value, found) in
        [("\"false\"", "!!str `false`"), ("1", "!!int `1`"), ("[]", "!!seq"), ("1.5", "!!float `1.5`")]
    {
        assert_eq!(
            error(&format!("http_server_config:\n  http2: {value}\n")),
            types(&[&format!("line 2: cannot unmarshal {found} into bool")])
        );
    }
}

#[test]
fn sections_that_are_null_lose_their_defaults() {
    assert!(!valid("http_server_config:\n").http2);
    assert!(valid("tls_server_config:\nrate_limit: ~\nbasic_auth_users:\n").http2);
}

#[test]
fn texts_are_what_is_written() {
    for (value, text) in [
        ("1", "1"),
        ("true", "true"),
        ("0x10", "0x10"),
        ("2020-01-01", "2020-01-01"),
        ("~", ""),
        ("", ""),
        ("\"~\"", "~"),
        ("'it''s'", "it's"),
        ("!!binary aGVsbG8=", "hello"),
        ("!!str 5", "5"),
        ("a b", "a b"),
    ] {
        assert_eq!(header(value), text, "{value}");
    }
    let content = valid("tls_server_config:\n  key: |\n    -----BEGIN\n    x\n  cert: >-\n    a\n    b\n");
    assert_eq!((content.tls.key.as_str(), content.tls.cert.as_str()), ("-----BEGIN\nx\n", "a b"));
    assert_eq!(
        error("http_server_config: {headers: {X: [1]}}"),
        types(&["line 1: cannot unmarshal !!seq into string"])
    );
    assert_eq!(
        error("basic_auth_users: {a: {b: c}}"),
        types(&["line 1: cannot unmarshal !!map into config.plain"])
    );
}

#[test]
fn intervals_are_durations_of_go_or_nanoseconds() {
    for (value, nanoseconds) in [
        ("1s", 1_000_000_000),
        ("\"1s\"", 1_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("300ms", 300_000_000),
        ("-1s", -1_000_000_000),
        ("5", 5),
        ("1.5", 1),
        ("0", 0),
        ("~", 0),
    ] {
        let content = valid(&format!("rate_limit: {{interval: {value}}}"));
        assert_eq!(content.interval_nanoseconds, nanoseconds, "{value}");
    }
    for (value, found) in
        [("1d", "!!str `1d`"), ("yes", "!!bool `yes`"), ("1 hour long", "!!str (not shown)")]
    {
        assert_eq!(
            error(&format!("rate_limit:\n  interval: {value}\n")),
            types(&[&format!("line 2: cannot unmarshal {found} into time.Duration")])
        );
    }
}

#[test]
fn bursts_are_whole_numbers() {
    for (value, number) in [("2", 2), ("2.0", 2), ("2.7", 2), ("-3", -3), ("0x10", 16), ("~", 0)] {
        assert_eq!(valid(&format!("rate_limit: {{burst: {value}}}")).burst, number, "{value}");
    }
    for (value, found) in [("\"2\"", "!!str `2`"), ("1e30", "!!float `1e30`"), (".nan", "!!float `.nan`")] {
        assert_eq!(
            error(&format!("rate_limit: {{burst: {value}}}")),
            types(&[&format!("line 1: cannot unmarshal {found} into int")])
        );
    }
}

#[test]
fn names_of_tls_are_known() {
    let tls = |settings: &str| valid(&format!("tls_server_config: {{{settings}}}")).tls;
    assert_eq!(tls("cipher_suites: [TLS_AES_128_GCM_SHA256]").cipher_suites, [CipherSuite::Aes128GcmSha256]);
    assert_eq!(tls("curve_preferences: [X25519, CurveP521]").curve_preferences, [Curve::X25519, Curve::P521]);
    let versions = tls("min_version: TLS13, max_version: TLS10, prefer_server_cipher_suites: no");
    assert_eq!(
        (versions.min_version, versions.max_version),
        (Some(TlsVersion::Tls13), Some(TlsVersion::Tls10))
    );
    assert_eq!(tls("min_version: ~").min_version, None);
    let sans = |value: &str| tls(&format!("client_allowed_sans: {value}")).client_allowed_sans;
    assert_eq!(sans("[a, 1, ~]"), Some(vec!["a".to_owned(), "1".to_owned(), String::new()]));
    assert_eq!((sans("[]"), sans("~")), (Some(Vec::new()), None));

    let list_expected = types(&["line 1: cannot unmarshal !!str into []web.Cipher"]);
    for (setting, message) in [
        (
            "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA2048]",
            "unknown cipher: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA2048",
        ),
        (
            "cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]",
            "unknown cipher: TLS_RSA_WITH_AES_128_GCM_SHA256",
        ),
        ("curve_preferences: [CurveP257]", "unknown curve: CurveP257"),
        ("min_version: TLS111", "unknown TLS version: TLS111"),
        ("max_version: tls12", "unknown TLS version: tls12"),
        ("max_version: NULL", "unknown TLS version: "),
        ("cipher_suites: TLS_AES_128_GCM_SHA256", &list_expected),
    ] {
        assert_eq!(error(&format!("tls_server_config: {{{setting}}}")), message);
    }
}

#[test]
fn anchors_and_merges_work_as_in_yaml_1_1() {
    let content = valid(
        "http_server_config:\n  headers: &h {X: 1}\nbasic_auth_users:\n  a: &hash x\n  b: *hash\n  <<: *h\n  \
         <<: [{c: d}, {e: f}]\n",
    );
    let users: Vec<_> = content.users.iter().map(|(name, hash)| (name.as_str(), hash.as_str())).collect();
    assert_eq!(users, [("X", "1"), ("a", "x"), ("b", "x"), ("c", "d"), ("e", "f")]);
    assert!(!valid("http_server_config:\n  <<: {http2: false}\n").http2);
    assert!(valid("http_server_config:\n  <<: {http2: false}\n  http2: true\n").http2);
    assert_eq!(
        error("basic_auth_users:\n  a: x\n  <<: {a: y}\n"),
        types(&["line 3: key \"a\" already set in map"])
    );
    assert_eq!(
        error("basic_auth_users:\n  <<: x\n"),
        "yaml: map merge requires map or sequence of maps as the value"
    );
}

#[test]
fn maps_that_multiply_are_refused() {
    let levels: Vec<String> = (1..20)
        .map(|level| format!("&a{level} {{<<: [{}]}}", vec![format!("*a{}", level - 1); 9].join(", ")))
        .collect();
    let headers = "http_server_config:\n  headers: &a0 {}\n";
    let bomb = |levels: &[String]| format!("{headers}basic_auth_users:\n  <<: [{}]\n", levels.join(", "));
    assert!(valid(&bomb(&levels[..3])).users.is_empty());
    assert_eq!(error(&bomb(&levels)), "yaml: document contains excessive aliasing");
}

/// Whatever is wrong with a file, its message contains no secret.
#[test]
fn no_message_contains_a_secret() {
    let hash = "$2y$10$MARKERuserMARKERuserMARKERuserMARKERuserMARKERuserMARK";
    let file = format!(
        "tls_server_config:\n  cert: |\n    MARKER+cert=\n  key: |\n    MARKER/key==\n    MARKER/key2=\n  \
         client_ca: \"MARKER+ca\"\nhttp_server_config:\n  http2: true\nbasic_auth_users:\n  alice: {hash}\n  \
         bob: '{hash}'\nrate_limit:\n  burst: 1\n"
    );
    valid(&file);
    let mut errors = 0;
    let mut check = |text: &str| {
        if let Err(error) = FileContent::parse(text.as_bytes()) {
            errors += 1;
            assert!(!format!("{error} {error:?}").contains("MARKER"), "{error}\nfor\n{text}");
        }
    };
    let lines: Vec<&str> = file.lines().collect();
    for at in 0..lines.len() {
        for indent in 0..8 {
            let changed = format!("{}{}", " ".repeat(indent), lines[at].trim_start());
            let mut text = lines.clone();
            text[at] = &changed;
            check(&text.join("\n"));
        }
        let mut text = lines.clone();
        text.remove(at);
        check(&text.join("\n"));
    }
    for at in 0..file.len() {
        for inserted in [
            "\t", "\n", ":", "-", "*", "&", "!", "[", "}", "\"", "'", "|", "%", "@", "\0", ": ", "\n  ",
            "<<: ",
        ] {
            check(&format!("{}{inserted}{}", &file[..at], &file[at..]));
        }
    }
    for text in [
        format!("basic_auth_users: {hash}"),
        format!("{hash}: x"),
        format!("basic_auth_users: {{{hash}: x, {hash}: y}}"),
        format!("http_server_config: {{http2: {hash}}}"),
        format!("rate_limit: {{burst: {hash}, interval: {hash}}}"),
        format!("tls_server_config: {{min_version: {hash}}}"),
        format!("tls_server_config: {{cipher_suites: [{hash}]}}"),
        format!("tls_server_config: {{key: !!int {hash}}}"),
    ] {
        check(&text);
    }
    assert!(errors > 1000, "{errors}");
}
