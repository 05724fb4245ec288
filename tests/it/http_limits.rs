//! HTTP limits: sizes, timeouts, the number of connections. Raw bytes, on both network drivers.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use sluicegate::http::limits::{Limits, Timeout};

use crate::support::child_process;
use crate::support::http_server::{Server, on_both_drivers, push, short_timeouts};

#[test]
fn a_head_beyond_its_limit_is_431() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits { head_bytes_max: Some(16 << 10), ..Limits::default() });
        let value = |length| format!("X-A: {}\r\n", "a".repeat(length));
        assert_eq!(server.statuses(push(&value(8 << 10), "")), [200]);
        assert_eq!(server.statuses(push(&value(17 << 10), "")), [431]);
        // The client is still sending when the response arrives, and must be able to read it.
        assert_eq!(server.statuses(push(&value(4 << 20), "")), [431]);
        assert_eq!(server.statuses(push(&"X-A: 1\r\n".repeat(101), "")), [431]);
        let uri = "a".repeat(17 << 10);
        assert_eq!(server.statuses(format!("GET /{uri} HTTP/1.1\r\nHost: a\r\n\r\n")), [431]);
    });
}

#[test]
fn a_slow_head_is_408_and_a_silent_connection_is_closed() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, short_timeouts());
        let mut silent = server.client();
        let mut slow = server.client();
        slow.send("GET /-/healthy HTTP/1.1\r\nHo");
        let mut second = server.client();
        second.send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(second.response().expect("a response").status, 200);
        second.send("GET /-/healthy HT");

        let response = slow.response().expect("a response");
        assert_eq!((response.status, response.body.last()), (408, Some(&b'\n')));
        assert!(slow.is_closed());
        assert_eq!(second.response().expect("a response").status, 408);
        assert!(silent.is_closed());

        let mut idle = server.client();
        idle.send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.response().expect("a response").status, 200);
        assert!(idle.response().is_none(), "an idle connection is closed without a response");
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
    });
}

#[test]
fn timeouts_do_not_end_a_connection_in_use() {
    let timeout = Some(Duration::from_millis(800));
    let limits = Limits {
        head_timeout: timeout,
        request_timeout: timeout,
        response_timeout: timeout,
        idle_timeout: timeout,
        ..Limits::default()
    };
    on_both_drivers(|driver| {
        let server = Server::start(driver, limits.clone());
        let mut client = server.client();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1_800) {
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
            assert_eq!(client.response().expect("a response").status, 200);
            std::thread::sleep(Duration::from_millis(60));
        }
        let timeouts = Timeout::ALL.map(|timeout| server.connections.timed_out(timeout));
        assert_eq!((server.connections.accepted(), timeouts), (1, [0; 3]));
    });
}

#[test]
fn a_slow_body_is_408() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, short_timeouts());
        for headers in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut client = server.client();
            client.send(push(headers, "4\r\na 1\n\r\n"));
            // A client that sends a byte now and then does not extend the deadline: it is for the whole body.
            let mut dripping = server.client();
            dripping.send(push(headers, ""));
            let stream = dripping.stream.try_clone().expect("a descriptor");
            let sender = std::thread::spawn(move || {
                for _ in 0..20 {
                    let _ = (&stream).write_all(b"1\r\na\r\n");
                    std::thread::sleep(Duration::from_millis(40));
                }
            });
            assert_eq!(client.response().expect("a response").status, 408);
            assert!(client.response().is_none());
            assert_eq!(dripping.response().expect("a response").status, 408);
            sender.join().expect("no panic");
        }
        // The request timeout does not include the time until the response.
        let mut client = server.client();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().expect("a response").body, b"slow");
    });
}

#[test]
fn a_reset_ends_the_request_in_progress() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send(
            ["/-/healthy", "/never"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).concat(),
        );
        assert_eq!(client.response().expect("a response").status, 200);
        rustix::net::sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO)).expect("an option");
        drop(client);
        server.wait_until("the end of the connection", |server| server.connections.current() == 0);
    });
}

/// What [`child_aborts_connections`] prints for each driver when all connections have left no descriptor.
const ABORTED: &str = "aborted 1000 connections on ";

#[test]
fn a_thousand_aborted_connections_leak_no_descriptor() {
    // The child counts the descriptors of its process, so no other test may run in it.
    let output = child_process::command("http_limits::child_aborts_connections").output().expect("a process");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    on_both_drivers(|driver| assert!(text.contains(&format!("{ABORTED}{driver}\n")), "{text}"));
}

#[test]
#[ignore = "a_thousand_aborted_connections_leak_no_descriptor runs it in a child process"]
fn child_aborts_connections() {
    if !child_process::is_child() {
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        // Once both cores have responded, they have opened all descriptors that they keep.
        for _ in 0..64 {
            assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
        }
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
        std::thread::sleep(Duration::from_millis(50));
        let before = descriptors();
        for number in 0..1_000 {
            let mut client = server.client();
            client.send(match number % 6 {
                0 => String::new(),
                1 => "PUT /metr".to_owned(),
                2 => push("Content-Length: 100\r\n", "a 1\n"),
                3 => push("Transfer-Encoding: chunked\r\n", "4\r\na"),
                4 => "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                _ => "GET /pieces?500 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            });
            if number % 2 == 0 {
                // A reset instead of a FIN.
                socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("an option");
            }
        }
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
        server.wait_until("the close of all descriptors", |_| descriptors() == before);
        assert_eq!(server.connections.accepted(), 1_064);
        assert_eq!(server.statuses(push("Content-Length: 4\r\n", "a 1\n")), [200]);
        println!("\n{ABORTED}{driver}");
    });
}

#[test]
fn a_body_beyond_the_limit_is_413_and_the_client_can_read_it() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let body = "a".repeat(3 << 20);
        let announced = push(&format!("Content-Length: {}\r\n", body.len()), &body);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for bytes in [announced, push("Transfer-Encoding: chunked\r\n", &chunk)] {
            let mut client = server.client();
            client.send(bytes);
            let response = client.response().expect("a response");
            assert_eq!((response.status, response.body), (413, b"the body is too large\n".to_vec()));
            assert!(client.response().is_none(), "closed with a FIN, not a reset");
        }
        // A body that the service does not read.
        let mut client = server.client();
        client.send(format!(
            "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.response().expect("a response").body, b"ignored");
        assert!(client.response().is_none(), "closed with a FIN, not a reset");
    });
}

#[test]
fn a_client_that_stops_reading_is_disconnected() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, short_timeouts());
        let mut client = server.client();
        client.send("GET /pieces?10000 HTTP/1.1\r\nHost: a\r\n\r\n");
        server.wait_until("a connection", |server| server.connections.accepted() == 1);
        server.wait_until("the end of the connection", |server| server.connections.current() == 0);
        assert_eq!(server.connections.timed_out(Timeout::Response), 1);
        let mut buffer = vec![0; 1 << 20];
        let end = loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(err) => break Some(err.kind()),
            }
        };
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "a truncated response must not look complete");
    });
}
