//! `PUT` and `POST /metrics/job/…`: replaces a group, or the families of a group.
//!
//! The accepting core reads, decodes, parses, checks and renders the body. The home core of the group only compares the result with the
//! other groups and splices the rendered lines.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};

use super::endpoints::JOB_BASE64;
use super::grouping_key::{GroupPath, grouping_key};
use super::metrics::{PushRejection, count_rejection};
use super::{Error, Handlers, Request, content_type};
use crate::cores::command::ShardCommand;
use crate::cores::shard_task::CommandError;
use crate::cores::workers::Workers;
use crate::encoding::decode::{ContentEncoding, DecodeError};
use crate::exposition::memory::{Memory, OutOfMemory, Unlimited, WhileWanted};
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::{self, ProtobufError};
use crate::exposition::render::{RenderError, render_within};
use crate::exposition::text::{self, ParseError};
use crate::http::response::{Response, empty};
use crate::runtime::budget::Reservation;
use crate::runtime::permits::Permit;
use crate::shard::key::GroupingKey;
use crate::shard::outcome::{Outcome, Rejection};
use crate::shard::push::{Content, Disposal, Mode, Push};
use crate::shard::shapes::{Payments, Shape, ShapedPush};

/// Longer encoded bodies are decoded on a worker. Shorter ones too, if they turn out to be long.
const CORE_ENCODED_BYTES_MAX: usize = 32 << 10;
/// How many times longer than the maximum body the rendered lines may be: they repeat the labels of the path.
const RENDERED_FACTOR: usize = 4;
/// How many times longer than its own body the rendered lines of a push may be. With an ordinary grouping key, even the shortest line
/// becomes less than 64 times as long.
const RENDERED_BODY_FACTOR: usize = 64;
/// Lines up to this size may be rendered from any body.
const RENDERED_BYTES_MIN: usize = 4 << 20;

/// How many lists of numbers a core keeps, and how long they may be.
const SPARE_NUMBERS_MAX: usize = 64;
const SPARE_NUMBERS_LEN_MAX: usize = 1024;

/// The rules for reading a push.
#[derive(Debug, Clone, Copy)]
pub struct PushRules {
    /// Maximum bytes of a body after decoding; `None` means no limit.
    pub body_bytes_max: Option<u64>,
    /// Whether an inconsistent push gets a 400. Otherwise the response is 202, and only the group's failure time shows the rejection.
    pub consistency_check: bool,
    /// Which names are accepted.
    pub names: NameRules,
}

impl PushRules {
    /// The limits of any push.
    pub fn sizes(&self) -> SizeLimits {
        let decoded_bytes_max =
            self.body_bytes_max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
        SizeLimits {
            decoded_bytes_max,
            rendered_bytes_max: decoded_bytes_max.saturating_mul(RENDERED_FACTOR),
        }
    }
}

/// How large a push may become.
#[derive(Debug, Clone, Copy)]
pub struct SizeLimits {
    /// Bytes of the decoded body.
    decoded_bytes_max: usize,
    /// Bytes of the rendered lines.
    rendered_bytes_max: usize,
}

impl SizeLimits {
    /// What a core prepares itself, in a few milliseconds at most. Larger pushes go to a worker, which begins again: what a push becomes is
    /// known only when it is done.
    const CORE: Self = Self { decoded_bytes_max: 256 << 10, rendered_bytes_max: 1 << 20 };

    /// The limits for a push that is prepared on a core.
    fn on_core(self) -> Self {
        Self {
            decoded_bytes_max: self.decoded_bytes_max.min(Self::CORE.decoded_bytes_max),
            rendered_bytes_max: self.rendered_bytes_max.min(Self::CORE.rendered_bytes_max),
        }
    }

    /// Bytes of the lines that may be rendered from a decoded body of this length.
    fn rendered_bytes_max(&self, body_bytes: usize) -> usize {
        let of_body = body_bytes.saturating_mul(RENDERED_BODY_FACTOR).max(RENDERED_BYTES_MIN);
        self.rendered_bytes_max.min(of_body)
    }
}

/// Why a body cannot be pushed. No group is changed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Its content encoding cannot be decoded.
    #[error("{}", decode_text(encoding, source))]
    Decode {
        /// The content encoding.
        encoding: &'static ContentEncoding,
        /// The decoder's reason.
        source: DecodeError,
    },
    /// It is not valid text; names the line.
    #[error(transparent)]
    Text(ParseError),
    /// It is not valid protobuf; names the message.
    #[error(transparent)]
    Protobuf(ProtobufError),
    /// It is too large, as sent or decoded.
    #[error("the pushed body is too large")]
    TooLarge,
    /// Its lines are too large.
    #[error(
        "the pushed series and the labels of the group are too large: together more than {bytes_max} bytes"
    )]
    RenderedTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// It does not fit into the memory for requests.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// A worker panicked; the reason is in the log.
    #[error("internal error, see the log")]
    Panicked,
}

/// Errors of the decoder for snappy begin with its name already.
fn decode_text(encoding: &ContentEncoding, source: &DecodeError) -> String {
    let (name, text) = (encoding.name(), source.to_string());
    if text.starts_with(&format!("{name}: ")) { text } else { format!("{name}: {text}") }
}

impl From<ParseError> for PushError {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::OutOfMemory(error) => Self::OutOfMemory(error),
            error => Self::Text(error),
        }
    }
}

impl From<ProtobufError> for PushError {
    fn from(error: ProtobufError) -> Self {
        match error {
            ProtobufError::OutOfMemory(error) => Self::OutOfMemory(error),
            error => Self::Protobuf(error),
        }
    }
}

/// A push whose body has been read.
#[derive(Debug)]
pub struct ReceivedPush {
    /// The group.
    pub key: GroupingKey,
    /// Replace or merge.
    pub mode: Mode,
    /// The format of the decoded body.
    pub format: Format,
    /// The encoding of the body; `None` if it is sent as it is.
    pub encoding: Option<&'static ContentEncoding>,
    /// The body.
    pub body: Bytes,
    /// The address of the client, if it has one.
    pub source: Option<SocketAddr>,
}

/// 200, or 202 without the consistency check.
pub(super) async fn push(handlers: &Handlers, mut request: Request<'_>) -> Result<Response, Error> {
    let rules = handlers.gateway.rules;
    let key = match grouping_key(&request.group_path(), rules.names) {
        Ok(key) => key,
        // In a box, because it is large and rare.
        Err(error) => return Err(Box::pin(handlers.reject(request, error.into())).await),
    };
    let mut memory = handlers.gateway.budget.request();
    let body = match request.body.take() {
        Some(body) => body.collect(rules.body_bytes_max, &mut memory).await?,
        None => Bytes::new(),
    };
    let headers = &request.parts.headers;
    let received = ReceivedPush {
        key,
        mode: if request.parts.method == Method::PUT { Mode::Replace } else { Mode::Merge },
        format: Format::of(headers),
        encoding: encoding(headers),
        body,
        source: request.peer.address(),
    };
    let outcome = match handlers.shaped(&received) {
        Some(push) => {
            drop(received);
            memory.shrink_to(push.memory_bytes());
            let (outcome, numbers) = handlers.shard_task.push_numbers_at_home(push, memory).await;
            handlers.shaped.borrow_mut().reuse(numbers);
            outcome
        }
        None => {
            let (push, memory) = handlers.prepare(received, memory).await?;
            let bytes = push.rendered_bytes() as u64;
            let push = Arc::new(push);
            // This clone keeps the push alive until the result arrives, see `ShardCommand::Push`.
            let sent = push.clone();
            let command = |permit: Permit, tx| {
                let permit = match memory {
                    Some(memory) => permit.holding(memory),
                    None => permit,
                };
                ShardCommand::Push(sent, permit, tx)
            };
            handlers.shard_task.execute_at_home(&push.key, bytes, command).await
        }
    };
    let outcome = outcome.map_err(Error::no_outcome)?;
    count_outcome(&outcome);
    match outcome {
        Outcome::Rejected(rejection) => Err(rejection.into()),
        // Also without the consistency check, because the push is not inconsistent.
        Outcome::OverLimit(exceeded) => Err(Rejection::from(exceeded).into()),
        Outcome::Inconsistent(reason) if rules.consistency_check => Err(Error::Inconsistent(reason)),
        Outcome::Applied if rules.consistency_check => Ok(empty(StatusCode::OK)),
        Outcome::Applied | Outcome::Inconsistent(_) => Ok(empty(StatusCode::ACCEPTED)),
    }
}

impl Request<'_> {
    /// The part of the path that names the group.
    pub(super) fn group_path(&self) -> GroupPath<'_> {
        GroupPath { tail: &self.path_tail, job_is_base64: self.path_head == JOB_BASE64 }
    }
}

impl Handlers {
    /// The push, if its body has a known shape.
    fn shaped(&self, received: &ReceivedPush) -> Option<ShapedPush> {
        let (shapes, bytes_max) = (self.gateway.shapes.as_ref()?, self.shaped_bytes_max(received)?);
        let mut state = self.shaped.borrow_mut();
        let mut numbers = state.numbers();
        let shape = shapes.find(&received.body, &received.key, bytes_max, &mut numbers);
        shapes.pay(&mut state.payments, shape.is_some());
        if shape.is_none() {
            state.reuse(std::mem::take(&mut numbers));
        }
        Some(ShapedPush {
            key: received.key.clone(),
            mode: received.mode,
            source: received.source,
            shape: shape?,
            numbers,
        })
    }

    /// The shape of a body without a known one that could be parsed and rendered, once a second body has the same pieces.
    fn learn(&self, received: &ReceivedPush) -> Option<Arc<Shape>> {
        let (shapes, bytes_max) = (self.gateway.shapes.as_ref()?, self.shaped_bytes_max(received)?);
        let mut state = self.shaped.borrow_mut();
        let mut numbers = state.numbers();
        let shape =
            shapes.learn(&received.body, &received.key, self.gateway.rules.names, bytes_max, &mut numbers);
        state.reuse(numbers);
        shape
    }

    /// How long the lines of a push may become. `None` if its body can have no shape.
    fn shaped_bytes_max(&self, received: &ReceivedPush) -> Option<usize> {
        let is_text = received.format == Format::Text && received.encoding.is_none();
        is_text.then(|| self.gateway.rules.sizes().rendered_bytes_max(received.body.len()))
    }

    /// Decodes, parses and renders a push, on a worker unless all of that is short. Returns the memory of the result, unless the worker
    /// also frees the push; then the push has its memory.
    async fn prepare(
        &self,
        received: ReceivedPush,
        mut memory: Reservation,
    ) -> Result<(Push, Option<Reservation>), PushError> {
        let rules = self.gateway.rules;
        if received.may_be_short() {
            // A core prepares one push at a time, so this needs no reservation; the result does.
            match received.prepare(rules, rules.sizes().on_core(), &mut Unlimited) {
                // The worker finds out whether it is too large for any push.
                Err(PushError::TooLarge | PushError::RenderedTooLarge { .. }) => {}
                result => {
                    let mut push = result?;
                    if matches!(push.content, Content::Families(..)) {
                        push.shape = self.learn(&received);
                    }
                    memory.resize(push.memory_bytes())?;
                    return Ok((push, Some(memory)));
                }
            }
        }
        let workers = self.gateway.workers.clone();
        let prepared = self.gateway.workers.run_while_wanted(move |_, is_wanted| {
            let mut wanted = WhileWanted { memory: &mut memory, is_wanted };
            let mut push = received.prepare(rules, rules.sizes(), &mut wanted)?;
            memory.shrink_to(push.memory_bytes());
            push.disposal = Some(Box::new(OnWorker { workers, memory }));
            Ok((push, None))
        });
        prepared.await.ok_or(PushError::Panicked)?
    }
}

/// What a core needs for pushes of known shapes.
#[derive(Debug, Default)]
pub(super) struct ShapedState {
    /// What the core has paid for shapes.
    payments: Payments,
    /// Memory for the numbers of pushes.
    spare: Vec<Vec<f64>>,
}

impl ShapedState {
    fn numbers(&mut self) -> Vec<f64> {
        self.spare.pop().unwrap_or_default()
    }

    fn reuse(&mut self, numbers: Vec<f64>) {
        if self.spare.len() < SPARE_NUMBERS_MAX && (1..=SPARE_NUMBERS_LEN_MAX).contains(&numbers.capacity()) {
            self.spare.push(numbers);
        }
    }
}

/// Frees the content of a push on a worker. A hundred megabytes take a core more than ten milliseconds.
#[derive(Debug)]
struct OnWorker {
    workers: Workers,
    /// The memory of the content.
    memory: Reservation,
}

impl Disposal for OnWorker {
    fn dispose(self: Box<Self>, content: Content) {
        let Self { workers, memory } = *self;
        // Fields are dropped in order: the memory is free when the content is.
        workers.drop((content, memory));
    }
}

impl Error {
    /// The error of a command that has no outcome. Counts a full queue.
    pub(super) fn no_outcome(error: CommandError) -> Self {
        if error == CommandError::QueueFull {
            count_rejection(PushRejection::QueueFull);
        }
        error.into()
    }
}

fn count_outcome(outcome: &Outcome) {
    count_rejection(match outcome {
        Outcome::Applied => return,
        Outcome::Inconsistent(_) => PushRejection::Inconsistent,
        Outcome::Rejected(Rejection::SamePushTimes(_)) => PushRejection::SamePushTimes,
        Outcome::Rejected(Rejection::TooLarge) => PushRejection::TooLarge,
        Outcome::OverLimit(_) | Outcome::Rejected(Rejection::OverLimit(_)) => PushRejection::OverLimit,
    });
}

/// The format of a pushed body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text 0.0.4; any body without the content type of protobuf.
    Text,
    /// Delimited protobuf.
    Protobuf,
}

impl Format {
    /// The format according to `Content-Type`.
    pub fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if content_type.is_some_and(is_delimited_protobuf) { Self::Protobuf } else { Self::Text }
    }
}

/// Whether a content type is that of delimited protobuf. Names are case-insensitive, values are not.
fn is_delimited_protobuf(header: &str) -> bool {
    // Spares nearly all texts the rest.
    if !header.trim_start().get(..11).is_some_and(|start| start.eq_ignore_ascii_case("application")) {
        return false;
    }
    content_type::parse(header).is_some_and(|(media_type, parameters)| {
        let has = |name, value| parameters.get(name).is_some_and(|found| found == value);
        media_type == "application/vnd.google.protobuf"
            && has("proto", "io.prometheus.client.MetricFamily")
            && has("encoding", "delimited")
    })
}

/// The content encoding of a body. Unknown encodings are ignored, as by the official program.
pub(super) fn encoding(headers: &HeaderMap) -> Option<&'static ContentEncoding> {
    headers.get(CONTENT_ENCODING).and_then(|value| ContentEncoding::named(value.as_bytes()))
}

/// Checks that a body which nothing wants can be decoded, as far as that is soon known.
pub(super) fn check_encoded(encoding: &'static ContentEncoding, body: &[u8]) -> Result<(), PushError> {
    match decode(encoding, body, SizeLimits::CORE.decoded_bytes_max, &mut Unlimited) {
        Ok(_) | Err(PushError::TooLarge) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Decodes a body's content encoding.
fn decode(
    encoding: &'static ContentEncoding,
    body: &[u8],
    bytes_max: usize,
    memory: &mut dyn Memory,
) -> Result<Vec<u8>, PushError> {
    encoding.decode(body, bytes_max, memory).map_err(|error| match error {
        DecodeError::TooLarge { .. } => PushError::TooLarge,
        DecodeError::OutOfMemory(error) => PushError::OutOfMemory(error),
        source => PushError::Decode { encoding, source },
    })
}

impl ReceivedPush {
    /// Whether it is worth the attempt to prepare the push on the core.
    fn may_be_short(&self) -> bool {
        let bytes_max =
            if self.encoding.is_some() { CORE_ENCODED_BYTES_MAX } else { SizeLimits::CORE.decoded_bytes_max };
        self.body.len() <= bytes_max
    }

    /// Decodes and parses the body, and renders its lines for the group. Reserves what all of that takes together.
    ///
    /// # Errors
    /// See [`PushError`]. A body that contradicts itself is not an error here: its group gets a failure time.
    pub fn prepare(
        &self,
        rules: PushRules,
        sizes: SizeLimits,
        memory: &mut dyn Memory,
    ) -> Result<Push, PushError> {
        let decoded = match self.encoding {
            Some(encoding) => Cow::Owned(decode(encoding, &self.body, sizes.decoded_bytes_max, memory)?),
            None => Cow::Borrowed(&*self.body),
        };
        let grouping = self.key.labels();
        let mut families = match self.format {
            Format::Text => text::parse_within(&decoded, rules.names, memory)?,
            Format::Protobuf => protobuf::parse_within(&decoded, rules.names, &grouping, memory)?,
        };
        families.remove_push_times();
        let bytes_max = sizes.rendered_bytes_max(decoded.len());
        let content = match render_within(&families, &grouping, rules.names, bytes_max, memory) {
            Ok(rendered) => {
                // Long families are copied into segments.
                memory.grow(rendered.bytes())?;
                Content::new(rendered)
            }
            Err(RenderError::Inconsistent(reason)) => Content::Inconsistent(reason),
            Err(RenderError::TooLarge) => return Err(PushError::RenderedTooLarge { bytes_max }),
            Err(RenderError::OutOfMemory(error)) => return Err(error.into()),
        };
        Ok(Push {
            key: self.key.clone(),
            mode: self.mode,
            source: self.source,
            content,
            shape: None,
            disposal: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::push_of;
    use crate::runtime::budget::Budget;

    /// The core that dropped a push last once freed it.
    #[test]
    fn a_large_push_is_freed_on_a_worker() {
        let workers = Workers::start(1).expect("the thread starts");
        let (release, blocked) = crossbeam_channel::bounded::<()>(0);
        workers.drop(OnDrop(Some(move || blocked.recv().unwrap_or_default())));
        let budget = Budget::new(None);
        let memory = budget.try_reserve(10 << 20).expect("there is no limit");
        let key = GroupingKey::new([("job".to_owned(), "a".to_owned())]);
        let mut push = push_of(Mode::Replace, &key, "m 1\n").expect("is readable");
        push.disposal = Some(Box::new(OnWorker { workers, memory }));
        let push = Arc::new(push);
        drop(push.clone());
        drop(push);
        assert_eq!(budget.in_flight(), 10 << 20, "the worker is busy and has not freed anything yet");
        drop(release);
        while budget.in_flight() > 0 {
            std::thread::yield_now();
        }
    }

    struct OnDrop<F: FnOnce()>(Option<F>);

    impl<F: FnOnce()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            self.0.take().into_iter().for_each(|run| run());
        }
    }

    #[test]
    fn only_the_full_content_type_means_protobuf() {
        for (content_type, is_protobuf) in [
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                true,
            ),
            (
                "APPLICATION/vnd.google.Protobuf;Encoding=delimited;PROTO=io.prometheus.client.MetricFamily",
                true,
            ),
            (
                r#"application/vnd.google.protobuf; proto="io.prometheus.client.MetricFamily" ; encoding="delimited""#,
                true,
            ),
            (
                "application/vnd.google.protobuf;a=\";encoding=x\";proto=io.prometheus.client.MetricFamily;encoding=delimited;",
                true,
            ),
            (
                "Application/vnd.google.protobuf ;proto=io.prometheus.client.MetricFamily; encoding*=UTF-8'en'%64elimited",
                true,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding*0=deli;encoding*1*=%6dited",
                true,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;encoding=delimited",
                true,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;encoding=text",
                false,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;;",
                false,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited; x",
                false,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=\"deli\\mited\"",
                false,
            ),
            ("application/vnd.google.protobuf", false),
            ("application/vnd.google.protobuf; encoding=delimited", false),
            ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily", false),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text",
                false,
            ),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.metricfamily; encoding=delimited",
                false,
            ),
            ("application/vnd.google.protobuf; proto; encoding=delimited", false),
            ("text/plain; proto=io.prometheus.client.MetricFamily; encoding=delimited", false),
            (";;", false),
            ("", false),
        ] {
            assert_eq!(is_delimited_protobuf(content_type), is_protobuf, "{content_type}");
        }
    }
}
