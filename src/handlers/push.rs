//! `PUT` and `POST /metrics/job/…`: replaces a group, or the families of a group.
//!
//! The accepting core reads, decodes, parses, checks and renders the body. The home core of the group only compares the result with the
//! other groups and splices the rendered lines.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};

use super::endpoints::JOB_BASE64;
use super::grouping_key::{GroupPath, grouping_key};
use super::metrics::{PushRejection, count_rejection};
use super::{Error, Handlers, Request};
use crate::cores::command::ShardCommand;
use crate::cores::shard_task::CommandError;
use crate::encoding::decode::{ContentEncoding, DecodeError};
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::{self, ProtobufError};
use crate::exposition::render::{RenderError, render};
use crate::exposition::text::{self, ParseError};
use crate::http::request_body::RequestBody;
use crate::http::response::{Response, empty};
use crate::shard::key::GroupingKey;
use crate::shard::outcome::{Outcome, Rejection};
use crate::shard::push::{Content, Mode, Push};
use crate::shard::{FAILURE_TIME, PUSH_TIME};

/// Longer bodies are parsed on a worker, so that the core continues to serve.
const CORE_BODY_BYTES_MAX: usize = 256 * 1024;
/// Longer encoded bodies are decoded on a worker.
const CORE_ENCODED_BYTES_MAX: usize = CORE_BODY_BYTES_MAX / 8;
/// How many times longer than the maximum body the rendered lines may be: they repeat the labels of the path.
const RENDERED_FACTOR: usize = 4;

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
    /// The limit of a decoded body as a length in memory.
    fn decoded_bytes_max(&self) -> usize {
        self.body_bytes_max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
    }
}

/// Why a body cannot be pushed. No group is changed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Its content encoding cannot be decoded.
    #[error("{}: {source}", encoding.name())]
    Decode {
        /// The content encoding.
        encoding: &'static ContentEncoding,
        /// The decoder's reason.
        source: DecodeError,
    },
    /// It is not valid text; names the line.
    #[error(transparent)]
    Text(#[from] ParseError),
    /// It is not valid protobuf; names the message.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// It is too large, as sent, decoded or rendered.
    #[error("the pushed body is too large")]
    TooLarge,
}

/// 200, or 202 without the consistency check.
pub(super) async fn push(handlers: &Handlers, request: Request) -> Result<Response, Error> {
    let rules = handlers.gateway.rules;
    let key = grouping_key(&request.group_path(), rules.names)?;
    let mode = if request.parts.method == Method::PUT { Mode::Replace } else { Mode::Merge };
    let format = Format::of(&request.parts.headers);
    let push = Arc::new(handlers.prepare(key, mode, format, request.body, request.peer).await?);
    // This clone keeps the push alive until the result arrives, see `ShardCommand::Push`.
    let sent = push.clone();
    let command = |permit, tx| ShardCommand::Push(sent, permit, tx);
    let outcome = handlers.shard_task.execute_at_home(&push.key, command).await.map_err(Error::no_outcome)?;
    count_outcome(&outcome);
    match outcome {
        Outcome::Rejected(rejection) => Err(rejection.into()),
        Outcome::Inconsistent(reason) if rules.consistency_check => Err(Error::Inconsistent(reason)),
        Outcome::Applied if rules.consistency_check => Ok(empty(StatusCode::OK)),
        Outcome::Applied | Outcome::Inconsistent(_) => Ok(empty(StatusCode::ACCEPTED)),
    }
}

impl Request {
    /// The part of the path that names the group.
    pub(super) fn group_path(&self) -> GroupPath<'_> {
        GroupPath {
            tail: &self.path_tail,
            job_is_base64: self.path_head == JOB_BASE64,
            raw_path: self.parts.uri.path(),
        }
    }
}

impl Handlers {
    /// Reads a whole body and decodes it; a long one on a worker.
    pub(super) async fn read_and_decode(
        &self,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Bytes, Error> {
        let rules = self.gateway.rules;
        let body = body.collect(rules.body_bytes_max).await?;
        let Some(encoding) = encoding(headers) else { return Ok(body) };
        if body.len() <= CORE_ENCODED_BYTES_MAX {
            return Ok(decode(encoding, &body, rules)?);
        }
        let decoded = self.gateway.workers.run(move |_| decode(encoding, &body, rules)).await;
        Ok(decoded.ok_or(Error::Internal)??)
    }

    /// Parses and renders a body; a long one on a worker.
    async fn prepare(
        &self,
        key: GroupingKey,
        mode: Mode,
        format: Format,
        body: Bytes,
        source: SocketAddr,
    ) -> Result<Push, Error> {
        let rules = self.gateway.rules;
        if body.len() <= CORE_BODY_BYTES_MAX {
            return Ok(prepare(key, mode, format, &body, rules, source)?);
        }
        let prepared =
            self.gateway.workers.run(move |_| prepare(key, mode, format, &body, rules, source)).await;
        Ok(prepared.ok_or(Error::Internal)??)
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
fn is_delimited_protobuf(content_type: &str) -> bool {
    let (media_type, mut rest) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !media_type.trim().eq_ignore_ascii_case("application/vnd.google.protobuf") {
        return false;
    }
    let (mut has_message, mut has_encoding) = (false, false);
    while !rest.trim_start().is_empty() {
        let Some((name, value, after)) = split_parameter(rest) else { return false };
        if name.eq_ignore_ascii_case("proto") {
            has_message = value == "io.prometheus.client.MetricFamily";
        } else if name.eq_ignore_ascii_case("encoding") {
            has_encoding = value == "delimited";
        }
        rest = after;
    }
    has_message && has_encoding
}

/// Splits off the first parameter: its name, its value, and what follows its semicolon. Values may be quoted (RFC 9110, section 5.6.6).
/// Escapes are not decoded, because the expected values contain none.
fn split_parameter(text: &str) -> Option<(&str, &str, &str)> {
    let (name, text) = text.split_once('=')?;
    let (value, after) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => text.split_at(text.find(';').unwrap_or(text.len())),
    };
    let after = after.trim_start();
    let after = if after.is_empty() { after } else { after.strip_prefix(';')? };
    Some((name.trim(), value.trim(), after))
}

/// The content encoding of a body. Unknown encodings are ignored, as by the official program.
fn encoding(headers: &HeaderMap) -> Option<&'static ContentEncoding> {
    headers.get(CONTENT_ENCODING).and_then(|value| ContentEncoding::named(value.as_bytes()))
}

/// Whether a body has a known content encoding.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    encoding(headers).is_some()
}

/// Decodes a body's content encoding.
fn decode(encoding: &'static ContentEncoding, body: &Bytes, rules: PushRules) -> Result<Bytes, PushError> {
    match encoding.decode(body, rules.decoded_bytes_max()) {
        Ok(decoded) => Ok(decoded.into()),
        Err(DecodeError::TooLarge { .. }) => Err(PushError::TooLarge),
        Err(source) => Err(PushError::Decode { encoding, source }),
    }
}

/// Parses a decoded body and renders its lines for a group.
///
/// # Errors
/// See [`PushError`]. A body that contradicts itself is not an error here: its group gets a failure time.
pub fn prepare(
    key: GroupingKey,
    mode: Mode,
    format: Format,
    body: &[u8],
    rules: PushRules,
    source: SocketAddr,
) -> Result<Push, PushError> {
    let families = match format {
        Format::Text => text::parse(body, rules.names)?,
        Format::Protobuf => protobuf::parse(body, rules.names)?,
    };
    let bytes_max = rules.decoded_bytes_max().saturating_mul(RENDERED_FACTOR);
    let content = match render(&families, &key.labels(), rules.names, bytes_max) {
        Ok(mut rendered) => {
            // The gateway sets both times itself and ignores pushed ones.
            rendered.retain(|name| name != PUSH_TIME && name != FAILURE_TIME);
            Content::new(rendered)
        }
        Err(RenderError::Inconsistent(reason)) => Content::Inconsistent(reason),
        Err(RenderError::TooLarge) => return Err(PushError::TooLarge),
    };
    Ok(Push { key, mode, source: Some(source), content })
}

#[cfg(test)]
mod tests {
    use super::*;

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
