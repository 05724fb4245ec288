//! What a client hears while the store cannot do its work.

use http::StatusCode;

use crate::http::response::{Answer, Problem, busy, error};

/// The answer while groups are taken back: how many are, and which part of all bytes if that is known.
pub fn restoring(groups: u64, part: Option<f64>) -> Answer {
    let percent = part.map(|part| format!(", {:.0} %", part * 100.0)).unwrap_or_default();
    busy(&format!("restoring: {groups} groups so far{percent}"))
}

/// The answer to a write after the store failed.
pub fn failed(why: &str) -> Answer {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format_args!("nothing is taken in until a restart, the store failed: {why}"),
    )
    .into_answer()
}

/// What became of a command whose commit failed: nobody knows, and a restart will show.
pub fn outcome_unknown() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "outcome unknown: the store failed while it kept this")
}

/// The health of a gateway whose store failed, with the status that the official program has for this.
pub fn unhealthy(why: &str) -> Answer {
    error(StatusCode::INTERNAL_SERVER_ERROR, &format!("the store failed: {why}"))
}
