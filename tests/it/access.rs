//! Users, response headers and the rate limit of the web configuration file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use tempfile::TempDir;

use crate::support::exposition::Exposition;
use crate::support::gateway::Gateway;
use crate::support::http_client::Response;
use crate::support::wait_for;

/// A gateway with a web configuration file.
struct Guarded {
    gateway: Gateway,
    _folder: TempDir,
}

impl Guarded {
    fn start(config: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file: PathBuf = folder.path().join("web.yml");
        std::fs::write(&file, config).expect("the folder is writable");
        let flag = format!("--web.config.file={}", file.display());
        let flags: Vec<&str> = std::iter::once(flag.as_str()).chain(flags.iter().copied()).collect();
        Self { gateway: Gateway::start(&flags), _folder: folder }
    }

    fn get(&self, path: &str, authorization: &[&str]) -> Response {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
        self.gateway.request("GET", path, &headers, b"")
    }

    /// How many requests were rejected for a reason, as `alice` sees it.
    fn rejections(&self, reason: &str) -> f64 {
        let scrape = self.get("/metrics", &[&basic("alice", b"wonderland")]).text();
        let scrape = Exposition::parse(&scrape).expect("a valid exposition");
        let count = scrape.value("sluicegate_access_refusals_total", &[("reason", reason)]);
        count.expect("a count").parse().expect("a number")
    }

    fn status(&self, name: &str, password: &[u8]) -> u16 {
        self.get("/-/healthy", &[&basic(name, password)]).status
    }
}

/// The hash of a password with the least cost, which differs from password to password.
fn hash_of(password: &[u8]) -> String {
    let base64 = GeneralPurpose::new(&BCRYPT, NO_PAD);
    let (salt, mut bytes) = (*b"abcdefghijklmnop", password.to_vec());
    bytes.push(0);
    bytes.truncate(72);
    let digest = bcrypt::bcrypt(4, salt, &bytes);
    format!("$2y$04${}{}", base64.encode(salt), base64.encode(&digest[..23]))
}

fn basic(name: &str, password: &[u8]) -> String {
    format!("Basic {}", STANDARD.encode([name.as_bytes(), b":", password].concat()))
}

fn two_users() -> String {
    format!("basic_auth_users:\n  alice: {}\n  bob: {}\n", hash_of(b"wonderland"), hash_of(b"builder"))
}

#[test]
fn only_the_right_password_of_a_user_is_accepted() {
    let guarded = Guarded::start(&two_users(), &[]);
    let before = guarded.rejections("unauthorized");
    // Twice, because the second result is known.
    for _ in 0..2 {
        assert_eq!(guarded.status("alice", b"wonderland"), 200);
        assert_eq!(guarded.status("bob", b"builder"), 200);
        assert_eq!(guarded.status("alice", b"builder"), 401);
        assert_eq!(guarded.status("carol", b"wonderland"), 401);
        assert_eq!(guarded.status("alice", b""), 401);
        assert_eq!(guarded.status("", b"wonderland"), 401);
    }
    let response = guarded.get("/metrics", &[]);
    assert_eq!(response.status, 401);
    assert_eq!(response.header("www-authenticate"), Some("Basic"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(response.text(), "Unauthorized\n");

    assert_eq!(guarded.rejections("unauthorized") - before, 9.0);
}

#[test]
fn passwords_may_contain_any_bytes_and_are_cut_after_72() {
    let long = [b'x'; 100];
    let config = format!(
        "basic_auth_users:\n  long: {}\n  nul: {}\n  \"\": {}\n",
        hash_of(&long),
        hash_of(b"a\0b"),
        hash_of(b"\xff:")
    );
    let guarded = Guarded::start(&config, &[]);
    assert_eq!(guarded.status("long", &long), 200);
    assert_eq!(guarded.status("long", &long[..72]), 200);
    assert_eq!(guarded.status("long", &long[..71]), 401);
    assert_eq!(guarded.status("nul", b"a\0b"), 200);
    assert_eq!(guarded.status("nul", b"a"), 401);
    assert_eq!(guarded.status("", b"\xff:"), 200, "an empty name is a name");
}

#[test]
fn the_authorization_header_is_read_as_in_go() {
    let guarded = Guarded::start(&format!("basic_auth_users:\n  a: {}\n", hash_of(b"b:c")), &[]);
    let status = |values: &[&str]| guarded.get("/metrics", values).status;
    assert_eq!(status(&["Basic YTpiOmM="]), 200);
    assert_eq!(status(&["bASIC YTpiOmM="]), 200);
    assert_eq!(status(&["Basic YTpiOmM=", "Bearer x"]), 200, "the first one counts");
    assert_eq!(status(&["Bearer x", "Basic YTpiOmM="]), 401, "the first one counts");
    for wrong in ["Basic YTpiOmM", "Basic  YTpiOmM=", "Basic YWI=", "Basic", "Bearer YTpiOmM=", "YTpiOmM="] {
        assert_eq!(status(&[wrong]), 401, "{wrong}");
    }
}

#[test]
fn everything_is_behind_the_password() {
    let guarded = Guarded::start(&two_users(), &["--web.enable-lifecycle", "--web.enable-admin-api"]);
    let paths = [
        "/",
        "/status",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/-/quit",
        "/api/v1/status",
        "/api/v1/metrics",
        "/api/v1/groups",
        "/api/v1/admin/wipe",
        "/metrics/job/a",
        "//metrics",
        "/unknown",
        "/static/x",
    ];
    for path in paths {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"] {
            let response = guarded.gateway.request(method, path, &[], b"");
            assert_eq!(response.status, 401, "{method} {path}");
        }
    }
    // A push that was refused changed nothing, and its body was not needed.
    let body = "m 1\n".repeat(100_000);
    assert_eq!(guarded.gateway.put("/metrics/job/a", &body).status, 401);
    let right = basic("alice", b"wonderland");
    assert!(!guarded.get("/metrics", &[&right]).text().contains("job=\"a\""));
    let headers = [("authorization", right.as_str())];
    assert_eq!(guarded.gateway.request("PUT", "/metrics/job/a", &headers, b"m 1\n").status, 200);
    assert!(guarded.get("/metrics", &[&right]).text().contains("m{instance=\"\",job=\"a\"} 1\n"));
}

#[test]
fn many_logins_at_once_get_their_own_responses() {
    let guarded = Guarded::start(&two_users(), &[]);
    std::thread::scope(|scope| {
        for at in 0..300 {
            let guarded = &guarded;
            scope.spawn(move || {
                let (password, status) =
                    if at % 2 == 0 { (&b"wonderland"[..], 200) } else { (&b"wrong"[..], 401) };
                assert_eq!(guarded.status("alice", password), status);
            });
        }
    });
}

#[test]
fn guesses_beyond_the_queue_are_503_and_known_passwords_still_work() {
    let hash = hash_of(b"wonderland").replace("$04$", "$14$");
    let config = format!("basic_auth_users:\n  slow: {hash}\n  alice: {}\n", hash_of(b"wonderland"));
    let guarded = Guarded::start(&config, &[]);
    assert_eq!(guarded.status("alice", b"wonderland"), 200);
    let guess = |at: u32| basic("slow", &at.to_be_bytes());
    let mut connections: Vec<_> = (0..100).map(|_| guarded.gateway.connect()).collect();
    for (at, connection) in (0..).zip(&mut connections) {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", guess(at));
        connection.send(head.as_bytes()).expect("the gateway reads");
    }
    // Beyond the share of one address they are refused at once; the others wait for the thread.
    wait_for("the refusals", Duration::from_secs(20), || (guarded.rejections("busy") > 30.0).then_some(()));
    let response = guarded.get("/metrics", &[&guess(100)]);
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(guarded.status("alice", b"wonderland"), 200, "a known password needs no place in the queue");
}

#[test]
fn the_configured_headers_are_in_every_response() {
    let config = format!(
        "{}http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=1\n    X-XSS-Protection: 1\n    \
         X-Content-Type-Options: nosniff\n    X-Frame-Options: deny\n    Content-Security-Policy: \"default-src 'none'\"\n",
        two_users()
    );
    let guarded = Guarded::start(&config, &[]);
    let right = basic("alice", b"wonderland");
    for (path, authorization, status) in [
        ("/metrics", Some(&right), 200),
        ("/unknown", Some(&right), 404),
        ("//metrics", Some(&right), 301),
        ("/metrics", None, 401),
    ] {
        let response = guarded.get(path, &authorization.map(String::as_str).into_iter().collect::<Vec<_>>());
        assert_eq!(response.status, status);
        for (name, value) in [
            ("strict-transport-security", "max-age=1"),
            ("x-xss-protection", "1"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "deny"),
            ("content-security-policy", "default-src 'none'"),
        ] {
            assert_eq!(response.header(name), Some(value), "{path}: {name}");
        }
    }
}

#[test]
fn the_rate_limit_comes_before_the_password_and_without_the_headers() {
    let config = format!(
        "{}rate_limit:\n  interval: 1h\n  burst: 2\nhttp_server_config:\n  headers:\n    X-XSS-Protection: 1\n",
        two_users()
    );
    // The start of a gateway may need requests, so the limit is not used up by it: count what is left.
    let guarded = Guarded::start(&config, &[]);
    let statuses: BTreeSet<u16> = (0..5).map(|_| guarded.get("/metrics", &[]).status).collect();
    assert!(statuses.is_subset(&BTreeSet::from([401, 429])), "{statuses:?}");
    let response = guarded.get("/metrics", &[&basic("alice", b"wonderland")]);
    assert_eq!((response.status, response.text().as_str()), (429, "Too Many Requests\n"));
    assert_eq!(response.header("x-xss-protection"), None);
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn a_rate_limit_without_burst_refuses_everything_and_one_without_interval_nothing() {
    let guarded = Guarded::start("rate_limit:\n  interval: 1s\n", &[]);
    assert_eq!(guarded.get("/-/healthy", &[]).status, 429);
    let guarded = Guarded::start("rate_limit:\n  interval: 0\n  burst: 0\n", &[]);
    for _ in 0..11 {
        assert_eq!(guarded.get("/-/healthy", &[]).status, 200);
    }
    let guarded = Guarded::start("rate_limit:\n  interval: 10ms\n  burst: 1\n", &[]);
    // The start has used the first token, or has not.
    guarded.get("/-/healthy", &[]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(guarded.get("/-/healthy", &[]).status, 200, "there is a token again");
}
