//! Pushes: a request's body → a [`Push`] for its home core; what became of it → an answer.

use std::net::SocketAddr;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use bytes::Bytes;

use crate::encoding::decode::{ContentEncoding, DecodeError};
use crate::exposition::names::NameRules;
use crate::exposition::render::{RenderError, render};
use crate::exposition::{protobuf, text};
use crate::shard::key::GroupingKey;
use crate::shard::outcome::{Outcome, Rejection};
use crate::shard::push::{Content, Mode, Push};
use crate::shard::{FAILURE_TIME, PUSH_TIME};

use crate::http::response::{Answer, Problem, empty, error};

/// How much longer than a body its lines may be: the labels of the URL are repeated on each of them.
const RENDERED_FACTOR: usize = 4;

/// How pushes are read.
#[derive(Debug, Clone, Copy)]
pub struct PushRules {
    /// Bytes of a body after decompression.
    pub body_bytes_max: Option<u64>,
    /// Whether a refusal is a 400; otherwise it shows only as the group's failure time.
    pub refusals_are_told: bool,
    /// Which names are let in.
    pub names: NameRules,
}

impl PushRules {
    /// The bound of a decoded body as a length in memory.
    fn decoded_bytes_max(&self) -> usize {
        self.body_bytes_max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
    }
}

/// How a push's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text 0.0.4: whatever is not protobuf, also if its header says otherwise.
    Text,
    /// Delimited protobuf.
    Protobuf,
}

impl Format {
    /// The format which the header names.
    pub fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match content_type.is_some_and(is_delimited_protobuf) {
            true => Self::Protobuf,
            false => Self::Text,
        }
    }
}

/// Whether a content type is that of delimited protobuf. Names are compared in any case, values as they are.
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

/// The parameter in front, and what follows its semicolon. Values may be quoted (RFC 9110, 5.6.6); those that are
/// looked for have nothing to escape.
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

/// How the body is compressed. Encodings that are not known are ignored, as the official program does.
fn encoding(headers: &HeaderMap) -> Option<&'static ContentEncoding> {
    headers.get(CONTENT_ENCODING).and_then(|value| ContentEncoding::named(value.as_bytes()))
}

/// Whether a body must be decoded before anything else is looked at.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    encoding(headers).is_some()
}

/// Takes off the content encoding.
///
/// # Errors
/// 400 for a broken stream, 413 for one that gets too long.
pub fn decode(headers: &HeaderMap, body: Bytes, rules: PushRules) -> Result<Bytes, Problem> {
    let Some(encoding) = encoding(headers) else { return Ok(body) };
    match encoding.decode(&body, rules.decoded_bytes_max()) {
        Ok(decoded) => Ok(decoded.into()),
        Err(DecodeError::TooLarge { .. }) => Err(too_large()),
        Err(problem) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format_args!("{}: {problem}", encoding.name())))
        }
    }
}

/// Parses and renders a decoded body for its group.
///
/// # Errors
/// 400 with the place for what cannot be read; nothing is touched then.
pub fn prepare(
    key: GroupingKey,
    mode: Mode,
    format: Format,
    body: &[u8],
    rules: PushRules,
    source: SocketAddr,
) -> Result<Push, Problem> {
    let bad_request = |problem: &dyn std::fmt::Display| Problem::new(StatusCode::BAD_REQUEST, problem);
    let families = match format {
        Format::Text => text::parse(body, rules.names).map_err(|problem| bad_request(&problem))?,
        Format::Protobuf => protobuf::parse(body, rules.names).map_err(|problem| bad_request(&problem))?,
    };
    let bytes_max = rules.decoded_bytes_max().saturating_mul(RENDERED_FACTOR);
    let content = match render(&families, &key.labels(), rules.names, bytes_max) {
        Ok(mut rendered) => {
            // Both times are the gateway's own, whatever a job says.
            rendered.retain(|name| name != PUSH_TIME && name != FAILURE_TIME);
            Content::new(rendered)
        }
        Err(RenderError::Inconsistent(reason)) => Content::Inconsistent(reason),
        Err(RenderError::TooLarge) => return Err(too_large()),
    };
    Ok(Push { key, mode, source: Some(source), content })
}

/// The answer to a push.
pub fn answer(outcome: &Outcome, rules: PushRules) -> Answer {
    match (outcome, rules.refusals_are_told) {
        (Outcome::Rejected(rejection), _) => {
            let status = match rejection {
                Rejection::SamePushTimes(_) => StatusCode::BAD_REQUEST,
                Rejection::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            };
            error(status, &rejection.to_string())
        }
        (_, false) => empty(StatusCode::ACCEPTED),
        (Outcome::Applied, true) => empty(StatusCode::OK),
        (Outcome::Inconsistent(reason), true) => error(
            StatusCode::BAD_REQUEST,
            &format!("pushed metrics are invalid or inconsistent with existing metrics: {reason}"),
        ),
    }
}

/// The answer to a DELETE or a wipe, also when there was nothing.
pub fn deleted() -> Answer {
    empty(StatusCode::ACCEPTED)
}

/// The body is longer than allowed, as sent, as decoded or as rendered.
pub fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the pushed body is too large")
}

/// The queue of the group's home core is full.
pub fn queue_full() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many pushes are waiting, try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_is_what_says_so_in_full() {
        for (content_type, is) in [
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
            assert_eq!(is_delimited_protobuf(content_type), is, "{content_type}");
        }
    }
}
