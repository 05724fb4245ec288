//! The bytes of a request, and the outcome that the bytes of a response mean.

use std::io::Write;

use crate::gateway::Target;
use crate::history::{Operation, Outcome};
use crate::http::{BodyLength, HttpError, decode_chunks, parse_head};
use crate::scenario::PlannedRequest;
use crate::schema::{PushId, Schema};

/// How the text of a rejection by the consistency check begins, in sluicegate and in the official program.
const INCONSISTENT_TEXT: &[u8] = b"pushed metrics are invalid";

/// Endings that make a body malformed.
const MALFORMED_ENDINGS: [&[u8]; 4] =
    [b"lt_broken{ 1\n", b"lt_broken 1", b"lt_broken one\n", b"# TYPE lt_broken what\n"];
/// Endings that make a body inconsistent: a duplicate series, and a timestamp.
const INCONSISTENT_ENDINGS: [&[u8]; 2] = [b"lt_twice 1\nlt_twice 2\n", b"lt_timed 1 1700000000000\n"];

/// Renders a request into `out`.
pub fn render(target: &Target, schema: &Schema, request: &PlannedRequest, push: PushId, out: &mut Vec<u8>) {
    let choice = push.0 as usize;
    let (method, ending): (_, &[u8]) = match request.operation {
        Operation::Put => ("PUT", b""),
        Operation::Post => ("POST", b""),
        Operation::Delete => ("DELETE", b""),
        Operation::Malformed => (["PUT", "POST"][choice / 4 % 2], MALFORMED_ENDINGS[choice % 4]),
        Operation::Inconsistent => (["PUT", "POST"][choice / 4 % 2], INCONSISTENT_ENDINGS[choice % 2]),
    };
    let has_body = request.operation != Operation::Delete;
    let bytes = if has_body { schema.body_bytes(request.group, request.shape) + ending.len() } else { 0 };
    let (Target { prefix, host, .. }, run, group) = (target, &schema.run, request.group);
    out.clear();
    write!(
        out,
        "{method} {prefix}/metrics/job/loadtest/run/{run}/instance/{group} HTTP/1.1\r\n\
         Host: {host}\r\n\
         User-Agent: sluicegate-loadtest\r\n\
         Content-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {bytes}\r\n\r\n"
    )
    .expect("writing to a vector does not fail");
    if has_body {
        schema.render_body(group, request.shape, push, out);
        out.extend_from_slice(ending);
    }
}

/// A complete response to a push or a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// What it says about the request.
    pub outcome: Outcome,
    /// The server closes the connection.
    pub closes: bool,
}

/// Parses a response; `None` if it is incomplete.
pub fn parse_response(text: &[u8]) -> Result<Option<Response>, HttpError> {
    let Some(head) = parse_head(text)? else { return Ok(None) };
    let body = &text[head.bytes..];
    let is_complete = match head.body_length {
        BodyLength::Known(bytes) => body.len() >= bytes,
        BodyLength::Chunked => decode_chunks(body, &mut Vec::new())?.is_some(),
        // The status is known, and the rest makes no difference.
        BodyLength::UntilClose => true,
    };
    if !is_complete {
        return Ok(None);
    }
    let outcome = match head.status {
        200..=299 => Outcome::Accepted,
        400 if body.starts_with(INCONSISTENT_TEXT) => Outcome::Inconsistent,
        400..=499 => Outcome::Rejected,
        status => Outcome::Unknown(status),
    };
    Ok(Some(Response { outcome, closes: head.closes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(response: &str) -> Option<Outcome> {
        parse_response(response.as_bytes()).expect("a valid response").map(|response| response.outcome)
    }

    #[test]
    fn the_outcome_depends_on_status_and_text() {
        let response = |status: u16, body: &str| {
            outcome(&format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        };
        assert_eq!(response(202, ""), Some(Outcome::Accepted));
        assert_eq!(response(400, "text format parsing error"), Some(Outcome::Rejected));
        assert_eq!(response(400, "pushed metrics are invalid or"), Some(Outcome::Inconsistent));
        assert_eq!(response(503, ""), Some(Outcome::Unknown(503)));
    }

    #[test]
    fn a_response_is_complete_at_the_end_of_its_body() {
        assert_eq!(outcome("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nO"), None);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n";
        assert_eq!(outcome(chunked), None);
        assert_eq!(outcome(&format!("{chunked}0\r\n\r\n")), Some(Outcome::Accepted));
    }
}
