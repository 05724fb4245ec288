//! Limits on the number of connections: whose connections are closed, and what happens without descriptors.

use std::net::TcpStream;

use rustix::process::{Resource, Rlimit};
use sluicegate::http::limits::{Limits, Timeout};

use crate::support::gateway::Gateway;
use crate::support::http_server::{Client, Server, on_both_drivers, push};

const HEALTHY: &str = "GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n";
/// A response that fills the buffers of a client that does not read.
const LONG_RESPONSE: &str = "GET /pieces?1000 HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server with the most connections that it allows.
fn full_server(
    driver: sluicegate::runtime::threads::DriverInUse,
    first_bytes: &str,
) -> (Server, Vec<Client>) {
    let server = Server::start(driver, Limits { connections_max: Some(8), ..Limits::default() });
    let clients = (0..8)
        .map(|_| {
            let mut client = server.client();
            client.send(first_bytes);
            client
        })
        .collect();
    server.wait_until("eight connections", |server| server.connections.current() == 8);
    (server, clients)
}

#[test]
fn connections_without_a_request_make_room() {
    on_both_drivers(|driver| {
        let (server, _idle) = full_server(driver, "");
        for _ in 0..100 {
            let mut client = server.client();
            client.send(HEALTHY);
            assert_eq!(client.response().expect("a response").status, 200);
        }
        assert!(server.connections.closed_for_room() > 0);
        assert_eq!(server.connections.rejected(), 0);
    });
}

#[test]
fn connections_between_two_requests_make_room() {
    on_both_drivers(|driver| {
        let (server, mut clients) = full_server(driver, HEALTHY);
        for client in &mut clients {
            assert_eq!(client.response().expect("a response").status, 200);
        }
        let mut client = server.client();
        client.send(HEALTHY);
        assert_eq!(client.response().expect("a response").status, 200);
        server.wait_until("the end of one connection", |server| server.connections.current() == 8);
        assert_eq!((server.connections.closed_for_room(), server.connections.rejected()), (1, 0));
    });
}

#[test]
fn slow_heads_make_room_at_once() {
    on_both_drivers(|driver| {
        let (server, mut slow) = full_server(driver, "GET /-/heal");
        for _ in 0..4 {
            let mut client = server.client();
            client.send(HEALTHY);
            assert_eq!(client.response().expect("a response").status, 200);
            // Closed clients come back, as those of an attacker do.
            slow.push(server.client());
            slow.last_mut().expect("a client").send("GET /-/heal");
        }
        assert!(server.connections.closed_for_room() > 0);
        assert_eq!(server.connections.rejected(), 0);
        assert_eq!(Timeout::ALL.map(|timeout| server.connections.timed_out(timeout)), [0; 3]);
    });
}

#[test]
fn slow_bodies_make_room() {
    on_both_drivers(|driver| {
        let (server, _slow) = full_server(driver, &push("Content-Length: 100\r\n", "a 1\n"));
        // They may wait for a while, so the first clients may be rejected.
        server.wait_until("a response", |server| {
            let mut client = server.client();
            client.send(HEALTHY);
            client.response().is_some_and(|response| response.status == 200)
        });
        assert!(server.connections.closed_for_room() > 0);
        assert_eq!(Timeout::ALL.map(|timeout| server.connections.timed_out(timeout)), [0; 3]);
    });
}

#[test]
fn a_client_with_a_response_is_not_closed_and_others_get_503() {
    on_both_drivers(|driver| {
        let (server, mut busy) = full_server(driver, LONG_RESPONSE);
        for client in &busy {
            assert_eq!(client.stream.peek(&mut [0]).expect("the response begins"), 1);
        }
        // The request is larger than the kernel's buffers, so the client is still sending when the server responds.
        let body = "a 1\n".repeat(50_000);
        for _ in 0..3 {
            let mut client = server.client();
            client.send(push(&format!("Content-Length: {}\r\n", body.len()), &body));
            let response = client.response().expect("a response");
            assert_eq!(response.status, 503);
            assert!(response.head.contains("retry-after: 1\r\n"), "{}", response.head);
            assert!(client.is_closed());
        }
        let connections = &server.connections;
        assert_eq!((connections.current(), connections.rejected(), connections.closed_for_room()), (8, 3, 0));
        for client in &mut busy {
            assert_eq!(client.response().expect("a response").status, 200);
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
            assert_eq!(client.response().expect("a response").status, 200);
        }
        drop(busy);
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
        assert_eq!(server.statuses(HEALTHY), [200]);
    });
}

/// A command that starts the gateway with a limit of open files.
fn with_open_files(max: &str) -> [&str; 4] {
    ["sh", "-c", "ulimit -n $0; exec \"$@\"", max]
}

#[test]
fn connections_are_bounded_by_the_limit_of_open_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = format!("--storage.path={}", folder.path().display());
    let wrapper = with_open_files("200");
    let gateway = Gateway::start_by(&wrapper, &[&path]);
    gateway.log_with("limit of open files");
    let idle: Vec<_> =
        (0..400).map(|_| TcpStream::connect(("127.0.0.1", gateway.port())).expect("it listens")).collect();
    for number in 0..50 {
        let response = gateway.request("PUT", &format!("/metrics/job/{number}"), &[], b"a 1\n");
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let health = gateway.request("GET", "/-/healthy", &[], b"");
    assert_eq!(health.status, 200, "{}", health.text());
    let metrics = gateway.request("GET", "/metrics", &[], b"").text();
    let of = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<f64>().expect("a number")
    };
    assert!(of("sluicegate_connections_max") < 200.0);
    assert!(of("sluicegate_connections") <= of("sluicegate_connections_max") + 1.0);
    assert!(of("sluicegate_connections_closed_for_room_total") > 0.0);
    drop(idle);
}

#[test]
fn the_gateway_recovers_when_descriptors_run_out() {
    let gateway = Gateway::start(&[]);
    let limit = |max| {
        let limit = Rlimit { current: Some(max), maximum: Some(max) };
        rustix::process::prlimit(Some(gateway.pid()), Resource::Nofile, limit).expect("own child");
    };
    limit(64);
    let idle: Vec<_> =
        (0..100).map(|_| TcpStream::connect(("127.0.0.1", gateway.port())).expect("it listens")).collect();
    // Idle connections are closed one after the other, until there are descriptors for those that wait in the queue.
    for _ in 0..10 {
        let response = gateway.request("GET", "/-/healthy", &[], b"");
        assert_eq!(response.status, 200, "{}", response.text());
    }
    gateway.log_with("cannot accept connections");
    drop(idle);
}

#[test]
fn too_few_descriptors_are_an_error() {
    let wrapper = with_open_files("32");
    let (status, log) = Gateway::fails_to_start_by(&wrapper, &["--runtime.driver=epoll"]);
    assert!(!status.success() && log.contains("the limit of open files is 32"), "{log}");
}

#[test]
fn more_cores_than_make_sense_are_an_error() {
    let (status, log) = Gateway::fails_to_start(&["--runtime.cores=100000"]);
    assert!(!status.success() && log.contains("'100000' for '--runtime.cores'"), "{log}");
}
