//! Shutdown, signals, and exclusive ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sluicegate::http::limits::Limits;
use sluicegate::runtime::listen::Listeners;
use sluicegate::runtime::threads::DriverInUse;

use crate::support::child_process;
use crate::support::http_server::{Client, PATIENCE, Server, on_both_drivers, push};

#[test]
fn a_shutdown_completes_requests_that_have_begun() {
    on_both_drivers(|driver| {
        let mut server =
            Server::start(driver, Limits { drain_timeout: Duration::from_secs(5), ..Limits::default() });
        let mut idle = server.client();
        idle.send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.response().expect("a response").status, 200);
        let mut working = server.client();
        working.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut half = server.client();
        half.send("PUT /metrics/job/probe HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na");
        server.wait_until("three connections", |server| server.connections.current() == 3);
        // These connections may still wait in the kernel's accept queue when the shutdown begins.
        let mut queued: Vec<Client> = (0..40).map(|_| server.client()).collect();
        server.shutdown.request();
        for client in &mut queued {
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
        }
        half.send(" 1\n");
        for client in queued.iter_mut().chain([&mut half]) {
            let response = client.response().expect("a response");
            assert_eq!(response.status, 200);
            assert!(response.head.contains("connection: close\r\n"), "{}", response.head);
            assert!(client.response().is_none());
        }
        assert_eq!(working.response().expect("a response").body, b"slow");
        assert!(idle.response().is_none());
        server.join();
        assert!(TcpStream::connect(server.address).is_err(), "the port is closed");
    });
}

#[test]
fn the_drain_timeout_ends_connections() {
    on_both_drivers(|driver| {
        let limits = Limits { drain_timeout: Duration::from_millis(200), ..Limits::default() };
        let mut server = Server::start(driver, limits);
        let mut stuck = server.client();
        stuck.send(push("Content-Length: 100\r\n", "a 1\n"));
        server.wait_until("a connection", |server| server.connections.current() == 1);
        server.join();
        assert_eq!(server.connections.current(), 0);
        assert!(stuck.is_closed());
    });
}

#[test]
fn binding_a_port_twice_fails() {
    let server = Server::start(DriverInUse::Epoll, Limits::default());
    let address = server.address.to_string();
    let err = Listeners::bind(&[address.as_str()], 2).expect_err("the port is taken");
    assert_eq!(
        err.to_string(),
        format!("cannot listen on {address}: another program is already listening on it")
    );
    drop(server);
    Listeners::bind(&[address.as_str()], 2).expect("the port is free again");
}

#[test]
fn a_signal_drains_and_a_second_one_exits_at_once() {
    for (signals, code) in [(1, 0), (2, 1)] {
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
            let mut process = child_process::command("shutdown::child_serves_until_signalled")
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("a process");
            let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
            let address: SocketAddr = lines
                .find_map(|line| line.ok()?.strip_prefix("listening on ")?.parse().ok())
                .expect("an address");
            // An unfinished request keeps the drain waiting.
            let mut working = TcpStream::connect(address).expect("the server listens");
            working.set_read_timeout(Some(PATIENCE)).expect("an option");
            working.write_all(push("Content-Length: 4\r\n", "a").as_bytes()).expect("the server reads");
            let mut first = TcpStream::connect(address).expect("the server listens");
            first.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n").expect("the server reads");
            assert_eq!(first.read(&mut [0; 12]).expect("a response"), 12);

            let pid = rustix::process::Pid::from_child(&process);
            for _ in 0..signals {
                rustix::process::kill_process(pid, signal).expect("the child runs");
                // The drain closes idle connections first, so after this it has begun.
                while first.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            }
            if code == 0 {
                working.write_all(b" 1\n").expect("the server reads");
                let mut response = String::new();
                working.read_to_string(&mut response).expect("a response");
                assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            }
            let _ = lines.by_ref().count();
            assert_eq!(process.wait().expect("an exit status").code(), Some(code));
        }
    }
}

#[test]
#[ignore = "a_signal_drains_and_a_second_one_exits_at_once runs it in a child process"]
fn child_serves_until_signalled() {
    if !child_process::is_child() {
        return;
    }
    let mut server = Server::start(DriverInUse::Epoll, Limits::default());
    server.shutdown.request_on_signals(|| {}).expect("handlers");
    println!("\nlistening on {}", server.address);
    server.thread.take().expect("running").join().expect("the server thread does not panic");
}
