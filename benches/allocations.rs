//! How often a push calls the allocator, counted in a gateway of two cores that serves this program over a kept-alive connection. The
//! counts are the same on every machine, so this also runs as a test, with the most calls that a push may make.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sluicegate::config::Program;
use sluicegate::{server, storage};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod support;

use support::body;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GROUPS: u32 = 100;
const PUSHES: u32 = 2_000;
/// The most calls for a push of a known shape. On average, because half of the groups belong to the other core.
const KNOWN_SHAPE_MAX: f64 = 4.0;
/// How long the gateway may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a gateway that runs until this program ends.
fn start() -> SocketAddr {
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free");
    let listen = format!("--web.listen-address={address}");
    let arguments = ["sluicegate", &listen, "--runtime.cores=2"];
    let Ok(Program::Gateway(config)) = Program::from_arguments(arguments, &storage::engines::CHOICES) else {
        panic!("the arguments are valid");
    };
    std::thread::spawn(move || server::run(*config, Vec::new()).expect("the gateway starts"));
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(_) if started.elapsed() < START_TIMEOUT => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("the gateway did not start: {error}"),
        }
    }
}

/// A push to a group.
fn request(group: u32, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "PUT /metrics/job/nightly/instance/host-{group} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends requests one after the other. Does not allocate.
fn send(stream: &mut TcpStream, requests: &[Vec<u8>]) {
    let mut response = [0; 4096];
    for request in requests {
        stream.write_all(request).expect("the gateway reads");
        let mut received = 0;
        while !response[..received].ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut response[received..]).expect("the gateway responds");
            assert!(count > 0, "the gateway keeps the connection");
            received += count;
        }
        assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response));
    }
}

/// The average number of calls of the allocator for a push.
fn calls(stream: &mut TcpStream, requests: &[Vec<u8>]) -> f64 {
    let region = Region::new(ALLOCATOR);
    send(stream, requests);
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / requests.len() as f64
}

fn main() {
    let mut stream = connect(start());
    let known: Vec<_> = (0..PUSHES).map(|number| request(number % GROUPS, &body(number))).collect();
    // Each group gets the shape, and what connections and cores keep grows to its size.
    send(&mut stream, &known);
    let of_known_shape = calls(&mut stream, &known);
    println!("a push of a known shape calls the allocator {of_known_shape:.1} times");

    let other = |number: u32| format!("{}nightly_other{{number=\"{number}\"}} 1\n", body(number));
    let unknown: Vec<_> = (0..PUSHES).map(|number| request(number % GROUPS, &other(number))).collect();
    let (first, rest) = unknown.split_at(GROUPS as usize);
    send(&mut stream, first);
    println!("any other push calls it {:.1} times", calls(&mut stream, rest));

    assert!(of_known_shape <= KNOWN_SHAPE_MAX, "{of_known_shape} calls for a push of a known shape");
}
