//! The checker finds faults: a proxy in front of a correct gateway makes one kind of error, and the load test must report it.
//!
//! The correct gateway is a small reference implementation, or the program in `SLUICEGATE_LOADTEST_GATEWAY`. No test here
//! asserts a latency.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use support::faulty_proxy::{Fault, FaultyProxy};
use support::reference_gateway;

/// Runs the load test against a port. Returns its exit status and its JSON summary.
fn loadtest(scenario: &str, port: u16, flags: &[&str]) -> (i32, serde_json::Value) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_sluicegate-loadtest"))
        .args([scenario, "--json", "--seed=7", "--target", &format!("http://127.0.0.1:{port}")])
        .args(flags)
        .output()
        .expect("the program starts");
    let json = serde_json::from_slice(&stdout);
    let code = status.code().expect("no signal ended the program");
    (code, json.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr))))
}

const SMALL_LOAD: [&str; 6] = [
    "--duration=20s",
    "--count=3000",
    "--connections=4",
    "--groups=3",
    "--scrape-interval=3ms",
    "--scrapers=2",
];

fn violation_kinds(json: &serde_json::Value) -> Vec<String> {
    let violations = json["findings"]["violations"].as_array().expect("findings");
    violations.iter().map(|violation| violation["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[test]
fn a_correct_gateway_passes() {
    for scenario in ["contention", "mixed", "churn", "fleet", "steady"] {
        let proxy = FaultyProxy::start(reference_gateway::start(), Fault::None);
        let (code, json) = loadtest(scenario, proxy.port, &SMALL_LOAD);
        assert_eq!(code, 0, "{scenario}: {json:#}");
        assert!(json["findings"]["observations"].as_u64() > Some(0), "{json:#}");
        assert_eq!(json["findings"]["undecided"], 0, "{json:#}");
    }
}

/// Timing decides how a fault shows, so several kinds fit one fault.
#[test]
fn every_fault_is_reported_with_a_fitting_kind_and_a_story() {
    let lost = &["lost push", "stale state", "partial push", "revived group", "wrong push time"][..];
    let faults = [
        (Fault::DropPush, lost),
        (Fault::DelayPush, lost),
        (Fault::SplitPush, &["partial push", "stale state"]),
        (Fault::RepeatPush, &["stale state", "revived group", "wrong push time", "partial push"]),
        // It may also bring back what a later push had replaced.
        (Fault::ReviveGroup, &["revived group", "stale state", "wrong push time"]),
        (Fault::ChangeType, &["wrong type"]),
        (Fault::TurnBackTime, &["wrong push time"]),
        (Fault::AcceptInvalid, &["invalid push accepted"]),
        (Fault::OmitLine, &["partial push"]),
        (Fault::ShowRejected, &["rejected push visible"]),
    ];
    for (fault, fitting) in faults {
        let proxy = FaultyProxy::start(reference_gateway::start(), fault);
        let (code, json) = loadtest("contention", proxy.port, &SMALL_LOAD);
        let found = violation_kinds(&json);
        assert_eq!(code, 1, "{fault:?} passes: {json:#}");
        assert!(
            found.iter().any(|kind| fitting.contains(&kind.as_str())),
            "{fault:?} is reported as {found:?}"
        );
        let violations = json["findings"]["violations"].as_array().expect("violations");
        let has_story =
            |violation: &serde_json::Value| !violation["story"].as_array().expect("a story").is_empty();
        assert!(violations.iter().all(has_story));
        eprintln!("{fault:?}: {} violations, {found:?}", json["findings"]["violations_total"]);
    }
}

#[test]
fn a_run_ends_on_time_if_the_gateway_goes_away() {
    for scenario in ["contention", "mixed"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let gateway = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the readiness check connects");
            drop(listener);
            let bytes = stream.read(&mut [0; 4096]).expect("a request");
            assert!(bytes > 0);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .expect("the load test waits for the response");
        });
        let (_, json) = loadtest(scenario, port, &["--duration=300ms", "--count=30000"]);
        gateway.join().expect("the gateway thread does not panic");
        let not_sent = json["counts"]["not_sent"].as_u64().expect("a count");
        assert!((1..30_000).contains(&not_sent), "{scenario}: {json:#}");
    }
}

#[test]
fn an_endless_response_counts_as_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // The thread ends with the process of the test.
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
fn a_target_on_another_machine_must_be_confirmed() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate-loadtest"))
        .args(["steady", "--target=http://192.0.2.1:9091", "--duration=1s"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--target-is-mine"));
}
