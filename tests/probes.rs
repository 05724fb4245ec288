//! Raw bytes against the HTTP side of the server, on both drivers: what a hostile, broken or slow client may send, and what
//! must come back.
//!
//! The server is started in-process with a service that answers like a gateway where it matters here: a push to
//! `/metrics/job/probe` reads the body and is 200, `/-/healthy` is 200. The other paths are for probes alone (see `Probe`).
//! `Server::start` is the only place that knows how a server comes to life.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown as Side, SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use sluicegate::runtime::net::body::{BodyError, RequestBody};
use sluicegate::runtime::net::cores::{CoreIndex, Cores, DriverChoice, DriverInUse};
use sluicegate::runtime::net::http::{Service, error_response};
use sluicegate::runtime::net::limits::{Common, Connections, Limits};
use sluicegate::runtime::net::listen::Listeners;
use sluicegate::runtime::net::serve::serve;
use sluicegate::runtime::net::shutdown::Shutdown;

const BODY_BYTES_MAX: u64 = 1 << 20;
const PIECE_BYTES: usize = 16 << 10;
/// How long a client waits before a probe has failed. Generous, because nothing here is about speed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The service under the probes.
struct Probe;

/// A body of `left` pieces, each `PIECE_BYTES` of its number's last digit.
struct Pieces {
    next: usize,
    end: usize,
    whole: Option<Bytes>,
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Pieces {
        Pieces { next: 0, end: 0, whole: Some(whole).filter(|whole| !whole.is_empty()) }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(whole) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        if self.next == self.end {
            return Poll::Ready(None);
        }
        let digit = b'0' + u8::try_from(self.next % 10).unwrap_or(0);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![digit; PIECE_BYTES])))))
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_none() && self.next == self.end
    }

    fn size_hint(&self) -> SizeHint {
        let whole = self.whole.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact((whole + (self.end - self.next) * PIECE_BYTES) as u64)
    }
}

impl Service for Probe {
    type Body = Pieces;

    async fn call(&self, request: Request<RequestBody>, peer: SocketAddr) -> Response<Pieces> {
        assert!(peer.ip().is_loopback());
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/-/healthy" => Response::new(Bytes::from_static(b"OK").into()),
            "/metrics/job/probe" => match body.collect(Some(BODY_BYTES_MAX)).await {
                Ok(_) => Response::new(Bytes::new().into()),
                Err(err) => error_response(status_of(&err), &err.to_string()),
            },
            "/echo" => match body.collect(None).await {
                Ok(body) => Response::new(body.into()),
                Err(err) => error_response(status_of(&err), &err.to_string()),
            },
            "/ignore" => Response::new(Bytes::from_static(b"ignored").into()),
            "/slow" => {
                monoio::time::sleep(Duration::from_millis(300)).await;
                Response::new(Bytes::from_static(b"slow").into())
            }
            "/pieces" => {
                let end = head.uri.query().and_then(|query| query.parse().ok()).unwrap_or(0);
                Response::new(Pieces { next: 0, end, whole: None })
            }
            _ => error_response(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }
}

fn status_of(err: &BodyError) -> StatusCode {
    match err {
        BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken(_) => StatusCode::BAD_REQUEST,
    }
}

/// A running server; ends with the value.
struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(driver: DriverInUse, limits: Limits) -> Server {
        let choice = match driver {
            DriverInUse::IoUring => DriverChoice::IoUring,
            DriverInUse::Epoll => DriverChoice::Epoll,
        };
        let cores = Cores::start(2, choice).expect("a runtime");
        assert_eq!(cores.driver(), driver);
        let listeners = Listeners::bind(&["127.0.0.1:0"], cores.count()).expect("a free port");
        let address = listeners.addresses()[0];
        let connections = Arc::<Connections>::default();
        let shutdown = Shutdown::new();
        let common =
            Common { limits: Arc::new(limits), connections: connections.clone(), shutdown: shutdown.clone() };
        let sockets = Arc::new(std::sync::Mutex::new(listeners.into_cores()));
        let thread = std::thread::spawn(move || {
            cores.run(move |CoreIndex(index)| {
                let sockets = std::mem::take(&mut sockets.lock().expect("no panics")[index]);
                let common = common.clone();
                async move { serve(sockets, Rc::new(Probe), common).await.expect("listeners work") }
            });
        });
        Server { address, shutdown, connections, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Client { stream, input: Vec::new() }
    }

    /// Sends bytes on a connection of their own and returns the statuses of all answers until the server closes.
    fn statuses(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        let mut client = self.client();
        client.send(bytes);
        client.stream.shutdown(Side::Write).expect("still open");
        let mut statuses = Vec::new();
        while let Some(answer) = client.answer() {
            statuses.push(answer.status);
        }
        statuses
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "{what} does not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn join(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends well");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // An answer may already be there and the connection closing; the probe looks at the answer.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The next final answer, skipping 100; `None` when the server has closed in order.
    fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.any_answer()?;
            if answer.status != 100 {
                return Some(answer);
            }
        }
    }

    fn any_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more() {
                let rest = String::from_utf8_lossy(&self.input).into_owned();
                assert!(rest.is_empty(), "half an answer: {rest}");
                return None;
            }
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).expect("heads are ASCII");
        let status = head[9..12].parse().expect("a status");
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.trim().parse().expect("a number"));
        while self.input.len() < length {
            assert!(self.read_more(), "the body is cut off after {} of {length} bytes", self.input.len());
        }
        Some(Answer { status, head, body: self.input.drain(..length).collect() })
    }

    /// Whether the server closed without another answer, by a FIN or a reset.
    fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(err) => err.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer).expect("an answer in time and no reset");
        self.input.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

fn push(headers: &str, body: &str) -> String {
    format!("PUT /metrics/job/probe HTTP/1.1\r\nHost: probe\r\n{headers}\r\n{body}")
}

fn on_both_drivers(probe: impl Fn(DriverInUse)) {
    probe(DriverInUse::IoUring);
    probe(DriverInUse::Epoll);
}

/// A server with timeouts that a test can wait for.
fn hasty() -> Limits {
    Limits {
        head_timeout: Some(Duration::from_millis(300)),
        request_timeout: Some(Duration::from_millis(300)),
        response_timeout: Some(Duration::from_millis(300)),
        idle_timeout: Some(Duration::from_millis(300)),
        linger_timeout: Duration::from_millis(100),
        drain_timeout: Duration::from_secs(2),
        ..Limits::default()
    }
}

#[test]
fn requests_on_one_connection_are_answered_one_after_the_other() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        for _ in 0..3 {
            client.send(push("Content-Length: 4\r\n", "a 1\n"));
            assert_eq!(client.answer().expect("an answer").status, 200);
            client.send("GET /-/healthy HTTP/1.1\r\nHost: probe\r\n\r\n");
            assert_eq!(client.answer().expect("an answer").body, b"OK");
        }
    });
}

#[test]
fn what_could_smuggle_a_request_ends_the_connection() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let hidden = "GET /-/healthy HTTP/1.1\r\nHost: probe\r\n\r\n";
        let cases: &[(&str, String, &[u16])] = &[
            // The chunks count, the connection ends behind the answer: what follows is never a request.
            (
                "both lengths",
                push("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}")),
                &[200],
            ),
            (
                "both, turned",
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
                "blank before colon",
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
fn a_host_is_named_exactly_once() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\n\r\n"), [400]);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), [400]);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\r\nHost:\r\n\r\n"), [200]);
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.0\r\n\r\n"), [200]);
    });
}

#[test]
fn errors_are_plain_text_with_a_final_line_feed() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send("GET /-/healthy HTTP/1.1\r\n\r\n");
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.body, b"missing required Host header\n");
        assert!(answer.head.contains("content-type: text/plain; charset=utf-8\r\n"), "{}", answer.head);
        assert!(answer.head.contains("x-content-type-options: nosniff\r\n"), "{}", answer.head);
    });
}

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
        assert_eq!((server.connections.accepted(), server.connections.timed_out()), (1, 0));
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
fn a_client_that_closes_its_side_still_gets_the_answer() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        assert_eq!(server.statuses(push("Content-Length: 4\r\n", "a 1\n")), [200]);
        assert_eq!(server.statuses("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
        let upgrade =
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        assert_eq!(server.statuses(push(&format!("{upgrade}Content-Length: 4\r\n"), "a 1\n")), [200]);
        assert_eq!(server.statuses(push("Content-Length: 5\r\n", "a 1\n")), [400], "a body cut off");
        assert_eq!(server.statuses(push("Transfer-Encoding: chunked\r\n", "4\r\na 1\n\r\n")), [400]);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut bytes = String::new();
        for number in 0..50 {
            let body = format!("number {number}");
            bytes +=
                &format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
        let mut client = server.client();
        client.send(bytes);
        for number in 0..50 {
            let answer = client.answer().expect("an answer");
            assert_eq!(String::from_utf8_lossy(&answer.body), format!("number {number}"));
        }
    });
}

#[test]
fn chunked_bodies() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let chunked = |body: &str| {
            let head =
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            let mut client = server.client();
            client.send(format!("{head}{body}"));
            let answer = client.answer().expect("an answer");
            assert!(client.answer().is_none());
            (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
        };
        assert_eq!(chunked("2\r\na \r\n2\r\n1\n\r\n0\r\n\r\n"), (200, "a 1\n".to_owned()));
        assert_eq!(chunked("4;name=value;other=\"x\"\r\na 1\n\r\n0;last\r\n\r\n"), (200, "a 1\n".to_owned()));
        assert_eq!(chunked("4\r\na 1\n\r\n0\r\nX-Trailer: 1\r\nOther: 2\r\n\r\n"), (200, "a 1\n".to_owned()));
        assert_eq!(chunked("0004\r\na 1\n\r\n000\r\n\r\n"), (200, "a 1\n".to_owned()));
        for absurd in [
            "ffffffffffffffffff\r\n",
            "-1\r\n",
            "0x4\r\na 1\n\r\n0\r\n\r\n",
            "4\na 1\n\n0\n\n",
            "4\r\na 1\nXX0\r\n\r\n",
            "g\r\n",
            "\r\n",
            "4\r\na 1\n\r\n0\r\nno trailer at all\r\n\r\n",
        ] {
            let (status, text) = chunked(absurd);
            assert_eq!(status, 400, "{absurd:?}");
            assert!(text.starts_with("the body is broken") && text.ends_with('\n'), "{absurd:?}: {text}");
        }
        let endless_extension = format!("4;{}\r\na 1\n\r\n0\r\n\r\n", "x".repeat(100_000));
        assert_eq!(chunked(&endless_extension).0, 400);
        let endless_trailers = format!("0\r\n{}\r\n", "X-Trailer: 1\r\n".repeat(100_000));
        assert_eq!(chunked(&endless_trailers).0, 400);
    });
}

#[test]
fn continue_is_sent_when_the_body_is_wanted() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send(push("Content-Length: 4\r\nExpect: 100-continue\r\n", ""));
        assert_eq!(client.any_answer().expect("an answer").status, 100);
        client.send("a 1\n");
        assert_eq!(client.any_answer().expect("an answer").status, 200);

        let refused = push("Content-Length: 1048577\r\nExpect: 100-continue\r\n", "");
        let mut client = server.client();
        client.send(refused);
        assert_eq!(client.any_answer().expect("an answer").status, 413);
        assert!(client.is_closed());
    });
}

#[test]
fn old_clients_and_bare_line_feeds() {
    on_both_drivers(|driver| {
        let server = Server::start(driver, Limits::default());
        let mut client = server.client();
        client.send("PUT /metrics/job/probe HTTP/1.0\r\nContent-Length: 4\r\n\r\na 1\n");
        let answer = client.answer().expect("an answer");
        assert!(answer.head.starts_with("HTTP/1.0 200"), "{}", answer.head);
        assert!(client.answer().is_none());

        let mut client = server.client();
        for _ in 0..2 {
            client.send(
                "PUT /metrics/job/probe HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\na 1\n",
            );
            let answer = client.answer().expect("an answer");
            assert!(answer.head.to_ascii_lowercase().contains("connection: keep-alive"), "{}", answer.head);
        }

        // Accepted, as RFC 9112 section 2.2 allows and the official program does; one request, one answer.
        assert_eq!(server.statuses("GET /-/healthy HTTP/1.1\nHost: a\n\n"), [200]);
        assert_eq!(server.statuses("\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n"), [200]);
    });
}

#[test]
fn a_thousand_aborted_connections_leave_nothing_behind() {
    // Descriptors are counted, so no other test may run in the same process.
    let program = std::env::current_exe().expect("a path");
    let output = std::process::Command::new(program)
        .args(["--exact", "aborted_connections_in_a_process_of_their_own", "--ignored", "--test-threads=1"])
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started by a_thousand_aborted_connections_leave_nothing_behind"]
fn aborted_connections_in_a_process_of_their_own() {
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
fn large_bodies_pass_unchanged_in_both_directions() {
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
                    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).expect("taken");
                })
            };
            let answer = client.answer().expect("an answer");
            sender.join().expect("no panic");
            assert!(answer.status == 200 && answer.body == body[..length], "{length} bytes on {driver}");
        }
        let mut client = server.client();
        client.send("GET /pieces?1000 HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.body.len(), 1000 * PIECE_BYTES);
        for (number, piece) in answer.body.chunks(PIECE_BYTES).enumerate() {
            let digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            assert!(piece.iter().all(|&byte| byte == digit), "piece {number}");
        }
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
        assert_eq!(server.connections.timed_out(), 1);
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
                .args(["--exact", "a_server_that_signals_end", "--ignored", "--nocapture"])
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

#[test]
#[ignore = "started by a_signal_drains_and_a_second_one_ends_at_once"]
fn a_server_that_signals_end() {
    let mut server = Server::start(DriverInUse::Epoll, Limits::default());
    server.shutdown.request_on_signals().expect("handlers");
    println!("\nlistening on {}", server.address);
    server.thread.take().expect("running").join().expect("the server ends well");
}
