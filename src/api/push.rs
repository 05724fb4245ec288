//! Pushes: a request's body → a [`Push`] for its home core; what became of it → an answer.

use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap};

use bytes::Bytes;

use crate::exposition::gzip::{GunzipError, gunzip};
use crate::exposition::names::NameRules;
use crate::exposition::render::{Inconsistency, render};
use crate::exposition::text::parse;
use crate::shard::key::GroupingKey;
use crate::shard::push::{Content, Mode, Outcome, Push};
use crate::shard::{FAILURE_TIME, PUSH_TIME};

use super::answers::{Answer, Problem, empty, error};

/// How much longer than a body its lines may be: the labels of the URL are repeated on each of them.
const RENDERED_FACTOR: usize = 4;

/// How pushes are read.
#[derive(Debug, Clone, Copy)]
pub struct PushRules {
    /// Bytes of a body after decompression.
    pub body_bytes_max: Option<u64>,
    /// Whether a refusal is a 400; otherwise it shows only as the group's failure time.
    pub refusals_are_told: bool,
}

impl PushRules {
    /// The bound of a decoded body as a length in memory.
    fn decoded_bytes_max(&self) -> usize {
        self.body_bytes_max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
    }
}

/// Whether a body must be decoded before anything else is looked at.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// Takes off the content encoding. Encodings that are not known are ignored, as the official program does.
///
/// # Errors
/// 400 for a broken stream, 413 for one that gets too long.
pub fn decode(headers: &HeaderMap, body: Bytes, rules: PushRules) -> Result<Bytes, Problem> {
    if !is_encoded(headers) {
        return Ok(body);
    }
    match gunzip(&body, rules.decoded_bytes_max()) {
        Ok(decoded) => Ok(decoded.into()),
        Err(GunzipError::TooLarge { .. }) => Err(too_large()),
        Err(problem) => Err(Problem::new(StatusCode::BAD_REQUEST, problem)),
    }
}

/// Parses and renders a decoded body for its group.
///
/// # Errors
/// 400 with the line for what cannot be read; nothing is touched then.
pub fn prepare(key: GroupingKey, mode: Mode, body: &[u8], rules: PushRules) -> Result<Push, Problem> {
    let families =
        parse(body, NameRules::Legacy).map_err(|problem| Problem::new(StatusCode::BAD_REQUEST, problem))?;
    let bytes_max = rules.decoded_bytes_max().saturating_mul(RENDERED_FACTOR);
    let content = match render(&families, &key.labels(), bytes_max) {
        Ok(mut rendered) => {
            // Both times are the gateway's own, whatever a job says.
            rendered.retain(|name| name != PUSH_TIME && name != FAILURE_TIME);
            Content::new(rendered)
        }
        Err(Inconsistency::Refused(reason)) => Content::Refused(reason),
        Err(Inconsistency::TooLarge) => return Err(too_large()),
    };
    Ok(Push { key, mode, content })
}

/// The answer to a push.
pub fn answer(outcome: &Outcome, rules: PushRules) -> Answer {
    match (outcome, rules.refusals_are_told) {
        (Outcome::NotAdmitted(reason), _) => error(StatusCode::BAD_REQUEST, reason),
        (_, false) => empty(StatusCode::ACCEPTED),
        (Outcome::Done, true) => empty(StatusCode::OK),
        (Outcome::Refused(reason), true) => error(
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
