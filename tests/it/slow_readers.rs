//! Clients that request and then read nothing, or little: they must not keep others from reading, nor fill memory.

use std::io::Write;
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::http_client::Connection;
use crate::support::{Gateway, wait_for};

/// More than the kernel buffers for a client that reads nothing.
const GROUP_BYTES: usize = 12 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of one family.
fn lines(bytes: usize) -> String {
    let mut body = String::with_capacity(bytes + 100);
    for number in 0.. {
        if body.len() >= bytes {
            break;
        }
        body.push_str(&format!("large{{number=\"{number}\",padding=\"{}\"}} {number}\n", "x".repeat(100)));
    }
    body
}

/// Connects from an address of the loopback network, sends a request, and reads nothing.
fn request_from(address: [u8; 4], gateway: &Gateway, request: &str) -> TcpStream {
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&client, &SocketAddrV4::new(address.into(), 0)).expect("an address of the loopback network");
    connect(&client, &SocketAddrV4::new([127, 0, 0, 1].into(), gateway.port())).expect("a connection");
    let mut client = TcpStream::from(client);
    client.write_all(request.as_bytes()).expect("a small request");
    client
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

/// The value of one of the gateway's own metrics, from a scrape by another client than the ones under test.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let response = exchange_from([127, 0, 0, 9], gateway, &get("/metrics"));
    let line = response.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(-1.0)
}

/// The whole response to a request on a connection of its own, as text.
fn exchange_from(address: [u8; 4], gateway: &Gateway, request: &str) -> String {
    use std::io::Read;
    let mut client = request_from(address, gateway, request);
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut response = Vec::new();
    let _ = client.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

/// Whether the kernel reports a reset.
fn is_reset(client: &TcpStream) -> bool {
    use std::io::Read;
    let mut client = client;
    let mut buffer = vec![0; 1 << 20];
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_scrape_succeeds_while_clients_that_read_nothing_have_all_slots() {
    let gateway = Gateway::start(&["--web.scrapes-max=4", "--web.response-rate-min=0"]);
    assert_eq!(gateway.put("/metrics/job/large", &lines(GROUP_BYTES)).status, 200);
    let status = |address| exchange_from(address, &gateway, &get("/metrics")).get(..12).map(str::to_owned);

    // One address cannot have all slots, so another one gets its scrape at once.
    let stalled: Vec<_> = (0..3).map(|_| request_from([127, 0, 0, 1], &gateway, &get("/metrics"))).collect();
    wait_for("the scrapes to begin", PATIENCE, || {
        (metric(&gateway, "sluicegate_scrapes ") >= 4.0).then_some(())
    });
    assert_eq!(status([127, 0, 0, 2]).as_deref(), Some("HTTP/1.1 200"));
    assert_eq!(metric(&gateway, "sluicegate_responses_evicted_total{kind=\"scrape\"}"), 0.0);

    // Their own address gets its scrape too, because the one that has been stalled for the longest time loses its slot.
    assert_eq!(status([127, 0, 0, 1]).as_deref(), Some("HTTP/1.1 200"));
    assert_eq!(metric(&gateway, "sluicegate_responses_evicted_total{kind=\"scrape\"}"), 1.0);
    // Otherwise it could still read the rest before its connection notices.
    wait_for("the end of its connection", PATIENCE, || {
        (metric(&gateway, "sluicegate_timeouts_total{phase=\"response\"}") >= 1.0).then_some(())
    });
    assert_eq!(stalled.iter().filter(|client| is_reset(client)).count(), 1);
}

#[test]
fn a_client_that_reads_too_slowly_is_disconnected() {
    let gateway = Gateway::start(&["--web.response-rate-min=100KiB"]);
    assert_eq!(gateway.put("/metrics/job/large", &lines(GROUP_BYTES)).status, 200);
    let paths = ["/metrics", "/api/v1/metrics", "/"];
    let stalled = paths.map(|path| request_from([127, 0, 0, 1], &gateway, &get(path)));
    wait_for("timeouts", PATIENCE, || {
        (metric(&gateway, "sluicegate_timeouts_total{phase=\"response\"}") >= 3.0).then_some(())
    });
    for (path, client) in paths.iter().zip(&stalled) {
        assert!(is_reset(client), "{path}");
    }
    // A client that waits for its next request is not slow.
    let mut idle = Connection::open(gateway.port()).expect("a connection");
    assert_eq!(idle.request("GET", "/-/healthy", &[], b"").expect("a response").status, 200);
}
