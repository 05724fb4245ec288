//! Shutdown, signals, and the port that only one server can have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sluicegate::http::limits::Limits;
use sluicegate::runtime::listen::Listeners;
use sluicegate::runtime::threads::DriverInUse;

use crate::support::http_server::{
    Client, OWN_PROCESS, PATIENCE, Server, in_own_process, on_both_drivers, push,
};

#[test]
fn a_shutdown_answers_what_was_sent() {
    on_both_drivers(|driver| {
        let mut server =
            Server::start(driver, Limits { drain_timeout: Duration::from_secs(5), ..Limits::default() });
        let mut idle = server.client();
        idle.send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.answer().expect("an answer").status, 200);
        let mut working = server.client();
        working.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut half = server.client();
        half.send("PUT /metrics/job/probe HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na");
        server.wait_until("three connections", |server| server.connections.current() == 3);
        // Those that are still in the kernel's queues when the shutdown comes.
        let mut queued: Vec<Client> = (0..40).map(|_| server.client()).collect();
        server.shutdown.request();
        for client in &mut queued {
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
        }
        half.send(" 1\n");
        for client in queued.iter_mut().chain([&mut half]) {
            let answer = client.answer().expect("an answer");
            assert_eq!(answer.status, 200);
            assert!(answer.head.contains("connection: close\r\n"), "{}", answer.head);
            assert!(client.answer().is_none());
        }
        assert_eq!(working.answer().expect("an answer").body, b"slow");
        assert!(idle.answer().is_none());
        server.join();
        assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
    });
}

#[test]
fn a_drain_that_takes_too_long_is_cut() {
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
fn listeners_that_somebody_else_has_bound() {
    on_both_drivers(|driver| {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut server = Server::start_with(driver, Limits::default(), |cores| {
            Listeners::adopt(std::slice::from_ref(&bound), cores).expect("descriptors")
        });
        for _ in 0..20 {
            assert_eq!(server.statuses(push("Content-Length: 4\r\n", "a 1\n")), [200]);
        }
        let mut queued = server.client();
        server.shutdown.request();
        queued.send(push("Content-Length: 4\r\n", "a 1\n"));
        assert_eq!(queued.answer().expect("an answer").status, 200);
        server.join();
    });
}

#[test]
fn a_second_start_on_the_same_port_fails() {
    let server = Server::start(DriverInUse::Epoll, Limits::default());
    let address = server.address.to_string();
    let err = Listeners::bind(&[address.as_str()], 2).expect_err("the port is taken");
    assert_eq!(err.to_string(), format!("cannot listen on {address}: another program already listens there"));
    drop(server);
    Listeners::bind(&[address.as_str()], 2).expect("the port is free again");
}

#[test]
fn a_signal_drains_and_a_second_one_ends_at_once() {
    for (signals, code) in [(1, 0), (2, 1)] {
        for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
            let program = std::env::current_exe().expect("a path");
            let mut process = std::process::Command::new(program)
                .args(["--exact", "shutdown::a_server_that_signals_end", "--nocapture"])
                .env(OWN_PROCESS, "1")
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("a process");
            let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
            let address: SocketAddr = lines
                .find_map(|line| line.ok()?.strip_prefix("listening on ")?.parse().ok())
                .expect("an address");
            // Keeps the drain waiting.
            let mut working = TcpStream::connect(address).expect("the server listens");
            working.set_read_timeout(Some(PATIENCE)).expect("an option");
            working.write_all(push("Content-Length: 4\r\n", "a").as_bytes()).expect("taken");
            let mut first = TcpStream::connect(address).expect("the server listens");
            first.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n").expect("taken");
            assert_eq!(first.read(&mut [0; 12]).expect("an answer"), 12);

            let pid = rustix::process::Pid::from_child(&process);
            for _ in 0..signals {
                rustix::process::kill_process(pid, signal).expect("it lives");
                // Idle connections end with the first signal, so the drain has begun.
                while first.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            }
            if code == 0 {
                working.write_all(b" 1\n").expect("taken");
                let mut answer = String::new();
                working.read_to_string(&mut answer).expect("an answer");
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            }
            let _ = lines.by_ref().count();
            assert_eq!(process.wait().expect("an end").code(), Some(code));
        }
    }
}

/// The other half of `a_signal_drains_and_a_second_one_ends_at_once`: nobody signals it elsewhere.
#[test]
fn a_server_that_signals_end() {
    if !in_own_process() {
        return;
    }
    let mut server = Server::start(DriverInUse::Epoll, Limits::default());
    server.shutdown.request_on_signals().expect("handlers");
    println!("\nlistening on {}", server.address);
    server.thread.take().expect("running").join().expect("the server ends well");
}
