//! Reloads of headers and users. `SLUICEGATE_TEST_PROGRAM` selects the program for `cases`, which describe both.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Gateway, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);
/// A hash of `secret` with the lowest cost.
const HASH: &str = "$2a$04$Bn5ewVJCsbGoWeP9eIxWmOLMYwA9ZMfIvbtId1PIEhWPqxelUsnCS";
/// `alice:secret` and `bob:secret` in base64.
const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
const BOB: &str = "Basic Ym9iOnNlY3JldA==";

struct Running {
    folder: TempDir,
    gateway: Gateway,
}

impl Running {
    /// Starts a gateway with an empty file, because it has to become ready without a password.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.yml");
        fs::write(&path, "").expect("a file");
        let gateway = Gateway::start(&[&format!("--web.config.file={}", path.display())]);
        Self { folder, gateway }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    /// Replaces the file by a rename, so that no program sees it half written.
    fn replace(&self, text: &str) {
        let new = self.folder.path().join("new.yml");
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.path()).expect("the file is replaced");
    }

    fn status(&self, authorization: Option<&str>) -> u16 {
        let headers: Vec<_> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
        self.gateway.request("GET", "/-/healthy", &headers, b"").status
    }

    fn wait_for_status(&self, authorization: Option<&str>, status: u16) {
        let what = format!("{status} for {authorization:?}");
        wait_for(&what, PATIENCE, || (self.status(authorization) == status).then_some(()));
    }
}

fn users(names: &[&str]) -> String {
    let lines: Vec<String> = names.iter().map(|name| format!("  {name}: {HASH}\n")).collect();
    format!("basic_auth_users:\n{}", lines.concat())
}

mod cases {
    use super::*;

    #[test]
    fn users_come_and_go_with_the_file() {
        let running = Running::start();
        assert_eq!(running.status(None), 200);
        running.replace(&users(&["alice"]));
        running.wait_for_status(None, 401);
        assert_eq!((running.status(Some(ALICE)), running.status(Some(BOB))), (200, 401));
        running.replace(&users(&["alice", "bob"]));
        running.wait_for_status(Some(BOB), 200);
        assert_eq!(running.status(Some(ALICE)), 200);
        running.replace(&users(&["bob"]));
        running.wait_for_status(Some(ALICE), 401);
        assert_eq!(running.status(Some(BOB)), 200);
        // Another hash of the same user: the old password is not accepted from a cache.
        let last = HASH.chars().last().expect("a hash");
        let other = format!("{}{}", &HASH[..HASH.len() - 1], if last == 'a' { 'b' } else { 'a' });
        running.replace(&format!("basic_auth_users: {{bob: {other}}}\n"));
        running.wait_for_status(Some(BOB), 401);
        running.replace("");
        running.wait_for_status(None, 200);
    }

    #[test]
    fn headers_come_and_go_with_the_file() {
        let running = Running::start();
        let header = || running.gateway.get("/-/healthy").header("x-frame-options").map(str::to_owned);
        assert_eq!(header(), None);
        for value in ["deny", "sameorigin"] {
            running.replace(&format!("http_server_config: {{headers: {{X-Frame-Options: {value}}}}}\n"));
            wait_for(value, PATIENCE, || (header().as_deref() == Some(value)).then_some(()));
        }
        running.replace("");
        wait_for("no header", PATIENCE, || header().is_none().then_some(()));
    }

    #[test]
    fn a_rate_limit_that_is_added_later_is_ignored() {
        let running = Running::start();
        let limit = "rate_limit: {interval: 1h, burst: 0}\n";
        running.replace(&format!("{limit}http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n"));
        wait_for("the header", PATIENCE, || {
            running.gateway.get("/-/healthy").header("x-frame-options").map(drop)
        });
        assert_eq!(running.status(None), 200);
    }
}

#[test]
fn an_invalid_change_keeps_users_and_headers() {
    let running = Running::start();
    let valid = format!("http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n{}", users(&["alice"]));
    running.replace(&valid);
    running.wait_for_status(None, 401);
    for invalid in ["broken: [", "basic_auth_users: {alice: x}", "http_server_config: {headers: {A: b}}"] {
        let errors = || running.gateway.log().matches("Unable to parse configuration").count();
        let before = errors();
        running.replace(invalid);
        wait_for("the error in the log", PATIENCE, || (errors() > before).then_some(()));
        assert_eq!((running.status(Some(ALICE)), running.status(None)), (200, 401), "{invalid}");
        let response = running.gateway.request("GET", "/-/healthy", &[("Authorization", ALICE)], b"");
        assert_eq!(response.header("x-frame-options"), Some("deny"), "{invalid}");
    }
    running.replace(&users(&["bob"]));
    running.wait_for_status(Some(BOB), 200);
    assert_eq!(running.status(Some(ALICE)), 401);
}

#[test]
fn sighup_applies_a_change() {
    let running = Running::start();
    running.replace(&users(&["alice"]));
    running.gateway.signal(Signal::HUP);
    running.wait_for_status(None, 401);
    assert_eq!(running.status(Some(ALICE)), 200);
}
