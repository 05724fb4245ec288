//! Requests that cost a client little and could fill memory: they stay within `--memory.in-flight-max`, and other clients are served
//! meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::http_client::{Connection, Response};
use crate::support::protobuf_fields as pb;
use crate::support::{Gateway, gzip, wait_for};

/// The budget of these tests.
const IN_FLIGHT_FLAG: &str = "--memory.in-flight-max=48MiB";
const IN_FLIGHT_BYTES: u64 = 48 << 20;
/// What the gateway needs without requests, and what the allocator keeps.
const CONSTANT_BYTES: u64 = 72 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const ATTACKERS: usize = 24;

fn gateway() -> Gateway {
    Gateway::start(&[IN_FLIGHT_FLAG, "--runtime.cores=2"])
}

/// The value of one of the gateway's own metrics without labels.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.get("/metrics").text();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("the metric exists")
}

/// Sends the same push from many clients at once, each to a group of its own.
fn attack(gateway: &Gateway, headers: &[(&str, &str)], body: &[u8]) -> Vec<u16> {
    let port = gateway.port();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..ATTACKERS)
            .map(|client| {
                scope.spawn(move || {
                    let mut connection = Connection::open(port).expect("a connection");
                    let path = format!("/metrics/job/attack/client/{client}");
                    connection.request("PUT", &path, headers, body).map(|response| response.status)
                })
            })
            .collect();
        // Others are served meanwhile.
        for _ in 0..20 {
            assert_eq!(gateway.put("/metrics/job/small", "m 1\n").status, 200);
        }
        clients.into_iter().map(|client| client.join().expect("no panic").expect("a response")).collect()
    })
}

/// Checks that memory stayed within the budget, and that nothing is reserved any more.
fn assert_within_budget(gateway: &Gateway) {
    let peak = gateway.peak_resident_bytes();
    assert!(peak <= IN_FLIGHT_BYTES + CONSTANT_BYTES, "peak {} MiB", peak >> 20);
    wait_for("the memory to be returned", PATIENCE, || {
        (metric(gateway, "sluicegate_in_flight_bytes") == 0.0).then_some(())
    });
}

fn assert_refused(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.header("retry-after").is_some());
}

#[test]
fn short_bodies_that_decode_to_much_stay_within_the_budget() {
    let gateway = gateway();
    // Lines cost the parser many times their length, empty lines nothing.
    for text in [b"m 1\n".repeat(8 << 20), vec![b'\n'; 60 << 20]] {
        let body = gzip(&text);
        assert!(body.len() < 256 << 10);
        let statuses = attack(&gateway, &[("Content-Encoding", "gzip")], &body);
        assert!(statuses.iter().all(|status| [413, 503].contains(status)), "{statuses:?}");
    }
    assert!(metric(&gateway, "sluicegate_in_flight_refusals_total") >= 1.0);
    assert_eq!(metric(&gateway, "sluicegate_in_flight_max_bytes"), IN_FLIGHT_BYTES as f64);
    assert_within_budget(&gateway);
}

#[test]
fn a_push_that_never_fits_is_413_and_names_the_flag() {
    let gateway = gateway();
    let text = vec![b'\n'; 60 << 20];
    for (headers, body) in [(&[][..], &text), (&[("Content-Encoding", "gzip")][..], &gzip(&text))] {
        let response = gateway.request("PUT", "/metrics/job/a", headers, body);
        assert_eq!(response.status, 413, "{}", response.text());
        assert!(response.text().contains("--memory.in-flight-max"), "{}", response.text());
        assert_eq!(response.header("retry-after"), None);
    }
    assert_within_budget(&gateway);
}

#[test]
fn bodies_that_expand_when_they_are_parsed_or_rendered_stay_within_the_budget() {
    let gateway = gateway();
    // Each of these families has a name of its own.
    let families: String = (0..400_000).map(|number| format!("m{number:x} 1\n")).collect();
    // An empty bucket takes two bytes and becomes a line.
    let buckets = pb::message(3, b"").repeat(1 << 20);
    let histogram = pb::family(b"h", 4, &[pb::metric(&[], 7, &buckets)]);
    let protobuf =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    for (headers, body) in [(&[][..], families.into_bytes()), (&[("Content-Type", protobuf)][..], histogram)]
    {
        let statuses = attack(&gateway, headers, &body);
        assert!(statuses.iter().any(|status| [413, 503].contains(status)), "{statuses:?}");
        for client in 0..ATTACKERS {
            gateway.delete(&format!("/metrics/job/attack/client/{client}"));
        }
    }
    assert_within_budget(&gateway);
}

#[test]
fn unfinished_bodies_hold_what_they_sent_and_no_more() {
    let gateway = gateway();
    let head = |client: usize| {
        format!(
            "PUT /metrics/job/attack/client/{client} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            60 << 20
        )
    };
    // An announcement reserves nothing.
    let silent: Vec<_> = (0..100)
        .map(|client| {
            let mut connection = gateway.connect();
            connection.send(head(client).as_bytes()).expect("a small head");
            connection
        })
        .collect();
    assert!(metric(&gateway, "sluicegate_in_flight_bytes") < (1 << 20) as f64);
    drop(silent);

    let piece = vec![b'\n'; 4 << 20];
    let mut holding = Vec::new();
    loop {
        assert!(holding.len() < 40, "the budget is never full");
        let mut connection = gateway.connect();
        connection.send(head(holding.len()).as_bytes()).expect("a small head");
        // A client that is refused may notice while it sends.
        let is_sent = connection.send(&piece).is_ok();
        holding.push(connection);
        let counted = wait_for("the piece to be counted or refused", PATIENCE, || {
            let refusals = metric(&gateway, "sluicegate_in_flight_refusals_total");
            let in_flight = metric(&gateway, "sluicegate_in_flight_bytes");
            if refusals > 0.0 {
                return Some(false);
            }
            (in_flight >= (holding.len() * piece.len()) as f64 * 0.99).then_some(true)
        });
        if !counted {
            break;
        }
        assert!(is_sent);
    }
    // Or an earlier one, of whose piece the spare memory of others was counted in place of the end.
    let refused = wait_for("the refusal", PATIENCE, || holding.iter().position(Connection::has_response));
    let mut refused = holding.swap_remove(refused);
    assert_refused(&refused.read("PUT").expect("a response"));
    assert!(holding.len() >= 6, "{} clients hold the budget", holding.len());
    // The last part of the budget is for small pushes.
    let small = "m 1\n# ".to_owned() + &"x".repeat(40 << 10) + "\n";
    for _ in 0..10 {
        assert_eq!(gateway.put("/metrics/job/small", &small).status, 200);
    }
    // Larger than what was refused with its spare capacity, so it cannot fit either.
    let large = "\n".repeat(8 << 20);
    assert_refused(&gateway.put("/metrics/job/large", &large));
    drop(holding);
    wait_for("the memory to be returned", PATIENCE, || {
        (gateway.put("/metrics/job/large", &large).status == 200).then_some(())
    });
    assert_within_budget(&gateway);
}

#[test]
fn long_heads_that_never_end_stay_within_the_budget() {
    let gateway = gateway();
    let head = format!("GET /-/healthy HTTP/1.1\r\nHost: a\r\nX-Padding: {}", "x".repeat(60 << 10));
    let mut clients: Vec<_> = (0..600)
        .map(|_| {
            let mut connection = gateway.connect();
            // A client that is refused may notice while it sends.
            let _ = connection.send(head.as_bytes());
            connection
        })
        .collect();
    wait_for("the first refusal", PATIENCE, || {
        (metric(&gateway, "sluicegate_in_flight_refusals_total") > 0.0).then_some(())
    });
    assert_eq!(gateway.put("/metrics/job/small", "m 1\n").status, 200);
    assert_refused(&clients.pop().expect("there are many").read("GET").expect("a response"));
    // The first one is served, and then closed.
    let mut first = clients.remove(0);
    first.send(b"\r\n\r\n").expect("the connection is open");
    let response = first.read("GET").expect("a response");
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    drop(clients);
    assert_within_budget(&gateway);
}

#[test]
fn a_body_in_tiny_chunks_takes_no_more_than_its_bytes() {
    let gateway = gateway();
    let text = "m 1\n".to_owned() + &"#\n".repeat(1 << 20);
    let chunks: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    let mut connection = gateway.connect();
    let response =
        connection.request_chunked("PUT", "/metrics/job/chunks", &[], &chunks).expect("a response");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_within_budget(&gateway);
}

#[test]
fn bodies_that_nothing_wants_are_not_decoded_beyond_a_bound() {
    let gateway = gateway();
    let bomb = gzip(&vec![b'\n'; 60 << 20]);
    let gzipped = [("Content-Encoding", "gzip")];
    for (method, path, status) in [
        ("PUT", "/metrics/job/a/zone", 400),
        ("PUT", "/metrics/job@base64/!", 400),
        ("PUT", "/nothing", 404),
        ("PUT", "/metrics", 405),
        ("GET", "/metrics", 200),
        ("DELETE", "/metrics/job/a", 202),
    ] {
        assert_eq!(gateway.request(method, path, &gzipped, &bomb).status, status, "{method} {path}");
        // As in the official program, a short body must be valid.
        assert_eq!(gateway.request(method, path, &gzipped, b"not gzip").status, 400, "{method} {path}");
        // The connection of a short body can be used again.
        let mut connection = gateway.connect();
        for _ in 0..2 {
            let response = connection.request(method, path, &gzipped, &gzip(b"m 1\n")).expect("a response");
            assert_eq!(response.status, status, "{method} {path}");
        }
    }
    let peak = gateway.peak_resident_bytes();
    assert!(peak < CONSTANT_BYTES, "peak {} MiB", peak >> 20);
}

/// What is sent is no longer in flight, although the groups still have it.
#[test]
fn a_scrape_that_is_larger_than_the_budget_is_sent_completely() {
    let gateway = Gateway::start(&["--memory.in-flight-max=16MiB"]);
    let lines: String =
        (0..20_000).map(|n| format!("n{{x=\"{n}\",text=\"makes lines longer\"}} 1\n")).collect();
    for group in 0..40 {
        assert_eq!(gateway.put(&format!("/metrics/job/{group}"), &lines).status, 200);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port())).expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request");
    let (mut bytes, mut lines, mut buffer) = (0, 0, vec![0; 1 << 20]);
    loop {
        let count = stream.read(&mut buffer).expect("the rest of the response");
        if count == 0 {
            break;
        }
        bytes += count;
        lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        // Slow enough for the gateway to look at what is in flight several times.
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(bytes > 40 << 20, "{bytes} bytes");
    assert!(lines > 40 * 20_000, "{lines} lines");
    assert!(metric(&gateway, "sluicegate_in_flight_bytes") < 1e6);
}
