//! Why a request failed, and the one place where that becomes a response.

use http::{Method, StatusCode};

use super::grouping_key::GroupingKeyError;
use super::push::PushError;
use crate::cores::shard_task::CommandError;
use crate::exposition::consistency::Inconsistency;
use crate::exposition::memory::OutOfMemory;
use crate::http::request_body::BodyError;
use crate::http::response::{self, Response};
use crate::runtime::address::Peer;
use crate::scrape::encode::EncodeFailed;
use crate::shard::outcome::Rejection;
use crate::web_config::passwords;

/// Why a request failed. The text is the body of the response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The official program's text.
    #[error("400 Bad Request")]
    InvalidPercentEncoding,
    #[error("404 page not found")]
    NotFound,
    /// Beyond the rate limit of the web configuration file.
    #[error("Too Many Requests")]
    TooManyRequests,
    /// Name or password are wrong or missing.
    #[error("Unauthorized")]
    Unauthorized,
    #[error(transparent)]
    TooManyPasswords(#[from] passwords::Busy),
    #[error(transparent)]
    GroupingKey(#[from] GroupingKeyError),
    #[error("{}", body_text(.0))]
    Body(#[from] BodyError),
    #[error(transparent)]
    Push(#[from] PushError),
    /// The shard rejected the push and changed nothing.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The push contradicts the groups that exist, or itself. Its group has a failure time now. The official program's text.
    #[error("pushed metrics are invalid or inconsistent with existing metrics: {0}")]
    Inconsistent(Inconsistency),
    #[error("{}", command_text(.0))]
    Command(#[from] CommandError),
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error("too many concurrent scrapes, try again")]
    TooManyScrapes,
    #[error("too many concurrent responses with groups, try again")]
    TooManyGroupLists,
    #[error("too many concurrent group queries, try again")]
    TooManyGroupQueries,
    #[error("restoring: {groups} groups so far{}", percent(*fraction))]
    Restoring { groups: u64, fraction: Option<f64> },
    #[error("storage failed: {0}; writes are rejected until it recovers")]
    StorageFailed(String),
    /// The health check of a gateway with a fault; 500, as in the official program.
    #[error("{0}")]
    Unhealthy(String),
    /// The reason is in the log.
    #[error("internal error, see the log")]
    Internal,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::InvalidPercentEncoding
            | Self::GroupingKey(_)
            | Self::Body(BodyError::Malformed(_))
            | Self::Push(PushError::Decode { .. } | PushError::Text(_) | PushError::Protobuf(_))
            | Self::Rejected(Rejection::SamePushTimes(_) | Rejection::OverLimit(_))
            | Self::Inconsistent(_) => StatusCode::BAD_REQUEST,
            Self::Body(BodyError::TimedOut) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::TooLarge)
            | Self::Body(BodyError::OutOfMemory(OutOfMemory::NeverFits { .. }))
            | Self::Push(PushError::TooLarge | PushError::RenderedTooLarge { .. })
            | Self::Push(PushError::OutOfMemory(OutOfMemory::NeverFits { .. }))
            | Self::Rejected(Rejection::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Command(_)
            | Self::OutOfMemory(_)
            | Self::Body(BodyError::OutOfMemory(OutOfMemory::InUse))
            | Self::Push(PushError::OutOfMemory(OutOfMemory::InUse))
            | Self::TooManyPasswords(_)
            | Self::TooManyScrapes
            | Self::TooManyGroupLists
            | Self::TooManyGroupQueries
            | Self::Restoring { .. }
            | Self::StorageFailed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unhealthy(_) | Self::Push(PushError::Panicked) | Self::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// Logs why a push failed, with the messages, levels and keys of the official program.
    pub(crate) fn log(&self, method: &Method, peer: Peer) {
        match self {
            Self::Inconsistent(reason) => tracing::error!(
                %method,
                logged_source = %peer,
                err = %reason,
                "pushed metrics are invalid or inconsistent with existing metrics"
            ),
            Self::GroupingKey(error) => {
                tracing::debug!(logged_source = %peer, err = %error, "failed to parse URL");
            }
            Self::Push(error @ (PushError::Decode { .. } | PushError::Text(_) | PushError::Protobuf(_))) => {
                tracing::debug!(logged_source = %peer, err = %error, "failed to parse text");
            }
            _ => {}
        }
    }

    /// The response: plain text, with `Retry-After` where another attempt may succeed, and `WWW-Authenticate` where a password may help.
    pub(crate) fn into_response(self) -> Response {
        let status = self.status();
        let mut response = response::error(status, &self.to_string());
        match status {
            StatusCode::SERVICE_UNAVAILABLE => response::retry_later(&mut response),
            StatusCode::UNAUTHORIZED => response::ask_for_password(&mut response),
            _ => {}
        }
        response
    }
}

impl From<EncodeFailed> for Error {
    fn from(_: EncodeFailed) -> Self {
        Self::Internal
    }
}

/// A body that is too large as sent has the same text as one that is too large after decoding or rendering.
fn body_text(error: &BodyError) -> String {
    match error {
        BodyError::TooLarge => PushError::TooLarge.to_string(),
        other => other.to_string(),
    }
}

fn command_text(error: &CommandError) -> String {
    match error {
        CommandError::CommitFailed(_) => {
            "outcome unknown: storage failed while it committed this change".to_owned()
        }
        other => other.to_string(),
    }
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map(|fraction| format!(", {:.0}%", fraction * 100.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn only_a_503_has_a_retry_after_header() {
        let response = Error::TooManyScrapes.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
        let response = Error::Inconsistent(Inconsistency::DuplicateSeries {
            metric: "m".into(),
            labels: "job=\"a\"".into(),
        })
        .into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_restore_reports_a_percentage_if_it_is_known() {
        let text = |fraction| Error::Restoring { groups: 7, fraction }.to_string();
        assert_eq!(text(None), "restoring: 7 groups so far");
        assert_eq!(text(Some(0.5)), "restoring: 7 groups so far, 50%");
    }
}
