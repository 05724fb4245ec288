//! HTTP framing: where a request begins and ends, and how its response is sent. Raw bytes, on both network drivers.

use std::io::Write;

use sluicegate::http::limits::Limits;

use crate::support::Gateway;
use crate::support::http_server::{PIECE_BYTES, Server, on_both_drivers, push};

#[test]
fn a_connection_serves_requests_one_after_the_other() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        for _ in 0..3 {
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
            assert_eq!(client.response().expect("a response").status, 200);
            client.send("GET /-/healthy HTTP/1.1\r\nHost: probe\r\n\r\n");
            assert_eq!(client.response().expect("a response").body, b"OK");
        }
    });
}

#[test]
fn ambiguous_requests_end_the_connection() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let hidden = "GET /-/healthy HTTP/1.1\r\nHost: probe\r\n\r\n";
        let cases: &[(&str, String, &[u16])] = &[
            // The chunked coding wins and the connection closes after the response, so the bytes after it are no request.
            (
                "both lengths",
                push("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}")),
                &[200],
            ),
            (
                "both, in reverse order",
                push("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("0\r\n\r\n{hidden}")),
                &[200],
            ),
            (
                "differing lengths",
                push("Content-Length: 4\r\nContent-Length: 5\r\n", &format!("a 1\n{hidden}")),
                &[400],
            ),
            ("list of lengths", push("Content-Length: 4, 5\r\n", &format!("a 1\n{hidden}")), &[400]),
            ("signed length", push("Content-Length: +4\r\n", &format!("a 1\n{hidden}")), &[400]),
            ("negative length", push("Content-Length: -4\r\n", hidden), &[400]),
            ("huge length", push("Content-Length: 99999999999999999999\r\n", hidden), &[400]),
            (
                "unknown coding",
                push("Transfer-Encoding: gzip, chunked\r\n", &format!("0\r\n\r\n{hidden}")),
                &[501],
            ),
            (
                "coding not last",
                push("Transfer-Encoding: chunked, gzip\r\n", &format!("0\r\n\r\n{hidden}")),
                &[400],
            ),
            ("identity", push("Transfer-Encoding: identity\r\n", hidden), &[400]),
            (
                "misspelt coding",
                push("Transfer-Encoding: xchunked\r\n", &format!("0\r\n\r\n{hidden}")),
                &[400],
            ),
            (
                "coding twice",
                push(
                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                    &format!("0\r\n\r\n{hidden}"),
                ),
                &[501],
            ),
            (
                "space before colon",
                push("Transfer-Encoding : chunked\r\n", &format!("0\r\n\r\n{hidden}")),
                &[400],
            ),
            ("folded line", push("X-A: 1\r\n Transfer-Encoding: chunked\r\n", hidden), &[400]),
            ("NUL in a value", push("X-A: \0\r\n", hidden), &[400]),
            ("CR in a value", push("X-A: a\rb\r\n", hidden), &[400]),
            (
                "chunked in HTTP/1.0",
                format!(
                    "PUT /metrics/job/probe HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
                ),
                &[400],
            ),
            ("no version", "GET /-/healthy\r\n\r\n".to_owned(), &[400]),
            ("another protocol", "\x16\x03\x01\x02\0\x01\0".to_owned(), &[400]),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(server.statuses(bytes), *expected, "{name} on {driver}");
        }
        server.wait_until("the end of all connections", |server| server.connections.current() == 0);
    });
}

#[test]
fn a_request_needs_exactly_one_host_header() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\n\r\n"), [400]);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), [400]);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\nHost:\r\n\r\n"), [200]);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.0\r\n\r\n"), [200]);
    });
}

#[test]
fn error_responses_are_plain_text_with_a_final_line_feed() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send("GET /-/healthy HTTP/1.1\r\n\r\n");
        let response = client.response().expect("a response");
        assert_eq!(response.body, b"missing required Host header\n");
        assert!(response.head.contains("content-type: text/plain; charset=utf-8\r\n"), "{}", response.head);
        assert!(response.head.contains("x-content-type-options: nosniff\r\n"), "{}", response.head);
    });
}

#[test]
fn a_client_that_half_closes_its_connection_still_gets_the_response() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        assert_eq!(server.statuses(push("Content-Length: 4\r\n", "a 1\n")), [200]);
        assert_eq!(server.statuses("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
        let upgrade =
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        assert_eq!(server.statuses(push(&format!("{upgrade}Content-Length: 4\r\n"), "a 1\n")), [200]);
        assert_eq!(server.statuses(push("Content-Length: 5\r\n", "a 1\n")), [400], "a truncated body");
        assert_eq!(server.statuses(push("Transfer-Encoding: chunked\r\n", "4\r\na 1\n\r\n")), [400]);
    });
}

#[test]
fn pipelined_requests_get_responses_in_order() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut bytes = String::new();
        // More than any single head may have.
        let padding = "x".repeat(2 << 10);
        for number in 0..50 {
            let body = format!("number {number} {padding}");
            bytes +=
                &format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
        let mut client = server.client();
        client.send(bytes);
        for number in 0..50 {
            let response = client.response().expect("a response");
            assert_eq!(String::from_utf8_lossy(&response.body), format!("number {number} {padding}"));
        }
    });
}

#[test]
fn chunked_bodies_are_decoded_and_invalid_ones_rejected() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let chunked = |body: &str| {
            let head =
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            let mut client = server.client();
            client.send(format!("{head}{body}"));
            let response = client.response().expect("a response");
            assert!(client.response().is_none());
            (response.status, String::from_utf8_lossy(&response.body).into_owned())
        };
        assert_eq!(chunked("2\r\na \r\n2\r\n1\n\r\n0\r\n\r\n"), (200, "a 1\n".to_owned()));
        assert_eq!(chunked("4;name=value;other=\"x\"\r\na 1\n\r\n0;last\r\n\r\n"), (200, "a 1\n".to_owned()));
        assert_eq!(chunked("4\r\na 1\n\r\n0\r\nX-Trailer: 1\r\nOther: 2\r\n\r\n"), (200, "a 1\n".to_owned()));
        assert_eq!(chunked("0004\r\na 1\n\r\n000\r\n\r\n"), (200, "a 1\n".to_owned()));
        for invalid in [
            "ffffffffffffffffff\r\n",
            "-1\r\n",
            "0x4\r\na 1\n\r\n0\r\n\r\n",
            "4\na 1\n\n0\n\n",
            "4\r\na 1\nXX0\r\n\r\n",
            "g\r\n",
            "\r\n",
            "4\r\na 1\n\r\n0\r\nno trailer at all\r\n\r\n",
        ] {
            let (status, text) = chunked(invalid);
            assert_eq!(status, 400, "{invalid:?}");
            assert!(text.starts_with("the body is malformed") && text.ends_with('\n'), "{invalid:?}: {text}");
        }
        let endless_extension = format!("4;{}\r\na 1\n\r\n0\r\n\r\n", "x".repeat(100_000));
        assert_eq!(chunked(&endless_extension).0, 400);
        let endless_trailers = format!("0\r\n{}\r\n", "X-Trailer: 1\r\n".repeat(100_000));
        assert_eq!(chunked(&endless_trailers).0, 400);
    });
}

#[test]
fn continue_is_sent_only_if_the_body_will_be_read() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send(push("Content-Length: 4\r\nExpect: 100-continue\r\n", ""));
        assert_eq!(client.any_response().expect("a response").status, 100);
        client.send("a 1\n");
        assert_eq!(client.any_response().expect("a response").status, 200);

        let refused = push("Content-Length: 1048577\r\nExpect: 100-continue\r\n", "");
        let mut client = server.client();
        client.send(refused);
        assert_eq!(client.any_response().expect("a response").status, 413);
        assert!(client.is_closed());
    });
}

#[test]
fn old_clients_and_bare_line_feeds() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send("PUT /metrics/job/probe HTTP/1.0\r\nContent-Length: 4\r\n\r\na 1\n");
        let response = client.response().expect("a response");
        assert!(response.head.starts_with("HTTP/1.0 200"), "{}", response.head);
        assert!(client.response().is_none());

        let mut client = server.client();
        for _ in 0..2 {
            client.send(
                "PUT /metrics/job/probe HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\na 1\n",
            );
            let response = client.response().expect("a response");
            assert!(
                response.head.to_ascii_lowercase().contains("connection: keep-alive"),
                "{}",
                response.head
            );
        }

        // RFC 9112, section 2.2 allows bare line feeds, and the official program accepts them.
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\nHost: a\n\n"), [200]);
        assert_eq!(server.statuses("\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
    });
}

#[test]
fn large_bodies_arrive_unchanged_in_both_directions() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let body: Vec<u8> =
            (0..5_000_000_u32).map(|number| number.to_le_bytes()[(number % 3) as usize]).collect();
        for length in [0, 1, 2_047, 2_048, 4_095, 4_096, 4_097, 65_536, 700_001, body.len()] {
            let mut client = server.client();
            let sender = {
                let mut stream = client.stream.try_clone().expect("a descriptor");
                let body = body[..length].to_vec();
                std::thread::spawn(move || {
                    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
                    stream
                        .write_all(head.as_bytes())
                        .and_then(|()| stream.write_all(&body))
                        .expect("the server reads");
                })
            };
            let response = client.response().expect("a response");
            sender.join().expect("no panic");
            assert!(response.status == 200 && response.body == body[..length], "{length} bytes on {driver}");
        }
        let mut client = server.client();
        client.send("GET /pieces?1000 HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response().expect("a response");
        assert_eq!(response.body.len(), 1000 * PIECE_BYTES);
        for (number, piece) in response.body.chunks(PIECE_BYTES).enumerate() {
            let digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            assert!(piece.iter().all(|&byte| byte == digit), "piece {number}");
        }
    });
}

/// The job of each group, after a request with a target in which some bytes are not escaped.
#[test]
fn a_target_may_contain_any_printable_byte() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    // In one piece, so that the second request follows a body in the same read, and byte by byte.
    for (index, piece_bytes) in [usize::MAX, 1].into_iter().enumerate() {
        let targets =
            ["/metrics/job/C#tests", "/metrics/job/a/instance/<host>", "/metrics/job/`\"{}|\\^?x=<#>"];
        let message: String = targets
            .iter()
            .map(|target| format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nm {index}\n"))
            .collect();
        for piece in message.as_bytes().chunks(piece_bytes.min(message.len())) {
            connection.send(piece).expect("the gateway reads");
        }
        for target in targets {
            assert_eq!(connection.read("PUT").expect("a response").status, 200, "{target}");
        }
        let scrape = gateway.scrape();
        let value = index.to_string();
        for labels in
            [&[("job", "C#tests")][..], &[("job", "a"), ("instance", "<host>")], &[("job", "`\"{}|\\^")]]
        {
            assert_eq!(scrape.value("m", labels), Some(value.as_str()), "{labels:?}");
        }
        assert_eq!(scrape.samples("m").count(), 3);
    }
}

#[test]
fn a_target_after_a_chunked_body_is_escaped_too() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    let message = "PUT /metrics/job/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        2;x\r\nm \r\n2\r\n1\n\r\n0\r\nt: 1\r\n\r\nPUT /metrics/job/C# HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nm 2\n";
    connection.send(message.as_bytes()).expect("the gateway reads");
    for _ in 0..2 {
        assert_eq!(connection.read("PUT").expect("a response").status, 200);
    }
    assert_eq!(gateway.scrape().value("m", &[("job", "C#")]), Some("2"));
}

#[test]
fn corners_of_http_are_answered_as_by_the_official_program() {
    let gateway = Gateway::start(&[]);
    let exchange = |message: &str| {
        let method = message.split(' ').next().expect("a method");
        gateway.connect().exchange(method, message.as_bytes()).expect("a response")
    };
    assert_eq!(exchange("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(exchange("GET * HTTP/1.1\r\nHost: x\r\n\r\n").status, 400);
    assert_eq!(exchange("GET /-/healthy HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n").status, 417);
    assert_eq!(exchange("GET /-/healthy HTTP/1.1\r\nHost: x\r\nExpect:\r\n\r\n").status, 200);
    // The page has no length, so the end of the connection ends it.
    let page = exchange("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((page.status, page.header("connection")), (200, Some("close")));
    let healthy = exchange("GET /-/healthy HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((healthy.status, healthy.header("connection")), (200, Some("keep-alive")));
}
