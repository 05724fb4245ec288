//! The web configuration file: what is accepted and refused at the start, and reloads.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Gateway, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// A web configuration in a folder of its own.
struct WebConfigFile {
    folder: TempDir,
}

impl WebConfigFile {
    fn new(text: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().expect("a folder") };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a file");
    }

    fn flag(&self) -> String {
        format!("--web.config.file={}", self.path().display())
    }
}

/// Both programs. `SLUICEGATE_TEST_PROGRAM` selects the one to test.
mod cases {
    use super::*;

    #[derive(Debug)]
    enum Outcome {
        /// Plain HTTP.
        Plain,
        /// The program ends, and its log contains the text.
        Refused(&'static str),
    }
    use Outcome::{Plain, Refused};

    /// In the texts, `FOLDER` is the folder of the file.
    const CASES: &[(&str, &str, Outcome)] = &[
        ("empty", "", Plain),
        ("comments", "# nothing\n", Plain),
        ("null", "~", Plain),
        ("an empty map", "{}", Plain),
        ("empty sections", "tls_server_config:\nbasic_auth_users: {}\n", Plain),
        ("a byte order mark", "\u{feff}{}\n", Plain),
        ("a second document", "{}\n---\n- [broken\n", Plain),
        ("junk", "junk words", Refused("line 1: cannot unmarshal !!str")),
        (
            "a list",
            "- a\n",
            Refused("yaml: unmarshal errors:\n  line 1: cannot unmarshal !!seq into web.Config"),
        ),
        (
            "an unknown key",
            "tls_server_config:\n  cert_filse: x\n",
            Refused("line 2: field cert_filse not found in type web.TLSConfig"),
        ),
        (
            "a repeated key",
            "basic_auth_users: {}\nbasic_auth_users: {}\n",
            Refused("line 2: field basic_auth_users already set in type web.Config"),
        ),
        (
            "a repeated user",
            "basic_auth_users:\n  a: x\n  a: x\n",
            Refused("line 3: key \"a\" already set in map"),
        ),
        (
            "a tab as indentation",
            "tls_server_config:\n\tcert: x\n",
            Refused("yaml: line 2: found character that cannot start any token"),
        ),
        ("http2 as yes", "http_server_config: {http2: yes}", Plain),
        ("http2 as y", "http_server_config: {http2: y}", Plain),
        ("http2 as off", "http_server_config: {http2: off}", Plain),
        (
            "http2 as text",
            "http_server_config: {http2: \"false\"}",
            Refused("line 1: cannot unmarshal !!str `false` into bool"),
        ),
        (
            "http2 as a number",
            "http_server_config: {http2: 1}",
            Refused("line 1: cannot unmarshal !!int `1` into bool"),
        ),
        ("a limit of zero", "rate_limit: {interval: 0, burst: 0}", Plain),
        ("a negative interval", "rate_limit: {interval: -1s, burst: 0}", Plain),
        (
            "an interval in days",
            "rate_limit: {interval: 1d}",
            Refused("line 1: cannot unmarshal !!str `1d` into time.Duration"),
        ),
        ("a whole burst", "rate_limit: {burst: 2.0}", Plain),
        (
            "a burst as text",
            "rate_limit: {burst: \"2\"}",
            Refused("line 1: cannot unmarshal !!str `2` into int"),
        ),
        ("anchors and merges", "http_server_config: &h {http2: no}\nrate_limit: {<<: {burst: 1}}\n", Plain),
        ("only versions of TLS", "tls_server_config: {min_version: TLS13, client_allowed_sans: []}", Plain),
        ("an empty certificate", "tls_server_config: {cert_file: \"\"}", Plain),
        (
            "no certificate file, but a key",
            "tls_server_config: {cert_file: \"\", key_file: x}",
            Refused("missing one of cert or cert_file"),
        ),
        (
            "no certificate, but a key",
            "tls_server_config: {cert: \"\", key: x}",
            Refused("missing one of cert or cert_file"),
        ),
        (
            "no key file, but a certificate",
            "tls_server_config: {cert_file: x, key_file: \"\"}",
            Refused("missing one of key or key_file"),
        ),
        (
            "no key, but a certificate",
            "tls_server_config: {cert: x, key: \"\"}",
            Refused("missing one of key or key_file"),
        ),
        (
            "neither, but a policy for clients",
            "tls_server_config: {client_auth_type: x}",
            Refused("missing one of cert or cert_file"),
        ),
        (
            "a certificate file that does not exist",
            "tls_server_config: {cert_file: c.pem, key_file: k.pem}",
            Refused("failed to read cert_file (FOLDER/c.pem): open FOLDER/c.pem: no such file or directory"),
        ),
        (
            "a key file that does not exist",
            "tls_server_config: {cert_file: web.yml, key_file: k.pem}",
            Refused("failed to read key_file (FOLDER/k.pem): open FOLDER/k.pem: no such file or directory"),
        ),
        (
            "a user without a hash",
            "basic_auth_users: {john: doe}",
            Refused("crypto/bcrypt: hashedSecret too short to be a bcrypted password"),
        ),
        (
            "a hash with a wrong cost",
            "basic_auth_users: {a: $2y$99$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}",
            Refused("crypto/bcrypt: cost 99 is outside allowed inclusive range 4..31"),
        ),
        (
            "a hash of a new version",
            "basic_auth_users: {a: $3y$10$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}",
            Refused(
                "crypto/bcrypt: bcrypt algorithm version '3' requested is newer than current version '2'",
            ),
        ),
        (
            "an unknown cipher suite",
            "tls_server_config: {cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA2048]}",
            Refused("unknown cipher: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA2048"),
        ),
        (
            "a cipher suite without forward secrecy",
            "tls_server_config: {cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]}",
            Refused("unknown cipher: TLS_RSA_WITH_AES_128_GCM_SHA256"),
        ),
        (
            "an unknown curve",
            "tls_server_config: {curve_preferences: [CurveP257]}",
            Refused("unknown curve: CurveP257"),
        ),
        (
            "an unknown version",
            "tls_server_config: {min_version: TLS111}",
            Refused("unknown TLS version: TLS111"),
        ),
        (
            "another header",
            "http_server_config: {headers: {Content-Type: foo}}",
            Refused("HTTP header \"Content-Type\" can not be configured"),
        ),
        (
            "another value of X-Content-Type-Options",
            "http_server_config: {headers: {X-Content-Type-Options: sniff}}",
            Refused(
                "invalid value for X-Content-Type-Options. Expected one of: [\"nosniff\"], but got: \"sniff\"",
            ),
        ),
        (
            "another value of X-Frame-Options",
            "http_server_config: {headers: {X-Frame-Options: foo}}",
            Refused(
                "invalid value for X-Frame-Options. Expected one of: [\"deny\" \"sameorigin\"], but got: \"foo\"",
            ),
        ),
    ];

    /// The log without the escapes of quoted values.
    fn unquoted(log: &str) -> String {
        log.replace("\\\"", "\"").replace("\\n", "\n")
    }

    #[test]
    fn are_accepted_or_refused() {
        for (what, text, outcome) in CASES {
            let file = WebConfigFile::new(text);
            match outcome {
                Plain => {
                    let gateway = Gateway::start(&[&file.flag()]);
                    for line in ["msg=\"Listening on\"", "msg=\"TLS is disabled.\" http2=false"] {
                        wait_for(line, PATIENCE, || gateway.log().contains(line).then_some(()));
                    }
                    assert_eq!(gateway.get("/-/healthy").status, 200, "{what}");
                }
                Refused(message) => {
                    let (_, log) = Gateway::fails_to_start(&[&file.flag()]);
                    let folder = file.folder.path().display().to_string();
                    let message = message.replace("FOLDER", &folder);
                    assert!(unquoted(&log).contains(&message), "{what}: {message} in {log}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_does_not_exist_is_refused() {
        let (_, log) = Gateway::fails_to_start(&["--web.config.file=/nonexistent/web.yml"]);
        assert!(log.contains("open /nonexistent/web.yml: no such file or directory"), "{log}");
    }

    #[test]
    fn paths_are_relative_to_the_folder_of_the_file() {
        let file = WebConfigFile::new("tls_server_config: {cert_file: c.pem, key_file: k.pem}");
        let elsewhere = format!("cd '{}/..' && exec \"$@\"", file.folder.path().display());
        let name = file.folder.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        let flag = format!("--web.config.file={name}/web.yml");
        let (_, log) = Gateway::fails_to_start_by(&["sh", "-c", &elsewhere, "sh"], &[&flag]);
        let message =
            format!("failed to read cert_file ({name}/c.pem): open {name}/c.pem: no such file or directory");
        assert!(log.contains(&message), "{message} in {log}");
    }
}

fn reload_successful(gateway: &Gateway) -> f64 {
    let exposition = gateway.scrape();
    let value = exposition.value("sluicegate_web_config_reload_successful", &[]);
    value.expect("the gauge exists").parse().expect("a number")
}

fn wait_for_reload_successful(gateway: &Gateway, expected: f64) {
    let what = format!("sluicegate_web_config_reload_successful {expected}");
    wait_for(&what, PATIENCE, || (reload_successful(gateway) == expected).then_some(()));
}

#[test]
fn an_invalid_file_ends_the_program_before_it_binds_a_port() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket has an address");
    let file = WebConfigFile::new("basic_auth_users: {john: doe}");
    let listen = format!("--web.listen-address={address}");
    let (status, log) = Gateway::fails_to_start(&[&listen, &file.flag()]);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("too short to be a bcrypted password"), "{log}");
    let (_, log) = Gateway::fails_to_start(&[&listen]);
    assert!(log.contains("cannot listen on"), "{log}");
}

#[test]
fn a_gateway_without_a_file_has_no_metrics_about_it() {
    let gateway = Gateway::start(&[]);
    assert!(!gateway.get("/metrics").text().contains("sluicegate_web_config"));
}

#[test]
fn a_file_that_becomes_invalid_is_reported_once_and_can_be_repaired() {
    let file = WebConfigFile::new("");
    let gateway = Gateway::start(&[&file.flag()]);
    assert_eq!(reload_successful(&gateway), 1.0);
    let time = "sluicegate_web_config_reload_success_timestamp_seconds";
    let time =
        || gateway.scrape().value(time, &[]).expect("the gauge exists").parse::<f64>().expect("a number");
    let begun = time();
    assert!(begun > 1e9, "{begun}");
    file.write("SECRET: [");
    wait_for_reload_successful(&gateway, 0.0);
    // Requests are answered as before, and a second look at the same content reports nothing.
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_eq!(time(), begun);
    file.write("{}");
    wait_for_reload_successful(&gateway, 1.0);
    assert!(time() > begun);
    let log = gateway.log_with("Unable to parse configuration");
    assert_eq!(log.matches("Unable to parse configuration").count(), 1, "{log}");
    assert!(!log.contains("SECRET"), "{log}");
}

#[test]
fn sighup_reads_the_file_again() {
    let file = WebConfigFile::new("");
    let mut gateway = Gateway::start(&[&file.flag()]);
    let reloads = || gateway.log().matches("web configuration reloaded").count();
    assert_eq!(reloads(), 0);
    gateway.signal(Signal::HUP);
    wait_for("a reload", PATIENCE, || (reloads() == 1).then_some(()));
    assert_eq!(gateway.get("/-/healthy").status, 200);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn changes_that_need_a_restart_are_reported() {
    let file = WebConfigFile::new("");
    let gateway = Gateway::start(&[&file.flag()]);
    file.write("tls_server_config: {cert: x, key: x}\n");
    wait_for("a warning", PATIENCE, || gateway.log().contains("but TLS stays disabled").then_some(()));
    assert_eq!(gateway.get("/-/healthy").status, 200);
}
