//! Requests that are unusual as HTTP.

use std::io::Write as _;

use anyhow::Result;

use crate::attack::{Attack, Play};
use crate::http::{get, head, put};
use crate::scene::Scene;

pub const ATTACKS: &[Attack] = &[
    Attack::new("tiny-chunks", "bodies of 200,000 chunks of one byte", tiny_chunks),
    Attack::new("chunk-extensions", "chunks with 100,000 bytes of extensions", chunk_extensions),
    Attack::new("trailers", "chunked bodies with endless trailers", trailers),
    Attack::new("header-lines", "requests with 1,000 header lines", header_lines),
    Attack::new("pipelined-pushes", "1,000 pipelined pushes on each of 20 connections", pipelined_pushes)
        .stores_mib(8),
    Attack::new("pipelined-health", "pipelined GETs of /-/healthy, never read", pipelined_health),
    Attack::new("garbage", "bytes that are no HTTP", garbage),
    Attack::new("empty-lines", "empty lines instead of a request", empty_lines),
    Attack::new("smuggling", "contradicting lengths and transfer codings", smuggling),
    Attack::new("dotted-paths", "paths of 30,000 dots and slashes", dotted_paths),
];

fn chunked_head() -> Vec<u8> {
    head("PUT", "/metrics/job/attack", &[("Transfer-Encoding", "chunked")])
}

fn tiny_chunks(_: &Scene) -> Result<Play> {
    let request = [chunked_head(), b"1\r\n#\r\n".repeat(200_000), b"0\r\n\r\n".to_vec()].concat();
    Ok(Box::new(move |scene| scene.flood(8, &[request])))
}

fn chunk_extensions(_: &Scene) -> Result<Play> {
    let chunk = [b"1;".to_vec(), vec![b'x'; 100_000], b"\r\n#\r\n".to_vec()].concat();
    let many = [chunked_head(), b"1;a=b;c=d\r\n#\r\n".repeat(100_000), b"0\r\n\r\n".to_vec()].concat();
    let request = [chunked_head(), chunk, b"0\r\n\r\n".to_vec()].concat();
    Ok(Box::new(move |scene| scene.flood(8, &[request, many])))
}

fn trailers(_: &Scene) -> Result<Play> {
    let head = [chunked_head(), b"1\r\n#\r\n0\r\n".to_vec()].concat();
    let filler = b"trailer: value\r\n".repeat(1_000);
    Ok(Box::new(move |scene| scene.drip(50, &head, &filler)))
}

fn header_lines(_: &Scene) -> Result<Play> {
    let lines: Vec<String> = (0..1_000).map(|number| format!("x-header-{number}")).collect();
    let headers: Vec<(&str, &str)> = lines.iter().map(|name| (name.as_str(), "value")).collect();
    let request = head("GET", "/metrics", &headers);
    Ok(Box::new(move |scene| scene.flood(8, &[request])))
}

/// Writes requests without waiting for responses, on connections of which nothing is read.
fn stuff(scene: &Scene, connections: usize, requests: &[u8]) {
    scene.threads(connections, |_| {
        while !scene.is_over() {
            // The connection ends when the gateway gives up, or when the attack is over.
            let Ok(mut stream) = scene.connect() else { continue };
            while scene.send(&mut stream, requests).is_ok() && !scene.is_over() {}
        }
    });
}

fn pipelined_pushes(_: &Scene) -> Result<Play> {
    let requests = put("/metrics/job/attack", "attack_pipelined 1\n").repeat(1_000);
    Ok(Box::new(move |scene| stuff(scene, 20, &requests)))
}

fn pipelined_health(_: &Scene) -> Result<Play> {
    let requests = get("/-/healthy").repeat(1_000);
    Ok(Box::new(move |scene| stuff(scene, 20, &requests)))
}

fn garbage(_: &Scene) -> Result<Play> {
    let mut bytes = vec![0; 1 << 16];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    Ok(Box::new(move |scene| {
        scene.threads(4, |_| {
            while !scene.is_over() {
                if let Ok(mut stream) = scene.connect() {
                    // The gateway may close the connection before all is sent.
                    let _ = stream.write_all(&bytes);
                }
            }
        });
    }))
}

fn empty_lines(_: &Scene) -> Result<Play> {
    let lines = b"\r\n".repeat(30_000);
    Ok(Box::new(move |scene| stuff(scene, 4, &lines)))
}

fn smuggling(_: &Scene) -> Result<Play> {
    let heads: [&[(&str, &str)]; 6] = [
        &[("Content-Length", "5"), ("Content-Length", "6")],
        &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
        &[("Transfer-Encoding", "chunked, chunked")],
        &[("Transfer-Encoding", "gzip, chunked")],
        &[("Content-Length", "-1")],
        &[("Content-Length", "18446744073709551616")],
    ];
    let hidden = put("/metrics/job/attack", "attack_smuggled 1\n");
    let requests: Vec<Vec<u8>> = heads
        .iter()
        .map(|headers| {
            [head("PUT", "/metrics/job/attack", headers), b"0\r\n\r\n".to_vec(), hidden.clone()].concat()
        })
        .collect();
    Ok(Box::new(move |scene| scene.flood(8, &requests)))
}

fn dotted_paths(_: &Scene) -> Result<Play> {
    let paths = ["/..".repeat(10_000), "/./".repeat(10_000), "//".repeat(15_000), "/%2e%2e".repeat(4_000)];
    let requests: Vec<Vec<u8>> = paths
        .iter()
        .flat_map(|path| [get(path), put(&format!("/metrics/job/attack{path}"), "m 1\n")])
        .collect();
    Ok(Box::new(move |scene| scene.flood(8, &requests)))
}
