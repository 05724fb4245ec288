//! From a request to its response: one file per endpoint, listed in [`endpoints`].
//!
//! [`Handlers`] is the service of one core. It routes a request ([`router`]), reads its body if the endpoint wants one, calls the
//! endpoint's function, and counts the response ([`request_metrics`]). Every failure is an [`Error`], which becomes a response in one
//! place.

mod access;
mod all_groups;
mod api;
mod api_groups;
mod api_metrics;
mod api_status;
mod content_type;
mod delete;
mod delete_groups;
mod endpoints;
mod error;
pub mod grouping_key;
mod health;
pub(crate) mod metrics;
mod pins;
pub mod push;
mod quit;
pub(crate) mod request_metrics;
pub mod router;
mod scrape;
mod status_page;
mod time;
mod wipe;

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

pub(crate) use access::Access;
pub use endpoints::Endpoint;
pub(crate) use error::Error;
pub(crate) use request_metrics::RequestMetrics;

use crate::config::Config;
use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::ShardTask;
use crate::cores::workers::Workers;
use crate::http::connection::Service;
use crate::http::limits::Connections;
use crate::http::request_body::{BodyError, RequestBody};
use crate::http::response::{self, Response};
use crate::http::response_body::ResponseBody;
use crate::http::slots::Slots;
use crate::runtime::address::Peer;
use crate::runtime::budget::Budget;
use crate::runtime::permits::Permits;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::stalls::Stalls;
use crate::scrape::cache::PieceCache;
use crate::scrape::encode::Encoder;
use crate::shard::registry::Registry;
use crate::shard::shapes::Shapes;
use crate::storage::store::{State, Store};
use crate::telemetry::Recorder;
use endpoints::BodyUse;
use push::{PushRules, ShapedState};
use router::{Routed, Router};

/// What the handlers of all cores share.
pub(crate) struct Gateway {
    pub config: Config,
    /// When the program started, in Unix seconds.
    pub started_seconds: f64,
    /// `None` without a web configuration file.
    pub access: Option<Access>,
    pub router: Router,
    pub rules: PushRules,
    pub registry: Arc<Registry>,
    /// `None` if every body is parsed.
    pub shapes: Option<Shapes>,
    pub mailboxes: Mailboxes,
    /// `None` if groups are only in memory.
    pub store: Option<Arc<Store>>,
    pub workers: Workers,
    pub piece_cache: PieceCache,
    /// The memory of everything in flight.
    pub budget: Budget,
    pub scrapes: Slots,
    /// Responses that list groups.
    pub group_lists: Slots,
    pub group_queries: Permits,
    /// How many jobs that match selectors run on the workers at a time, over all queries.
    pub matching: async_lock::Semaphore,
    pub own_metrics: Recorder,
    pub request_metrics: RequestMetrics,
    pub stalls: Arc<Stalls>,
    pub connections: Arc<Connections>,
    pub shutdown: Shutdown,
}

/// The service of one core.
pub(crate) struct Handlers {
    gateway: Arc<Gateway>,
    shard_task: Rc<ShardTask>,
    encoder: Encoder,
    shaped: RefCell<ShapedState>,
}

/// How much of a body that no handler wants is read.
const SKIPPED_BODY_BYTES_MAX: u64 = 64 << 10;

/// A routed request.
pub(crate) struct Request<'r> {
    parts: &'r Parts,
    peer: Peer,
    /// The fixed part of the path, without the route prefix.
    path_head: &'static str,
    /// What follows the fixed part of the path, decoded. It may be any bytes.
    path_tail: Cow<'r, [u8]>,
    /// `None` if the endpoint does not read it.
    body: Option<RequestBody>,
}

impl Service for Handlers {
    type Body = ResponseBody;

    // Not an `async fn`, whose future would have room for the request twice. Futures of requests are nested, and each connection has room
    // for one.
    fn call(&self, request: http::Request<RequestBody>, peer: Peer) -> impl Future<Output = Response> {
        let (parts, body) = request.into_parts();
        async move {
            let mut response = match &self.gateway.access {
                None => self.serve(&parts, body, peer).await,
                Some(access) => self.serve_allowed(access, &parts, body, peer).await,
            };
            response::reuse_headers(&mut response, parts.headers);
            response
        }
    }
}

impl Handlers {
    pub(crate) fn new(gateway: Arc<Gateway>, shard_task: Rc<ShardTask>) -> Rc<Self> {
        let encoder = Encoder::new(gateway.workers.clone(), gateway.piece_cache.clone());
        Rc::new(Self { gateway, shard_task, encoder, shaped: RefCell::default() })
    }

    /// Responds to a request according to the web configuration file.
    async fn serve_allowed(&self, access: &Access, parts: &Parts, body: RequestBody, peer: Peer) -> Response {
        if let Err(error) = access.limit_rate() {
            return error.into_response();
        }
        let active = access.active();
        let mut response = match access.authenticate(&active, &parts.headers, peer.ip()).await {
            Ok(()) => self.serve(parts, body, peer).await,
            Err(error) => error.into_response(),
        };
        access::add_headers(&active, &mut response);
        response
    }

    /// Responds to a request that is allowed.
    async fn serve(&self, parts: &Parts, body: RequestBody, peer: Peer) -> Response {
        let started = Instant::now();
        let routed = self.gateway.router.route(&parts.method, parts.uri.path());
        let endpoint = match &routed {
            Some(Routed::Found { endpoint, .. }) => Some(*endpoint),
            _ => None,
        };
        // As in the official program, a chunked body does not count.
        let request_bytes = head_bytes(parts) + body.announced_bytes().unwrap_or_default();
        let response = self.respond(parts, peer, routed, body).await.unwrap_or_else(|error| {
            error.log(&parts.method, peer);
            error.into_response()
        });
        if let Some(endpoint) = endpoint {
            let status = response.status();
            self.gateway.request_metrics.observe(endpoint, &parts.method, status, started, request_bytes);
        }
        response
    }

    /// Reads and discards a body that no handler reads, if it is short. Outside the API, a short body that cannot be decoded is an error
    /// even if nothing wants it, as in the official program.
    async fn skip_body(&self, parts: &Parts, body: RequestBody, use_of_body: BodyUse) -> Result<(), Error> {
        match push::encoding(&parts.headers) {
            Some(encoding) if !self.gateway.router.is_api(parts.uri.path()) => {
                let mut memory = self.gateway.budget.request();
                match body.collect(Some(SKIPPED_BODY_BYTES_MAX), &mut memory).await {
                    Ok(body) => Ok(push::check_encoded(encoding, &body)?),
                    Err(BodyError::TooLarge | BodyError::OutOfMemory(_)) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            _ if use_of_body == BodyUse::Ignored => Ok(()),
            _ => Ok(body.skip(SKIPPED_BODY_BYTES_MAX).await?),
        }
    }

    async fn respond(
        &self,
        parts: &Parts,
        peer: Peer,
        routed: Option<Routed<'_>>,
        body: RequestBody,
    ) -> Result<Response, Error> {
        let use_of_body = match &routed {
            Some(Routed::Found { endpoint, .. }) => endpoint.body(),
            _ => BodyUse::Ignored,
        };
        let body = if use_of_body == BodyUse::Read {
            Some(body)
        } else {
            self.skip_body(parts, body, use_of_body).await?;
            None
        };
        match routed {
            None => Err(Error::InvalidPercentEncoding),
            Some(Routed::NotFound) => Err(Error::NotFound),
            Some(Routed::Redirect(to)) => Ok(response::redirect(&parts.method, &to, parts.uri.query())),
            Some(Routed::NotAllowed(methods)) => Ok(response::method_not_allowed(&methods)),
            Some(Routed::Options(methods)) => Ok(response::allowed_methods(&methods)),
            Some(Routed::Found { endpoint, path_head, path_tail }) => {
                let request = Request { parts, peer, path_head, path_tail, body };
                match self.check_availability(endpoint) {
                    Ok(()) => endpoint.call(self, request).await,
                    Err(error) => Err(Box::pin(self.reject(request, error)).await),
                }
            }
        }
    }

    /// Rejects a request whose body has not been read. Returns the error of the body if it has one, otherwise `error`.
    async fn reject(&self, request: Request<'_>, error: Error) -> Error {
        let Some(body) = request.body else { return error };
        self.skip_body(request.parts, body, BodyUse::Skipped).await.err().unwrap_or(error)
    }

    /// Rejects requests that cannot be served while groups are restored, and writes after storage has failed.
    fn check_availability(&self, endpoint: Endpoint) -> Result<(), Error> {
        let Some(store) = self.gateway.store.as_ref().filter(|store| !store.is_ready()) else {
            return Ok(());
        };
        match store.state() {
            State::Restoring { groups, fraction } if !endpoint.served_while_restoring() => {
                Err(Error::Restoring { groups, fraction })
            }
            State::Failed(cause) if endpoint.writes() => Err(Error::StorageFailed(cause)),
            _ => Ok(()),
        }
    }
}

/// The approximate size of a request's head, counted as the official program does.
fn head_bytes(parts: &Parts) -> u64 {
    let headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (parts.method.as_str().len() + parts.uri.path().len() + "HTTP/1.1".len() + headers) as u64
}
