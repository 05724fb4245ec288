//! HTTP/2 over plain sockets, with a client that writes single frames.

mod client;
mod server;

use std::sync::atomic::Ordering;
use std::time::Duration;

use client::*;
use server::{PIECE_BYTES, Server};

use super::{CAUSED_RESETS_MAX, STREAMS_MAX};
use crate::http::limits::{Limits, Timeout};

const SHORT: Option<Duration> = Some(Duration::from_millis(200));
const PROTOCOL_ERROR: u32 = 1;
const STREAM_CLOSED: u32 = 5;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const CALM: u32 = 11;

/// A connection to a server with the usual limits.
fn connect() -> (Server, Client) {
    let server = Server::start(Limits::default());
    let client = Client::connect(server.address, &[]);
    (server, client)
}

#[test]
fn requests_of_one_connection_are_served_side_by_side() {
    let (server, mut client) = connect();
    client.get(1, "/never");
    client.get(3, "/ok");
    assert_eq!(client.response(3), (200, b"ok\n".to_vec()));
    client.begin_put(5, "/push");
    client.get(7, "/other");
    assert_eq!(client.response(7), (202, Vec::new()));
    client.send(&[Frame::new(DATA, 0, 5, *b"abc"), Frame::new(DATA, END_STREAM, 5, *b"defg")]);
    assert_eq!(client.response(5), (200, b"7".to_vec()));
    // A client that leaves ends its requests.
    assert_eq!(server.state.calls.load(Ordering::SeqCst), 1);
    drop(client);
    server.wait_until("the service is dropped", |state| state.calls.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_head_request_gets_no_body() {
    let (_server, mut client) = connect();
    client.send(&[Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, head("HEAD", "/ok"))]);
    let frame = client.next_of(1);
    assert_eq!(frame.status(), 200);
    assert!(frame.ends_stream());
}

#[test]
fn a_response_larger_than_the_window_waits_for_the_client() {
    let (server, mut client) = connect();
    client.get(1, "/pieces");
    let (mut length, mut updates) = (0, 0);
    let mut frame = client.next_of(1);
    assert_eq!(frame.status(), 200);
    while !frame.ends_stream() {
        frame = client.next_of(1);
        length += frame.payload.len();
        if length == 65_535 {
            assert_eq!(server.state.slots.in_use(), 1);
            let update = 1_000_000_u32.to_be_bytes();
            client.send(&[Frame::new(WINDOW_UPDATE, 0, 0, update), Frame::new(WINDOW_UPDATE, 0, 1, update)]);
            updates += 1;
        }
    }
    assert_eq!((length, updates), (5 * PIECE_BYTES, 1));
    server.wait_until("the slot is returned", |state| state.slots.in_use() == 0);
}

#[test]
fn a_body_that_does_not_arrive_gets_408_and_other_streams_continue() {
    let server = Server::start(Limits { request_timeout: SHORT, ..Limits::default() });
    let mut client = Client::connect(server.address, &[]);
    client.begin_put(1, "/push");
    client.send(&[Frame::new(DATA, 0, 1, *b"abc")]);
    client.get(3, "/never");
    assert_eq!(client.response(1).0, 408);
    client.get(5, "/ok");
    assert_eq!(client.response(5).0, 200);
    assert_eq!(server.state.server.connections.timed_out(Timeout::Request), 1);
}

#[test]
fn a_window_that_stays_closed_holds_neither_a_slot_nor_memory() {
    let server = Server::start(Limits { response_timeout: SHORT, ..Limits::default() });
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut client = Client::connect(server.address, &[(4, 0)]);
    client.get(1, "/pieces");
    client.get(3, "/ok");
    assert_eq!(client.next_of(1).status(), 200);
    for _ in 0..2 {
        let frame =
            std::iter::from_fn(|| client.next()).find(|frame| frame.kind == RST_STREAM).expect("a reset");
        assert_eq!(frame.code(), CANCEL);
    }
    server.wait_until("the slot is returned", |state| state.slots.in_use() == 0);
    assert_eq!(server.state.server.connections.timed_out(Timeout::Response), 2);
    client.get(5, "/other");
    assert_eq!(client.response(5).0, 202);
}

#[test]
fn a_closed_window_loses_its_slot_to_another_client() {
    let (server, mut client) = connect();
    let mut stalled = Client::connect(server.address, &[(4, 0)]);
    for stream in [1, 3, 5] {
        stalled.get(stream, "/pieces");
        assert_eq!(stalled.next_of(stream).status(), 200);
    }
    // All slots of this network are taken. A request waits for a stall of a second.
    client.send(&[Frame::new(WINDOW_UPDATE, 0, 0, 1_000_000_u32.to_be_bytes())]);
    client.send(&[Frame::new(SETTINGS, 0, 0, [&[0, 4][..], &1_000_000_u32.to_be_bytes()].concat())]);
    client.get(1, "/pieces");
    assert_eq!(client.response(1).1.len(), 5 * PIECE_BYTES);
    let reset =
        std::iter::from_fn(|| stalled.next()).find(|frame| frame.kind == RST_STREAM).expect("a reset");
    assert_eq!(reset.code(), CANCEL);
    assert_eq!(server.state.slots.evicted(), 1);
}

#[test]
fn a_head_that_does_not_end_in_time_ends_the_connection() {
    for is_first in [true, false] {
        let server = Server::start(Limits { head_timeout: SHORT, ..Limits::default() });
        let mut client = Client::connect(server.address, &[]);
        if !is_first {
            client.get(1, "/ok");
            assert_eq!(client.response(1).0, 200);
            client.get(3, "/never");
        }
        client.send(&[Frame::new(HEADERS, END_STREAM, 5, head("GET", "/ok"))]);
        assert_eq!(goaway_code(&client.rest()), Some(CALM));
        assert_eq!(server.state.server.connections.timed_out(Timeout::Head), 1);
    }
}

#[test]
fn an_idle_connection_gets_a_goaway_and_is_closed() {
    let server = Server::start(Limits {
        idle_timeout: SHORT,
        linger_timeout: SHORT.unwrap_or_default(),
        ..Limits::default()
    });
    let mut client = Client::connect(server.address, &[]);
    client.get(1, "/ok");
    assert_eq!(client.response(1).0, 200);
    // It never acknowledges the ping that comes with the first GOAWAY.
    assert_eq!(goaway_code(&client.rest()), Some(0));
    let mut silent = Client::connect(server.address, &[]);
    silent.get(1, "/never");
    silent.get(3, "/ok");
    assert_eq!(silent.response(3).0, 200);
    client = Client::connect(server.address, &[]);
    client.get(1, "/ok");
    assert!(goaway_code(&client.rest()).is_some());
    silent.get(5, "/ok");
    assert_eq!(silent.response(5).0, 200, "a connection with an open stream is not idle");
}

#[test]
fn idle_connections_and_stalled_bodies_make_room() {
    let (server, mut client) = connect();
    client.get(1, "/ok");
    assert_eq!(client.response(1).0, 200);
    server.state.must_make_room.store(1, Ordering::SeqCst);
    let frames = client.rest();
    assert_eq!(goaway_code(&frames), Some(0));
    assert_eq!(frames.last().map(|frame| frame.payload[..4].to_vec()), Some(vec![0, 0, 0, 1]));

    let (mut busy, mut stalled) =
        (Client::connect(server.address, &[]), Client::connect(server.address, &[]));
    busy.get(1, "/never");
    busy.begin_put(3, "/push");
    stalled.begin_put(1, "/push");
    stalled.send(&[Frame::new(DATA, 0, 1, *b"abc")]);
    server.wait_until("three calls", |state| state.calls.load(Ordering::SeqCst) == 3);
    server.state.must_make_room.store(1, Ordering::SeqCst);
    assert!(goaway_code(&stalled.rest()).is_some());
    busy.get(5, "/ok");
    assert_eq!(busy.response(5).0, 200);
}

#[test]
fn a_shutdown_finishes_open_streams() {
    let (server, mut client) = connect();
    client.begin_put(1, "/push");
    client.send(&[Frame::new(DATA, 0, 1, *b"abc")]);
    server.wait_until("the call", |state| state.calls.load(Ordering::SeqCst) == 1);
    server.shut_down();
    while client.next().expect("the connection continues").kind != GOAWAY {}
    client.send(&[Frame::new(DATA, END_STREAM, 1, *b"d")]);
    assert_eq!(client.response(1), (200, b"4".to_vec()));
    assert!(client.rest().iter().all(|frame| matches!(frame.kind, GOAWAY | PING | WINDOW_UPDATE)));
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let (_server, mut client) = connect();
    for at in 0..=STREAMS_MAX {
        client.get(1 + 2 * at, "/never");
    }
    let last = 1 + 2 * STREAMS_MAX;
    assert_eq!(client.next_of(last), Frame::new(RST_STREAM, 0, last, REFUSED_STREAM.to_be_bytes()));
    client.send(&[Frame::new(RST_STREAM, 0, 1, CANCEL.to_be_bytes())]);
    client.get(last + 2, "/ok");
    assert_eq!(client.response(last + 2).0, 200);
}

#[test]
fn further_streams_and_their_bodies_are_reserved() {
    let server = Server::start_with_budget(Limits::default(), Some(200 << 10));
    let budget = server.state.server.budget;
    let mut client = Client::connect(server.address, &[]);
    client.get(1, "/never");
    server.wait_until("the first call", |state| state.calls.load(Ordering::SeqCst) == 1);
    assert_eq!(budget.in_flight(), 0, "one request costs what it costs with HTTP/1");
    client.get(3, "/never");
    server.wait_until("the second call", |state| state.calls.load(Ordering::SeqCst) == 2);
    assert!(budget.in_flight() >= 24 << 10);
    for stream in [5, 7, 9] {
        client.begin_put(stream, "/push");
    }
    assert_eq!(client.response(9).0, 503, "no room for another window");
    client.send(&[Frame::new(DATA, END_STREAM, 5, *b"abc")]);
    assert_eq!(client.response(5), (200, b"3".to_vec()));
    drop(client);
    server.wait_until("all is returned", |state| state.server.budget.in_flight() == 0);
}

#[test]
fn heads_are_limited() {
    let (server, mut client) = connect();
    // References to one long field of the dynamic table: few bytes that become many.
    let mut bomb = head("GET", "/ok");
    bomb.extend([vec![0x40, 1, b'a', 127, 0x81, 0x1e], vec![b'a'; 4_000]].concat());
    bomb.extend([0xbe; 1_000]);
    client.send(&[Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, bomb)]);
    let frame = client.next();
    let refused = std::iter::once(frame)
        .flatten()
        .chain(std::iter::from_fn(|| client.next()))
        .find(|frame| frame.kind == GOAWAY || frame.stream == 1)
        .expect("a refusal");
    assert!(refused.kind == GOAWAY || refused.status() == 431, "{refused:?}");

    let mut client = Client::connect(server.address, &[]);
    let long = |bytes| [head("GET", "/ok"), field("a", &"a".repeat(bytes))].concat();
    let head_frames = |stream, head: Vec<u8>| {
        let mut frames = Vec::new();
        for (at, part) in head.chunks(16_384).enumerate() {
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let flags = if (at + 1) * 16_384 >= head.len() { END_HEADERS } else { 0 };
            frames.push(Frame::new(kind, flags | if at == 0 { END_STREAM } else { 0 }, stream, part));
        }
        frames
    };
    client.send(&head_frames(1, long(60_000)));
    assert_eq!(client.response(1).0, 200);
    client.send(&head_frames(3, long(70_000)));
    assert_eq!(client.response(3).0, 431);
    let many = [head("GET", "/ok"), field("a", "b").repeat(101)].concat();
    client.send(&head_frames(5, many));
    assert_eq!(client.response(5).0, 431);
    let hosts = [head("GET", "/ok"), field("host", "a").repeat(2)].concat();
    client.send(&head_frames(7, hosts));
    assert_eq!(client.response(7).0, 400);
    // As in the official program.
    let without = [field(":method", "GET"), field(":scheme", "https"), field(":path", "/ok")].concat();
    client.send(&head_frames(9, without));
    assert_eq!(client.response(9).0, 200);
    let connection = [head("GET", "/ok"), field("connection", "close")].concat();
    client.send(&head_frames(11, connection));
    assert_eq!(client.next_of(11).code(), PROTOCOL_ERROR);
}

#[test]
fn an_unfinished_head_is_reserved() {
    let server = Server::start_with_budget(Limits::default(), Some(256 << 10));
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(server.address, &[])).collect();
    for client in &mut clients {
        client.send(&[Frame::new(HEADERS, END_STREAM, 1, head("GET", "/ok"))]);
        server.wait_until("memory", |state| state.server.budget.in_flight() > 0);
    }
    let refused = clients[1].rest();
    assert_eq!(goaway_code(&refused), Some(CALM));
    clients[0].send(&[Frame::new(CONTINUATION, END_HEADERS, 1, *b"")]);
    assert_eq!(clients[0].response(1).0, 200);
    server.wait_until("no memory", |state| state.server.budget.in_flight() == 0);
}

#[test]
fn floods_of_frames_end_the_connection() {
    let (server, _) = connect();
    let frame = |kind, flags, stream, payload: &[u8]| Frame::new(kind, flags, stream, payload);
    let update = 1_u32.to_be_bytes();
    for flood in [
        vec![frame(PING, 0, 0, b"12345678")],
        vec![frame(PING, ACK, 0, b"12345678")],
        vec![frame(SETTINGS, 0, 0, b"")],
        vec![frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])],
        vec![frame(2, 0, 1, &[0, 0, 0, 3, 1])],
        vec![frame(WINDOW_UPDATE, 0, 0, &update)],
        vec![frame(200, 0, 0, b"unknown")],
        vec![frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())],
    ] {
        let mut client = Client::connect(server.address, &[]);
        // So that the frames of stream 1 are about a stream that was open.
        client.get(1, "/ok");
        assert_eq!(client.response(1).0, 200);
        let frames = client.flood(&flood);
        assert!(matches!(goaway_code(&frames), None | Some(CALM | STREAM_CLOSED)), "{flood:?}: {frames:?}");
    }
    let mut client = Client::connect(server.address, &[]);
    client.get(1, "/ok");
    assert_eq!(client.response(1).0, 200, "others are served");
}

#[test]
fn rapid_resets_end_the_connection() {
    let (server, mut client) = connect();
    let mut stream = 1;
    let mut requests = Vec::new();
    for _ in 0..1_000 {
        requests.push(Frame::new(HEADERS, END_STREAM | END_HEADERS, stream, head("GET", "/never")));
        requests.push(Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes()));
        stream += 2;
    }
    client.send(&requests);
    assert!(matches!(goaway_code(&client.rest()), None | Some(CALM)));

    // One at a time, so that each stream is accepted before its reset.
    let mut client = Client::connect(server.address, &[]);
    let mut resets = 0;
    for pair in requests.chunks(2) {
        client.send(&pair[..1]);
        client.send(&[Frame::new(PING, 0, 0, *b"12345678")]);
        let is_open = std::iter::from_fn(|| client.next()).any(|frame| frame.kind == PING);
        if !is_open {
            break;
        }
        client.send(&pair[1..]);
        resets += 1;
    }
    assert!((50..500).contains(&resets), "{resets}");
    server.wait_until("no call is left", |state| state.calls.load(Ordering::SeqCst) == 0);
}

#[test]
fn resets_that_the_client_causes_end_the_connection() {
    let (_server, mut client) = connect();
    for at in 0..2 * CAUSED_RESETS_MAX as u32 {
        // Without a path.
        client.send(&[Frame::new(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * at, field(":method", "GET"))]);
    }
    let frames = client.rest();
    assert!(matches!(goaway_code(&frames), None | Some(CALM)));
    assert!(frames.iter().filter(|frame| frame.kind == RST_STREAM).count() <= CAUSED_RESETS_MAX);
}

#[test]
fn continuations_without_end_end_the_connection() {
    let (server, mut client) = connect();
    client.send(&[Frame::new(HEADERS, END_STREAM, 1, head("GET", "/ok"))]);
    let frames = client.flood(&[Frame::new(CONTINUATION, 0, 1, *b"")]);
    assert!(matches!(goaway_code(&frames), None | Some(CALM)), "{frames:?}");
    server.wait_until("no memory", |state| state.server.budget.in_flight() == 0);
}

#[test]
fn tiny_and_empty_frames_of_a_body_end_the_connection() {
    let (server, _) = connect();
    for payload in [&b""[..], b"a"] {
        let mut client = Client::connect(server.address, &[]);
        // A body that nobody reads, so that its frames stay.
        client.begin_put(1, "/never");
        let frames = client.flood(&[Frame::new(DATA, 0, 1, payload)]);
        assert!(matches!(goaway_code(&frames), None | Some(CALM)), "{frames:?}");
    }
    // A body in small pieces that is read is fine.
    let mut client = Client::connect(server.address, &[]);
    client.begin_put(1, "/push");
    for _ in 0..5_000 {
        client.send(&[Frame::new(DATA, 0, 1, *b"ab")]);
    }
    client.send(&[Frame::new(DATA, END_STREAM, 1, *b"c")]);
    assert_eq!(client.response(1), (200, b"10001".to_vec()));
}
