//! The checker can fail: gateways made wrong on purpose, by a proxy in front of one that is right.
//!
//! The right one is the smallest gateway that can be told at sight to be right, and by `SLUICEGATE_LOADTEST_GATEWAY=PROGRAM` the real
//! one. Nothing here asserts a time.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use support::model;
use support::proxy::{Fault, Proxy};

/// Runs the program against a port; gives its status and its JSON.
fn loadtest(scenario: &str, port: u16, more: &[&str]) -> (i32, serde_json::Value) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_sluicegate-loadtest"))
        .args([scenario, "--json", "--seed=7", "--target", &format!("http://127.0.0.1:{port}")])
        .args(more)
        .output()
        .expect("the program starts");
    let json = serde_json::from_slice(&stdout);
    let code = status.code().expect("it ends by itself");
    (code, json.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr))))
}

const SMALL: [&str; 6] = [
    "--duration=20s",
    "--count=3000",
    "--connections=4",
    "--groups=3",
    "--scrape-interval=3ms",
    "--scrapers=2",
];

fn kinds(json: &serde_json::Value) -> Vec<String> {
    let violations = json["findings"]["violations"].as_array().expect("findings");
    violations.iter().map(|violation| violation["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[test]
fn a_gateway_that_is_right_passes() {
    for scenario in ["contention", "mixed", "churn", "fleet", "steady"] {
        let proxy = Proxy::start(model::start(), Fault::None);
        let (code, json) = loadtest(scenario, proxy.port, &SMALL);
        assert_eq!(code, 0, "{scenario}: {json:#}");
        assert!(json["findings"]["sights"].as_u64() > Some(0), "{json:#}");
        assert_eq!(json["findings"]["undecided"], 0, "{json:#}");
    }
}

/// Each fault is found, under one of the names that fit it, with a history that a person can read.
#[test]
fn each_fault_is_found() {
    let faults: [(Fault, &[&str]); 10] = [
        (Fault::Drop, &["lost push", "stale", "half a push", "revived group", "push time"]),
        (Fault::Reorder, &["lost push", "stale", "half a push", "revived group", "push time"]),
        (Fault::Split, &["half a push", "stale"]),
        (Fault::Repeat, &["stale", "revived group", "push time", "half a push"]),
        // It can also bring back something that a push had replaced meanwhile.
        (Fault::Revive, &["revived group", "stale", "push time"]),
        (Fault::TwoTypes, &["two types"]),
        (Fault::TimeBack, &["push time"]),
        (Fault::TakeBad, &["bad push taken"]),
        (Fault::HalfFamily, &["half a push"]),
        (Fault::ShowRefused, &["refused push shown"]),
    ];
    for (fault, names) in faults {
        let proxy = Proxy::start(model::start(), fault);
        let (code, json) = loadtest("contention", proxy.port, &SMALL);
        let found = kinds(&json);
        assert_eq!(code, 1, "{fault:?} passes: {json:#}");
        assert!(found.iter().any(|kind| names.contains(&kind.as_str())), "{fault:?} is called {found:?}");
        let stories = json["findings"]["violations"].as_array().expect("violations");
        assert!(stories.iter().all(|violation| !violation["story"].as_array().expect("a story").is_empty()));
        eprintln!("{fault:?}: {} found, {found:?}", json["findings"]["violations_total"]);
    }
}

/// Where nobody listens any more the run ends with its time, not when the last of its requests was tried.
#[test]
fn a_gateway_that_went_away_does_not_hold_the_run() {
    for scenario in ["contention", "mixed"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let gateway = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the question whether it is ready");
            drop(listener);
            let head = stream.read(&mut [0; 4096]).expect("a request");
            assert!(head > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("it waits for that");
        });
        let (_, json) = loadtest(scenario, port, &["--duration=300ms", "--count=30000"]);
        gateway.join().expect("it does not panic");
        let tried = json["counts"]["not_sent"].as_u64().expect("a count");
        assert!((1..30_000).contains(&tried), "{scenario}: {json:#}");
    }
}

/// An answer without end is given up, not kept until memory or patience ends.
#[test]
fn an_answer_without_end_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                if number == 0 {
                    return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n")?;
                loop {
                    stream.write_all(&[b'x'; 64 << 10])?;
                }
            });
        }
    });
    let (_, json) = loadtest("steady", port, &["--duration=1s", "--connections=1", "--scrapers=0"]);
    assert!(json["counts"]["lost"].as_u64() > Some(1), "{json:#}");
}

#[test]
fn a_machine_that_is_not_this_one_must_be_confirmed() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate-loadtest"))
        .args(["steady", "--target=http://192.0.2.1:9091", "--duration=1s"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--target-is-mine"));
}
