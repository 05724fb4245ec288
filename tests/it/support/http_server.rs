//! A server to probe, and a client that sends bytes as they are.

use std::io::{ErrorKind, Read, Write};
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
use sluicegate::http::accept::serve;
use sluicegate::http::connection::{Service, error_response};
use sluicegate::http::limits::{Common, Connections, Limits};
use sluicegate::http::request_body::{BodyError, RequestBody};
use sluicegate::runtime::listen::Listeners;
use sluicegate::runtime::shutdown::Shutdown;
use sluicegate::runtime::threads::{CoreIndex, Cores, DriverChoice, DriverInUse};

const BODY_BYTES_MAX: u64 = 1 << 20;
pub const PIECE_BYTES: usize = 16 << 10;
/// How long a client waits before a probe has failed. Generous, because nothing here is about speed.
pub const PATIENCE: Duration = Duration::from_secs(20);

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
pub struct Server {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    pub connections: Arc<Connections>,
    pub thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(driver: DriverInUse, limits: Limits) -> Server {
        Server::start_with(driver, limits, |cores| {
            Listeners::bind(&["127.0.0.1:0"], cores).expect("a free port")
        })
    }

    pub fn start_with(
        driver: DriverInUse,
        limits: Limits,
        listeners: impl FnOnce(usize) -> Listeners,
    ) -> Server {
        let choice = match driver {
            DriverInUse::IoUring => DriverChoice::IoUring,
            DriverInUse::Epoll => DriverChoice::Epoll,
        };
        let cores = Cores::start(2, choice).expect("a runtime");
        assert_eq!(cores.driver(), driver);
        let listeners = listeners(cores.count());
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

    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        Client { stream, input: Vec::new() }
    }

    /// Sends bytes on a connection of their own and returns the statuses of all answers until the server closes.
    pub fn statuses(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        let mut client = self.client();
        client.send(bytes);
        client.stream.shutdown(Side::Write).expect("still open");
        let mut statuses = Vec::new();
        while let Some(answer) = client.answer() {
            statuses.push(answer.status);
        }
        statuses
    }

    pub fn wait_until(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "{what} does not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn join(&mut self) {
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

pub struct Client {
    pub stream: TcpStream,
    input: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // An answer may already be there and the connection closing; the probe looks at the answer.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The next final answer, skipping 100; `None` when the server has closed in order.
    pub fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.any_answer()?;
            if answer.status != 100 {
                return Some(answer);
            }
        }
    }

    pub fn any_answer(&mut self) -> Option<Answer> {
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
    pub fn is_closed(&mut self) -> bool {
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

pub fn push(headers: &str, body: &str) -> String {
    format!("PUT /metrics/job/probe HTTP/1.1\r\nHost: probe\r\n{headers}\r\n{body}")
}

/// Set for a test that another test runs as a process of its own.
pub const OWN_PROCESS: &str = "SLUICEGATE_PROBES_OWN_PROCESS";

/// Whether this process was started for one test alone.
pub fn in_own_process() -> bool {
    std::env::var_os(OWN_PROCESS).is_some()
}

pub fn on_both_drivers(probe: impl Fn(DriverInUse)) {
    probe(DriverInUse::IoUring);
    probe(DriverInUse::Epoll);
}

/// A server with timeouts that a test can wait for.
pub fn hasty() -> Limits {
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
