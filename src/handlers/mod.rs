//! From a request to its response.

pub mod api_groups;
pub mod api_metrics;
pub mod availability;
pub mod grouping_key;
pub(crate) mod metrics;
pub mod push;
pub mod router;
pub mod status_page;
mod time;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, stream};
use http::header::HeaderMap;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};

use self::metrics::PushRefusal;
use self::{
    api_groups as list, api_metrics as groups, availability as storage, grouping_key as group,
    status_page as page,
};
use crate::config::Config;
use crate::encoding::encode::{Coding, Form, PieceEncoder};
use crate::exposition::escape::Escaping;
use crate::exposition::names::NameRules;
use crate::handlers::push::{Format, PushRules};
use crate::handlers::router::{Routed, Router, Target};
use crate::http::response::{self as answers, Answer, Problem};
use crate::http::response_body::Body;
use crate::scrape::{merge as scrape, metrics as scrape_metrics, negotiate, translate};
use crate::shard::key::GroupingKey;
use crate::shard::list::{GroupQuery, ListedGroup};
use crate::shard::outcome::{Outcome, Rejection};
use crate::shard::push::{Mode, Push};
use crate::shard::registry::Registry;
use crate::shard::{Counts, GroupView};
use crate::telemetry::http::{Handler, HttpMetrics};
use crate::telemetry::{self, Recorder};

use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::{Home, Order};
use crate::cores::workers::Workers;
use crate::http::connection::Service;
use crate::http::limits::Connections;
use crate::http::request_body::{BodyError, RequestBody};
use crate::runtime::shutdown::Shutdown;
use crate::scrape::collect::{CopiedUnits, ScrapePlace, collect, compress, make_units};
use crate::storage::store::{NotKept, State, Store};

/// Bodies above this are read on a worker, so that the core goes on serving.
const CORE_BODY_BYTES_MAX: usize = 256 * 1024;

/// Pages of groups put together at one time: each looks at every group.
const LISTS_MAX: usize = 8;

/// What all cores have in common.
pub struct Shared {
    /// What the operator asked for.
    pub config: Config,
    /// When the program started, in Unix seconds.
    pub started_seconds: f64,
    /// Paths.
    pub router: Router,
    /// How pushes are read.
    pub rules: PushRules,
    /// Names taken.
    pub registry: Arc<Registry>,
    /// Orders to cores.
    pub mailboxes: Mailboxes,
    /// Where commands are kept before they are answered.
    pub store: Option<Arc<Store>>,
    /// Threads for long work.
    pub workers: Workers,
    /// Compressed small ranges.
    pub copied: Arc<CopiedUnits>,
    /// Scrapes being answered.
    pub scrapes: Arc<AtomicUsize>,
    /// Pages of groups being put together.
    pub lists: Arc<AtomicUsize>,
    /// The gateway's own metrics.
    pub own_metrics: Recorder,
    /// Counts of requests.
    pub http_metrics: HttpMetrics,
    /// Counts of connections.
    pub connections: Arc<Connections>,
    /// The way to end the program.
    pub shutdown: Shutdown,
}

/// Answers the requests of one core's connections.
pub struct Front {
    shared: Arc<Shared>,
    home: Rc<Home>,
    core: usize,
    encoder: RefCell<PieceEncoder>,
}

impl Service for Front {
    type Body = Body;

    async fn call(&self, request: Request<RequestBody>, peer: SocketAddr) -> Response<Body> {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let raw_path = parts.uri.path();
        let routed = self.shared.router.route(&parts.method, raw_path);
        let head_bytes = head_bytes(&parts.method, raw_path, &parts.headers);
        let is_api = self.shared.router.is_api(raw_path);

        // Encoded bodies are decoded before anything else, on every path but the API's, whether or not the path wants one.
        let mut body = Some(body);
        let mut decoded = Ok(Bytes::new());
        if !is_api && push::is_encoded(&parts.headers) {
            decoded = self.read(&parts.headers, body.take()).await;
        }
        let target = match &routed {
            Some(Routed::Found(target, _)) => Some(*target),
            _ => None,
        };
        if target.is_some_and(|target| matches!(target, Target::Group(_))) && body.is_some() {
            decoded = self.read(&parts.headers, body.take()).await;
        }
        let (answer, pushed_bytes) = match decoded {
            Err(problem) => (problem.into_answer(), None),
            Ok(bytes) => {
                let length = bytes.len() as u64;
                (self.answer(&parts, peer, routed, bytes).await, Some(length))
            }
        };
        self.count(target, &parts.method, &answer, begun, head_bytes + pushed_bytes.unwrap_or(0));
        answer
    }
}

impl Front {
    /// The front of one core.
    pub fn new(shared: Arc<Shared>, home: Rc<Home>, core: usize) -> Rc<Self> {
        Rc::new(Self { shared, home, core, encoder: RefCell::default() })
    }

    async fn answer(&self, parts: &Parts, peer: SocketAddr, routed: Option<Routed>, body: Bytes) -> Answer {
        let method = &parts.method;
        let (target, rest) = match routed {
            None => return answers::error(StatusCode::BAD_REQUEST, "the path is not valid percent-encoding"),
            Some(Routed::Found(target, rest)) => (target, rest),
            Some(Routed::Redirect(to)) => return answers::redirect(method, &to),
            Some(Routed::NotAllowed(methods)) => return answers::not_allowed(&methods),
            Some(Routed::Options(methods)) => return answers::options(&methods),
            Some(Routed::NotFound) => return answers::not_found(),
        };
        if let Some(hindrance) = self.hindrance(target) {
            return hindrance;
        }
        match target {
            Target::Healthy | Target::Ready => answers::text(StatusCode::OK, "OK"),
            Target::Quit => self.quit(method),
            Target::Metrics => self.scrape(&parts.headers).await,
            Target::Group(is_base64) => self.group(parts, peer, (&rest, is_base64), body).await,
            Target::Page => self.page(),
            Target::Static => answers::not_found(),
            Target::ApiStatus => groups::status(&self.shared.config, self.shared.started_seconds),
            Target::ApiMetrics => self.groups(),
            Target::ApiGroups => self.list(parts.uri.query().unwrap_or_default()).await,
            Target::Wipe => self.wipe().await,
            Target::ApiOptions => groups::options(),
        }
    }

    /// What a request cannot be answered for yet, or any more, because of the store.
    fn hindrance(&self, target: Target) -> Option<Answer> {
        let store = self.shared.store.as_ref().filter(|store| !store.is_ready())?;
        let is_write = matches!(target, Target::Group(_) | Target::Wipe);
        match (store.state(), target) {
            (State::Ready, _) => None,
            (State::Failed(why), Target::Healthy) => Some(storage::unhealthy(&why)),
            (State::Failed(why), _) if is_write => Some(storage::failed(&why)),
            (State::Failed(_), _) => None,
            (State::Restoring(..), Target::Healthy | Target::Quit | Target::Static) => None,
            (State::Restoring(..), Target::ApiStatus | Target::ApiOptions) => None,
            (State::Restoring(groups, part), _) => Some(storage::restoring(groups, part)),
        }
    }

    /// Reads and decodes a whole body.
    async fn read(&self, headers: &HeaderMap, body: Option<RequestBody>) -> Result<Bytes, Problem> {
        let Some(body) = body else { return Ok(Bytes::new()) };
        let rules = self.shared.rules;
        let encoded = body.collect(rules.body_bytes_max).await.map_err(|problem| match problem {
            BodyError::TooLarge => push::too_large(),
            BodyError::TimedOut => Problem::new(StatusCode::REQUEST_TIMEOUT, problem),
            BodyError::Broken(_) => Problem::new(StatusCode::BAD_REQUEST, problem),
        })?;
        if !push::is_encoded(headers) {
            return Ok(encoded);
        }
        if encoded.len() <= CORE_BODY_BYTES_MAX / 8 {
            return push::decode(headers, encoded, rules);
        }
        let headers = headers.clone();
        let decoded = self.shared.workers.run(move |_| push::decode(&headers, encoded, rules));
        decoded.await.unwrap_or_else(|| Err(failed()))
    }

    /// PUT, POST and DELETE of a group.
    async fn group(
        &self,
        parts: &Parts,
        peer: SocketAddr,
        (rest, is_base64): (&str, bool),
        body: Bytes,
    ) -> Answer {
        let (method, raw_path) = (&parts.method, parts.uri.path());
        let key = match group::grouping_key(rest, is_base64, raw_path, self.shared.rules.names) {
            Ok(key) => key,
            Err(reason) => return answers::error(StatusCode::BAD_REQUEST, &reason),
        };
        if method == Method::DELETE {
            return match self.command(key.clone(), |place, answer| Order::Delete(key, place, answer)).await {
                Ok(_) => push::deleted(),
                Err(problem) => problem.into_answer(),
            };
        }
        let mode = if method == Method::PUT { Mode::Replace } else { Mode::Merge };
        let prepared = match self.prepare(key, mode, Format::of(&parts.headers), body, peer).await {
            Ok(prepared) => prepared,
            Err(problem) => return problem.into_answer(),
        };
        let key = prepared.key.clone();
        let prepared = Arc::new(prepared);
        // Kept here until the answer, see `Order::Push`.
        let sent = prepared.clone();
        match self.command(key, |place, answer| Order::Push(sent, place, answer)).await {
            Ok(outcome) => {
                self.count_refusal(&outcome);
                push::answer(&outcome, self.shared.rules)
            }
            Err(problem) => problem.into_answer(),
        }
    }

    /// Parses and renders a body; a long one on a worker.
    async fn prepare(
        &self,
        key: GroupingKey,
        mode: Mode,
        format: Format,
        body: Bytes,
        source: SocketAddr,
    ) -> Result<Push, Problem> {
        let rules = self.shared.rules;
        if body.len() <= CORE_BODY_BYTES_MAX {
            return push::prepare(key, mode, format, &body, rules, source);
        }
        let prepared =
            self.shared.workers.run(move |_| push::prepare(key, mode, format, &body, rules, source));
        prepared.await.unwrap_or_else(|| Err(failed()))
    }

    /// Sends a command to the home core of a group and waits for its outcome.
    async fn command<O>(&self, key: GroupingKey, order: O) -> Result<Outcome, Problem>
    where
        O: FnOnce(crate::cores::mailbox::Place, oneshot::Sender<Result<Outcome, NotKept>>) -> Order,
    {
        let mailboxes = &self.shared.mailboxes;
        let core = key.home(mailboxes.cores());
        let is_full = self.shared.store.as_ref().is_some_and(|store| store.is_full());
        let Some(place) = mailboxes.place(core).filter(|_| !is_full) else {
            metrics::count_refusal(PushRefusal::QueueFull);
            return Err(push::queue_full());
        };
        let (answer, told) = oneshot::channel();
        let order = order(place, answer);
        match core == self.core {
            true => self.home.obey(order),
            false => mailboxes.order(core, order),
        }
        told.await.map_err(|_| ending())?.map_err(|NotKept| storage::outcome_unknown())
    }

    async fn scrape(&self, headers: &HeaderMap) -> Answer {
        let shared = &self.shared;
        let begun = Instant::now();
        let places_max = shared.config.limits.web_scrapes_max.map(std::num::NonZero::get);
        let Some(place) = ScrapePlace::take(&shared.scrapes, places_max) else {
            scrape_metrics::count_refused();
            return scrape::too_many();
        };
        let Some(cores) = collect(&shared.registry, &shared.mailboxes).await else {
            return ending().into_answer();
        };
        let (handed, counts): (Vec<_>, Vec<_>) = cores.into_iter().unzip();
        self.set_gauges(&counts);
        let own = telemetry::gather(&shared.own_metrics);
        let (format, escaping) = negotiate::format(headers);
        let coding = negotiate::coding(headers);
        // Without such names there is nothing to escape.
        let spelling = match shared.rules.names {
            NameRules::Legacy => Escaping::AllowUtf8,
            NameRules::Utf8 => escaping,
        };
        let form = Form { format, escaping: spelling, coding };
        // What was handed over is given back before anything is waited for: pushes would have to copy it.
        let units = match form.is_stored_text() {
            true => {
                let units = scrape::merge(&handed, &own);
                drop(handed);
                Some(units)
            }
            false => {
                let plan = translate::plan(&handed, &own, form);
                drop(handed);
                make_units(plan, &shared.workers).await
            }
        };
        let pieces = match (units, coding) {
            (None, _) => None,
            (Some(units), Coding::Identity) => units.into_iter().map(scrape::plain).collect(),
            (Some(units), _) => compress(units, form, &self.encoder, &shared.workers, &shared.copied).await,
        };
        let Some(pieces) = pieces else { return failed().into_answer() };
        let mut answer = scrape::answer(pieces, (format, escaping), coding);
        let encoding = coding.name();
        let bytes = answer.body().len().unwrap_or_default();
        scrape_metrics::record_size(encoding, bytes);
        answer.body_mut().guard(ScrapeEnd { _place: place, begun, encoding });
        answer
    }

    /// Brings the gauges that are counted elsewhere up to date.
    fn set_gauges(&self, counts: &[Counts]) {
        let shared = &self.shared;
        for (core, counts) in counts.iter().enumerate() {
            crate::cores::metrics::set_gauges(core, counts, shared.mailboxes.waiting(core));
        }
        crate::http::metrics::set(&shared.connections);
        if let Some(store) = &shared.store {
            crate::storage::metrics::set_gauges(store);
        }
        scrape_metrics::set_in_progress(shared.scrapes.load(Ordering::Relaxed));
    }

    /// Asks one core after the other for its groups, some at a time, while the client takes them.
    fn all_groups(&self) -> impl Stream<Item = Vec<GroupView>> + 'static {
        let mailboxes = self.shared.mailboxes.clone();
        stream::unfold((0, Some(0)), move |(core, from)| {
            let mailboxes = mailboxes.clone();
            async move {
                let (core, from) = match from {
                    Some(from) => (core, from),
                    None => (core + 1, 0),
                };
                if core >= mailboxes.cores() {
                    return None;
                }
                let (answer, told) = oneshot::channel();
                mailboxes.order(core, Order::Groups(from, answer));
                let (views, next) = told.await.ok()?;
                Some((views, (core, next)))
            }
        })
    }

    fn groups(&self) -> Answer {
        let mut is_first = true;
        let groups = self.all_groups().map(move |views| {
            let mut chunk = Vec::new();
            for view in &views {
                if !std::mem::replace(&mut is_first, false) {
                    chunk.push(b',');
                }
                chunk.extend_from_slice(&groups::group(view));
            }
            Bytes::from(chunk)
        });
        groups::json(Body::stream(framed(
            Bytes::from_static(groups::GROUPS_START),
            groups,
            Bytes::from_static(groups::GROUPS_END),
        )))
    }

    /// A page of groups. Each core looks at its groups slice by slice and does other things in between.
    async fn list(&self, raw_query: &str) -> Answer {
        let shared = &self.shared;
        let Some(_place) = ScrapePlace::take(&shared.lists, Some(LISTS_MAX)) else {
            return answers::busy("too many lists of groups at one time, try again");
        };
        // On a worker: an expression may take a while to be understood.
        let raw_query = raw_query.to_owned();
        let query = match shared.workers.run(move |_| list::query(&raw_query)).await {
            Some(Ok(query)) => Arc::new(query),
            Some(Err(reason)) => return list::bad_query(&reason),
            None => return failed().into_answer(),
        };
        let cores = (0..shared.mailboxes.cores()).map(|core| self.list_core(core, &query));
        let (mut groups, mut matching) = (Vec::new(), 0);
        for listed in join_all(cores).await {
            let Some((some, count)) = listed else { return ending().into_answer() };
            groups.extend(some);
            matching += count;
        }
        list::page(&query, groups, matching)
    }

    /// The first groups of one core that match, and how many do. `None` if the gateway is ending.
    async fn list_core(&self, core: usize, query: &Arc<GroupQuery>) -> Option<(Vec<ListedGroup>, usize)> {
        let (mut groups, mut matching, mut from) = (Vec::new(), 0, Some(0));
        while let Some(start) = from {
            let (answer, told) = oneshot::channel();
            self.shared.mailboxes.order(core, Order::List(query.clone(), start, answer));
            let listed = told.await.ok()?;
            matching += listed.matching;
            from = listed.next;
            groups.extend(listed.groups);
            groups = query.page(groups);
        }
        Some((groups, matching))
    }

    fn page(&self) -> Answer {
        let config = &self.shared.config;
        let rows = self.all_groups().map(|views| {
            let rows: Vec<Bytes> = views.iter().map(page::group).collect();
            Bytes::from(rows.concat())
        });
        page::answer(Body::stream(framed(page::start(config), rows, page::end(config))))
    }

    async fn wipe(&self) -> Answer {
        let mailboxes = &self.shared.mailboxes;
        let told: Vec<_> = (0..mailboxes.cores())
            .map(|core| {
                let (answer, told) = oneshot::channel();
                mailboxes.order(core, Order::Wipe(answer));
                told
            })
            .collect();
        for told in told {
            match told.await {
                Ok(Ok(())) => {}
                Ok(Err(NotKept)) => return storage::outcome_unknown().into_answer(),
                Err(_) => return ending().into_answer(),
            }
        }
        push::deleted()
    }

    fn quit(&self, method: &Method) -> Answer {
        if method == Method::GET {
            return answers::text(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed.");
        }
        if !self.shared.config.lifecycle {
            return answers::text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.");
        }
        tracing::info!("termination was asked for by request");
        self.shared.shutdown.request();
        answers::text(StatusCode::OK, "Requesting termination... Goodbye!")
    }

    fn count(&self, target: Option<Target>, method: &Method, answer: &Answer, begun: Instant, bytes: u64) {
        let handler = match target {
            Some(Target::Group(_)) if method == Method::DELETE => Handler::Delete,
            Some(Target::Group(_)) => Handler::Push,
            Some(Target::Healthy) => Handler::Healthy,
            Some(Target::Ready) => Handler::Ready,
            Some(Target::Page) => Handler::Status,
            Some(Target::Static) => Handler::Static,
            Some(Target::Wipe) => Handler::Wipe,
            Some(Target::ApiStatus) => Handler::ApiStatus,
            Some(Target::ApiMetrics) => Handler::ApiMetrics,
            Some(Target::ApiGroups) => Handler::ApiGroups,
            Some(Target::ApiOptions) => Handler::ApiOptions,
            // As in the official program.
            Some(Target::Metrics | Target::Quit) | None => return,
        };
        let metrics = &self.shared.http_metrics;
        metrics.observe(handler, method.as_str(), answer.status().as_u16());
        if handler == Handler::Push {
            metrics.observe_push(method.as_str(), begun.elapsed().as_secs_f64(), bytes);
        }
    }

    fn count_refusal(&self, outcome: &Outcome) {
        let refusal = match outcome {
            Outcome::Applied => return,
            Outcome::Inconsistent(_) => PushRefusal::Inconsistent,
            Outcome::Rejected(Rejection::SamePushTimes(_)) => PushRefusal::NotAdmitted,
            Outcome::Rejected(Rejection::TooLarge) => PushRefusal::TooLarge,
        };
        metrics::count_refusal(refusal);
    }
}

/// Ends with the body of a scrape's answer: sent, or given up.
struct ScrapeEnd {
    _place: ScrapePlace,
    begun: Instant,
    encoding: &'static str,
}

impl Drop for ScrapeEnd {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        scrape_metrics::record_duration(self.encoding, seconds);
    }
}

fn framed(
    start: Bytes,
    middle: impl Stream<Item = Bytes> + 'static,
    end: Bytes,
) -> impl Stream<Item = Bytes> + 'static {
    stream::iter([start]).chain(middle).chain(stream::iter([end])).filter(|chunk| {
        let keep = !chunk.is_empty();
        async move { keep }
    })
}

/// The size of a request's head, about as the official program counts it.
fn head_bytes(method: &Method, path: &str, headers: &HeaderMap) -> u64 {
    let headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (method.as_str().len() + path.len() + "HTTP/1.1".len() + headers) as u64
}

fn failed() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error, see the log")
}

fn ending() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down")
}
