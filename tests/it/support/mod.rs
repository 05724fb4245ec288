//! What the black-box tests share: a gateway process of their own, a plain HTTP client, a strict reader of expositions.
//!
//! Nothing here comes from the server: what checks it must not share its mistakes.

pub mod exposition;
pub mod gateway;
pub mod hostile_bodies;
pub mod http_client;
pub mod http_server;
pub mod prometheus;
pub mod protobuf;
pub mod protobuf_fields;

use std::net::TcpListener;
use std::time::{Duration, Instant};

pub use gateway::Gateway;

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Asks until the answer is there. Panics after the deadline, saying what was waited for.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < deadline, "waited {deadline:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One complete gzip member; anything behind it is an error, for some clients would not see it.
pub fn gunzip_one_member(body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut decoder = flate2::bufread::GzDecoder::new(body);
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).expect("a valid gzip member");
    assert!(decoder.into_inner().is_empty(), "something stands behind the gzip member");
    text
}

/// All zstd frames, up to the last byte.
pub fn unzstd(mut body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    while !body.is_empty() {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut body).expect("a frame");
        decoder.read_to_end(&mut text).expect("a valid frame");
    }
    text
}

/// gzip of a request body.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}
