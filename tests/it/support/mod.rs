//! Support for the black-box tests: gateway processes, HTTP clients, parsers of expositions, skips.
//!
//! Nothing here uses code of the server (except `http_server`, which runs its HTTP layer): a check must not share the
//! mistakes of what it checks.

pub mod child_process;
pub mod exposition;
pub mod gateway;
pub mod hostile_bodies;
pub mod http2_client;
pub mod http_client;
pub mod http_server;
pub mod preload;
pub mod prometheus;
pub mod protobuf;
pub mod protobuf_fields;
pub mod seccomp;
pub mod skip;
pub mod tls_client;

use std::net::TcpListener;
use std::time::{Duration, Instant};

pub use gateway::Gateway;

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Polls until `poll` returns a value. Panics with `what` after the timeout.
pub fn wait_for<T>(what: &str, timeout: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(begin.elapsed() < timeout, "waited {timeout:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Decompresses a single gzip member. Panics if data follows it, because some clients ignore a second member.
pub fn gunzip_one_member(body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut decoder = flate2::bufread::GzDecoder::new(body);
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).expect("a valid gzip member");
    assert!(decoder.into_inner().is_empty(), "data follows the gzip member");
    text
}

/// Decompresses a sequence of zstd frames.
pub fn unzstd(mut body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    while !body.is_empty() {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut body).expect("a frame");
        decoder.read_to_end(&mut text).expect("a valid frame");
    }
    text
}

/// Compresses a request body.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).expect("writing to a vector cannot fail");
    encoder.finish().expect("writing to a vector cannot fail")
}
