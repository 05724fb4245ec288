//! The server's HTTP layer, run in this process with a small service, and a client that sends raw bytes to it.
//!
//! The service answers like a gateway where that matters: a push to `/metrics/job/probe` reads the body and returns 200,
//! `/-/healthy` returns 200. The other paths exist for tests. `Server::start` is the only place that starts a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown as Side, SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::skip;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use sluicegate::exposition::memory::Unlimited;
use sluicegate::http::accept::serve;
use sluicegate::http::connection::Service;
use sluicegate::http::limits::{Connections, Limits, ServerState};
use sluicegate::http::request_body::{BodyError, RequestBody};
use sluicegate::http::response::error;
use sluicegate::runtime::address::Peer;
use sluicegate::runtime::budget::Budget;
use sluicegate::runtime::listen::Listeners;
use sluicegate::runtime::shutdown::Shutdown;
use sluicegate::runtime::threads::{CoreIndex, Cores, DriverChoice, DriverInUse};
use sluicegate::web_config::Current;

const BODY_BYTES_MAX: u64 = 1 << 20;
/// The size of a piece in the response of `/pieces?COUNT`.
pub const PIECE_BYTES: usize = 16 << 10;
/// How long a client waits before its test fails. Generous, because no test measures speed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The service behind the HTTP layer.
struct TestService;

/// A body that is either `whole`, or the pieces `next..end`: each consists of `PIECE_BYTES` times the last digit of its number.
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

impl Service for TestService {
    type Body = Pieces;

    #[expect(clippy::disallowed_methods, reason = "the server's timers are private to it")]
    async fn call(&self, request: Request<RequestBody>, peer: Peer) -> Response<Pieces> {
        assert!(peer.ip().is_loopback());
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/-/healthy" => Response::new(Bytes::from_static(b"OK").into()),
            "/metrics/job/probe" => match body.collect(Some(BODY_BYTES_MAX), &mut Unlimited).await {
                Ok(_) => Response::new(Bytes::new().into()),
                Err(err) => error(status_of(&err), &err.to_string()),
            },
            "/echo" => match body.collect(None, &mut Unlimited).await {
                Ok(body) => Response::new(body.into()),
                Err(err) => error(status_of(&err), &err.to_string()),
            },
            "/ignore" => Response::new(Bytes::from_static(b"ignored").into()),
            "/slow" => {
                monoio::time::sleep(Duration::from_millis(300)).await;
                Response::new(Bytes::from_static(b"slow").into())
            }
            "/never" => std::future::pending().await,
            "/pieces" => {
                let end = head.uri.query().and_then(|query| query.parse().ok()).unwrap_or(0);
                Response::new(Pieces { next: 0, end, whole: None })
            }
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }
}

fn status_of(err: &BodyError) -> StatusCode {
    match err {
        BodyError::TooLarge | BodyError::OutOfMemory(_) => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
        BodyError::Malformed(_) => StatusCode::BAD_REQUEST,
    }
}

/// A running server. Dropping it shuts it down.
pub struct Server {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    pub connections: Arc<Connections>,
    pub thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(driver: DriverInUse, limits: Limits) -> Server {
        let choice = match driver {
            DriverInUse::IoUring => DriverChoice::IoUring,
            DriverInUse::Epoll => DriverChoice::Epoll,
        };
        let cores = Cores::start(2, choice).expect("a runtime");
        assert_eq!(cores.driver(), driver);
        let listeners = Listeners::bind(&["127.0.0.1:0"], cores.count()).expect("a free port");
        let address = listeners.addresses()[0].tcp().expect("a TCP address");
        let connections = Arc::<Connections>::default();
        let shutdown = Shutdown::new();
        let server = ServerState {
            limits: Arc::new(limits),
            connections: connections.clone(),
            budget: Budget::new(None),
            shutdown: shutdown.clone(),
            web_config: Current::default(),
        };
        let sockets =
            Arc::new(std::sync::Mutex::new(listeners.into_parts(driver).expect("the sockets are open").0));
        let thread = std::thread::spawn(move || {
            cores.run(move |CoreIndex(index)| {
                let sockets = std::mem::take(&mut sockets.lock().expect("no panics")[index]);
                let server = server.clone();
                async move { serve(sockets, Rc::new(TestService), server).await.expect("listeners work") }
            });
        });
        Server { address, shutdown, connections, thread: Some(thread) }
    }

    /// Opens a connection.
    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Client { stream, input: Vec::new() }
    }

    /// Sends bytes on a new connection and returns the statuses of all responses until the server closes it.
    pub fn statuses(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        let mut client = self.client();
        client.send(bytes);
        client.stream.shutdown(Side::Write).expect("still open");
        let mut statuses = Vec::new();
        while let Some(response) = client.response() {
            statuses.push(response.status);
        }
        statuses
    }

    /// Polls until the condition holds.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Shuts the server down and waits for its end.
    pub fn join(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server thread does not panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}

/// A client that sends raw bytes and parses responses.
pub struct Client {
    pub stream: TcpStream,
    input: Vec<u8>,
}

/// A response with its head as it was sent.
#[derive(Debug)]
pub struct RawResponse {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have responded and be closing the connection; the test looks at the response.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Reads the next final response, skipping interim ones. `None` if the server has closed the connection.
    pub fn response(&mut self) -> Option<RawResponse> {
        loop {
            let response = self.any_response()?;
            if response.status != 100 {
                return Some(response);
            }
        }
    }

    /// Reads the next response, possibly an interim one. `None` if the server has closed the connection.
    pub fn any_response(&mut self) -> Option<RawResponse> {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more() {
                let rest = String::from_utf8_lossy(&self.input).into_owned();
                assert!(rest.is_empty(), "the connection was closed within a response: {rest}");
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
            assert!(
                self.read_more(),
                "the connection was closed after {} of {length} bytes of the body",
                self.input.len()
            );
        }
        Some(RawResponse { status, head, body: self.input.drain(..length).collect() })
    }

    /// Whether the server has closed the connection without another response, with a FIN or a reset.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(err) => err.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer).expect("a response in time and no reset");
        self.input.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// A push with additional headers, as raw bytes.
pub fn push(headers: &str, body: &str) -> String {
    format!("PUT /metrics/job/probe HTTP/1.1\r\nHost: probe\r\n{headers}\r\n{body}")
}

/// Runs a test on both network drivers. Without io_uring it reports a skip and runs the rest.
pub fn on_both_drivers(test: impl Fn(DriverInUse)) {
    test(DriverInUse::Epoll);
    if !skip::without_io_uring() {
        test(DriverInUse::IoUring);
    }
}

/// Limits with timeouts that are short enough for a test to wait for.
pub fn short_timeouts() -> Limits {
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
