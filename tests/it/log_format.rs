//! Log lines and flags that scripts of the official program depend on.

use std::fs;

use crate::support::Gateway;

const INCONSISTENT: &str = "pushed metrics are invalid or inconsistent with existing metrics";

/// The values of the first keys of the line with a message, as the official program names them.
fn head_of(log: &str, message: &str) -> (String, String) {
    let line = log.lines().find(|line| line.contains(&format!("msg=\"{message}\"")));
    let line = line.unwrap_or_else(|| panic!("no {message:?} in the log:\n{log}"));
    let mut words = line.split(' ');
    assert!(words.next().is_some_and(|word| word.starts_with("ts=20") && word.ends_with('Z')), "{line}");
    let level =
        words.next().and_then(|word| word.strip_prefix("level=")).expect("the level is second").to_owned();
    assert!(words.next().is_some_and(|word| word.starts_with("caller=")), "{line}");
    (level, line.to_owned())
}

#[test]
fn main_events_have_the_official_keys_and_messages() {
    let mut gateway = Gateway::start(&["--log.level=Debug"]);
    assert_eq!(gateway.put("/metrics/job/a", "# TYPE m gauge\nm 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m counter\nm 1\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/c", "m\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/d/odd", "m 1\n").status, 400);
    assert!(gateway.stop().success());
    let log = gateway.log();
    let (level, line) = head_of(&log, "Listening on");
    assert_eq!(level, "info");
    assert!(line.contains(&format!(" address=127.0.0.1:{} ", gateway.port())), "{line}");
    let (level, line) = head_of(&log, INCONSISTENT);
    assert_eq!(level, "error");
    assert!(line.contains(" method=PUT logged_source=127.0.0.1:") && line.contains(" err="), "{line}");
    for message in ["failed to parse text", "failed to parse URL"] {
        let (level, line) = head_of(&log, message);
        assert_eq!(level, "debug");
        assert!(line.contains(" err="), "{line}");
    }
    for message in ["received SIGINT/SIGTERM; exiting gracefully...", "HTTP server stopped"] {
        assert_eq!(head_of(&log, message).0, "info");
    }
}

#[test]
fn json_lines_have_the_official_keys() {
    let mut gateway = Gateway::start(&["--log.format=json"]);
    assert!(gateway.stop().success());
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("\"msg\":\"Listening on\"")).expect("the line");
    assert!(line.starts_with("{\"ts\":\"20") && line.contains("\"level\":\"info\",\"caller\":\""), "{line}");
}

#[test]
fn arguments_may_be_in_a_file_and_durations_may_have_days() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, empty) = (folder.path().join("flags"), folder.path().join("empty"));
    fs::write(&empty, "").expect("a file");
    fs::write(&file, "# comment\n--persistence.interval\n1d12h\n\n--log.level=WARN\n").expect("a file");
    let store = format!("--persistence.file={}", empty.display());
    let mut gateway = Gateway::start(&["--no-web.enable-lifecycle", &format!("@{}", file.display()), &store]);
    let flags = gateway.get("/api/v1/status").text();
    assert!(flags.contains("\"persistence.interval\":\"36h0m0s\""), "{flags}");
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert!(gateway.stop().success());
    assert!(!gateway.log().contains("level=info"), "{}", gateway.log());
    assert_eq!(fs::read(&empty).expect("the file").len(), 0, "it is never written");
}
