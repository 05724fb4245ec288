//! Too much, too slow, too many.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use sluicegate::http::limits::{Limits, Timeout};

use crate::support::http_server::{
    Client, OWN_PROCESS, Server, hasty, in_own_process, on_both_drivers, push,
};

#[test]
fn heads_have_an_end() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits { head_bytes_max: Some(16 << 10), ..Limits::default() });
        let value = |length| format!("X-A: {}\r\n", "a".repeat(length));
        assert_eq!(server.statuses(push(&value(8 << 10), "")), [200]);
        assert_eq!(server.statuses(push(&value(17 << 10), "")), [431]);
        // The client is still sending when the answer comes, and must be able to read it.
        assert_eq!(server.statuses(push(&value(4 << 20), "")), [431]);
        assert_eq!(server.statuses(push(&"X-A: 1\r\n".repeat(101), "")), [431]);
        let uri = "a".repeat(17 << 10);
        assert_eq!(server.statuses(format!("GET /{uri} HTTP/1.1\r\nHost: a\r\n\r\n")), [431]);
    });
}

#[test]
fn slow_heads_are_answered_and_silent_connections_closed() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, hasty());
        let mut silent = server.client();
        let mut slow = server.client();
        slow.send("GET /-/healthy HTTP/1.1\r\nHo");
        let mut second = server.client();
        second.send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(second.answer().expect("an answer").status, 200);
        second.send("GET /-/healthy HT");

        let answer = slow.answer().expect("an answer");
        assert_eq!((answer.status, answer.body.last()), (408, Some(&b'\n')));
        assert!(slow.is_closed());
        assert_eq!(second.answer().expect("an answer").status, 408);
        assert!(silent.is_closed());

        let mut idle = server.client();
        idle.send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.answer().expect("an answer").status, 200);
        assert!(idle.answer().is_none(), "an idle connection is closed without a word");
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
    });
}

#[test]
fn a_connection_in_use_outlives_every_timeout() {
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
            assert_eq!(client.answer().expect("an answer").status, 200);
            std::thread::sleep(Duration::from_millis(60));
        }
        let timeouts = Timeout::ALL.map(|timeout| server.connections.timed_out(timeout));
        assert_eq!((server.connections.accepted(), timeouts), (1, [0; 3]));
    });
}

#[test]
fn slow_bodies_are_answered() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, hasty());
        for headers in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut client = server.client();
            client.send(push(headers, "4\r\na 1\n\r\n"));
            // Drops that keep coming do not help: the deadline is for the whole body.
            let mut dripping = server.client();
            dripping.send(push(headers, ""));
            let drip = dripping.stream.try_clone().expect("a descriptor");
            let dropper = std::thread::spawn(move || {
                for _ in 0..20 {
                    let _ = (&drip).write_all(b"1\r\na\r\n");
                    std::thread::sleep(Duration::from_millis(40));
                }
            });
            assert_eq!(client.answer().expect("an answer").status, 408);
            assert!(client.answer().is_none());
            assert_eq!(dripping.answer().expect("an answer").status, 408);
            dropper.join().expect("no panic");
        }
        // A request that came in time may take its time to be answered.
        let mut client = server.client();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().expect("an answer").body, b"slow");
    });
}

#[test]
fn a_thousand_aborted_connections_leave_nothing_behind() {
    // Descriptors are counted, so no other test may run in the same process.
    let program = std::env::current_exe().expect("a path");
    let output = std::process::Command::new(program)
        .args(["--exact", "http_limits::aborted_connections_in_a_process_of_their_own", "--test-threads=1"])
        .env(OWN_PROCESS, "1")
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// The other half of `a_thousand_aborted_connections_leave_nothing_behind`.
#[test]
fn aborted_connections_in_a_process_of_their_own() {
    if !in_own_process() {
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        // Both cores have all of their own descriptors once both have answered.
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
    });
}

#[test]
fn beyond_the_cap_connections_are_refused() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits { connections_max: Some(4), ..Limits::default() });
        let mut kept: Vec<Client> = (0..4).map(|_| server.client()).collect();
        server.wait_until("four connections", |server| server.connections.current() == 4);
        // The request is far too large to be in the kernel's buffers when the answer is sent.
        let body = "a 1\n".repeat(50_000);
        for _ in 0..3 {
            let mut client = server.client();
            client.send(push(&format!("Content-Length: {}\r\n", body.len()), &body));
            let answer = client.answer().expect("an answer");
            assert_eq!(answer.status, 503);
            assert!(answer.head.contains("retry-after: 1\r\n"), "{}", answer.head);
            assert!(client.is_closed());
        }
        assert_eq!((server.connections.current(), server.connections.refused()), (4, 3));
        for client in &mut kept {
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
            assert_eq!(client.answer().expect("an answer").status, 200);
        }
        kept.clear();
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
    });
}

#[test]
fn bodies_have_an_end_and_the_refusal_arrives() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let body = "a".repeat(3 << 20);
        let announced = push(&format!("Content-Length: {}\r\n", body.len()), &body);
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        for bytes in [announced, push("Transfer-Encoding: chunked\r\n", &chunk)] {
            let mut client = server.client();
            client.send(bytes);
            let answer = client.answer().expect("an answer");
            assert_eq!((answer.status, answer.body), (413, b"the body is too large\n".to_vec()));
            assert!(client.answer().is_none(), "closed in order, without a reset");
        }
        // A body that nobody reads.
        let mut client = server.client();
        client.send(format!(
            "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.answer().expect("an answer").body, b"ignored");
        assert!(client.answer().is_none(), "closed in order, without a reset");
    });
}

#[test]
fn a_reader_that_stalls_is_dropped() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, hasty());
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
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "a cut answer must not look like a whole one");
    });
}
