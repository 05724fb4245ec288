//! Serves HTTP/2 without TLS on one core of this process.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{join, select};
use http::{Request, Response, StatusCode};

use super::client::PATIENCE;
use crate::http::bridge::Bridge;
use crate::http::connection::Service;
use crate::http::deadlines::{ConnectionTable, Stage};
use crate::http::limits::{Connections, Limits, ServerState};
use crate::http::request_body::{BodyError, RequestBody};
use crate::http::response::{empty, error, text};
use crate::http::response_body::ResponseBody;
use crate::http::slots::{Held, ResponseGuard, Slots};
use crate::http::waiting::WaitsFor;
use crate::runtime::address::Peer;
use crate::runtime::budget::Budget;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::tcp::{AcceptStop, Listener};
use crate::runtime::threads::{DriverChoice, run_on_cores};
use crate::runtime::{sleep, spawn};
use crate::web_config::Current;

pub const PIECE_BYTES: usize = 40_000;

/// What a test can see of the server.
#[derive(Clone)]
pub(crate) struct State {
    pub server: ServerState,
    pub slots: Slots,
    /// Calls of the service that have not returned and were not dropped.
    pub calls: Arc<AtomicUsize>,
    /// Connections to close, to make room.
    pub must_make_room: Arc<AtomicUsize>,
}

pub(crate) struct Server {
    pub address: SocketAddr,
    pub(crate) state: State,
    thread: Option<JoinHandle<()>>,
}

struct Nothing;
impl Held for Nothing {}

struct Call(Arc<AtomicUsize>);
impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for State {
    type Body = ResponseBody;

    async fn call(&self, request: Request<RequestBody>, peer: Peer) -> Response<ResponseBody> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _call = Call(self.calls.clone());
        let (parts, body) = request.into_parts();
        match parts.uri.path() {
            "/ok" => text(StatusCode::OK, "ok\n"),
            "/never" => std::future::pending().await,
            "/pieces" => {
                let slot = self.slots.acquire(peer.ip()).await.expect("there are slots");
                let pieces = (0..5).map(|digit| Bytes::from(vec![b'0' + digit; PIECE_BYTES]));
                let mut response = Response::new(ResponseBody::pieces(pieces));
                response.extensions_mut().insert(ResponseGuard::new(slot, Arc::new(Nothing)));
                response
            }
            "/push" => {
                let mut memory = self.server.budget.request();
                match body.collect(Some(1 << 20), &mut memory).await {
                    Ok(body) => ResponseBody::from(body.len().to_string()).into_response(),
                    Err(BodyError::TooLarge) => error(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
                    Err(BodyError::TimedOut) => error(StatusCode::REQUEST_TIMEOUT, "too slow"),
                    Err(other) => error(StatusCode::BAD_REQUEST, &other.to_string()),
                }
            }
            _ => empty(StatusCode::ACCEPTED),
        }
    }
}

impl ResponseBody {
    fn into_response(self) -> Response<ResponseBody> {
        Response::new(self)
    }
}

impl Server {
    pub fn start(limits: Limits) -> Self {
        Self::start_with_budget(limits, None)
    }

    pub fn start_with_budget(limits: Limits, budget_bytes: Option<u64>) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = ServerState {
            limits: Arc::new(limits),
            connections: Arc::new(Connections::default()),
            budget: Budget::new(budget_bytes),
            shutdown: Shutdown::new(),
            web_config: Current::default(),
        };
        let must_make_room = Arc::<AtomicUsize>::default();
        let state = State { server, slots: Slots::new(Some(4)), calls: Arc::default(), must_make_room };
        let serving = state.clone();
        let listener = Arc::new(listener);
        let thread = std::thread::spawn(move || {
            let driver = match std::env::var("SLUICEGATE_TEST_DRIVER").as_deref() {
                Ok("epoll") => DriverChoice::Epoll,
                _ => DriverChoice::Auto,
            };
            run_on_cores(1, driver, move |_| {
                serve(listener.try_clone().expect("a descriptor"), serving.clone())
            })
            .expect("a driver works");
        });
        Self { address, state, thread: Some(thread) }
    }

    /// Waits until something is true.
    pub fn wait_until(&self, what: &str, is_true: impl Fn(&State) -> bool) {
        let start = Instant::now();
        while !is_true(&self.state) {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn shut_down(&self) {
        self.state.server.shutdown.request();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

async fn serve(listener: StdListener, state: State) {
    let table = ConnectionTable::new(&state.server.limits, state.server.budget);
    let stop = AcceptStop::default();
    let listener = Listener::new(listener, &stop).expect("a listener");
    let service = Rc::new(state.clone());
    let accepting = {
        let (table, state) = (table.clone(), state.clone());
        spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (entry, service, state) = (table.enter(), service.clone(), state.clone());
                state.server.connections.enter();
                spawn(async move {
                    let bridge = Bridge::new(stream, entry.deadline().clone());
                    super::super::serve_connection(bridge, entry.deadline(), peer, service, &state.server)
                        .await;
                    state.server.connections.leave();
                });
            }
        })
    };
    let make_room = async {
        loop {
            if state.must_make_room.swap(0, Ordering::SeqCst) > 0 {
                assert!(
                    WaitsFor::ALL.into_iter().any(|waits_for| table.close_longest(waits_for)),
                    "somebody waits"
                );
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let drained = async {
        state.server.shutdown.requested().await;
        table.enter_stage(Stage::Draining);
        stop.stop();
        accepting.await;
        let _ = crate::runtime::timeout(state.server.limits.drain_timeout, table.emptied()).await;
        table.enter_stage(Stage::Dropping);
        table.emptied().await;
    };
    select(std::pin::pin!(drained), std::pin::pin!(join(table.sweep(), make_room))).await;
}
