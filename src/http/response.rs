//! Answers and their headers. The only room where an error becomes a status code.

use http::header::{
    ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};

use super::response_body::Body;

/// An answer on its way to the client.
pub type Answer = Response<Body>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Seconds after which a client that was turned away may come again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// A text of the gateway, not an error.
pub fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    answer
}

/// An error as Go's `http.Error` writes it: plain text, not to be sniffed, a line feed at the end.
pub fn error(status: StatusCode, reason: &str) -> Answer {
    let mut answer = Response::new(Body::from(format!("{reason}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Why a request is not answered as wished, on its way to [`Problem::into_answer`]: may cross threads, which bodies may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status code.
    pub status: StatusCode,
    /// The text, without its line feed.
    pub reason: String,
}

impl Problem {
    /// A problem of the client's request.
    pub fn new(status: StatusCode, reason: impl std::fmt::Display) -> Self {
        Self { status, reason: reason.to_string() }
    }

    /// The answer; with `Retry-After` where trying again may help.
    pub fn into_answer(self) -> Answer {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => busy(&self.reason),
            status => error(status, &self.reason),
        }
    }
}

/// 503: what is asked for is at its limit.
pub fn busy(reason: &str) -> Answer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, reason);
    answer.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    answer
}

/// 404.
pub fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// 405 with the methods that are allowed.
pub fn not_allowed(methods: &str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    insert(&mut answer, ALLOW, methods);
    answer
}

/// 200 with the methods that are allowed.
pub fn options(methods: &str) -> Answer {
    let mut answer = empty(StatusCode::OK);
    insert(&mut answer, ALLOW, methods);
    answer
}

/// A redirect that keeps the method where it matters.
pub fn redirect(method: &Method, to: &str) -> Answer {
    let permanent = method == Method::GET || method == Method::HEAD;
    let status = if permanent { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    let mut answer = empty(status);
    insert(&mut answer, LOCATION, to);
    answer
}

fn insert(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
