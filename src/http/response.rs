//! Responses and their headers.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::response_body::ResponseBody;

/// A response of a handler.
pub(crate) type Response = http::Response<ResponseBody>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// The value of `Retry-After`.
pub(super) const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The most headers whose memory is used again. An idle connection keeps it.
const REUSED_HEADERS_MAX: usize = 32;

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// A text that is not an error.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(ResponseBody::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// An error as Go's `http.Error` writes it: plain text with a final line feed, and `nosniff`.
pub fn error<B: From<Bytes>>(status: StatusCode, text: &str) -> http::Response<B> {
    error_with(status, text, B::from)
}

/// Like [`error`], with a function that makes the body.
pub(super) fn error_with<B>(
    status: StatusCode,
    text: &str,
    body: impl FnOnce(Bytes) -> B,
) -> http::Response<B> {
    let mut response = http::Response::new(body(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// Lets a response without headers have the memory of its request's headers. hyper takes it back for the next request of the connection.
pub(crate) fn reuse_headers(response: &mut Response, of_request: HeaderMap) {
    if response.headers().capacity() == 0 && of_request.capacity() <= REUSED_HEADERS_MAX {
        let mut headers = of_request;
        headers.clear();
        *response.headers_mut() = headers;
    }
}

/// Adds `Retry-After`.
pub(crate) fn retry_later(response: &mut Response) {
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
}

/// Adds `WWW-Authenticate`, without a realm, as in the official program.
pub(crate) fn ask_for_password(response: &mut Response) {
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
}

/// 405 with the allowed methods.
pub(crate) fn method_not_allowed(methods: &str) -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    insert(&mut response, ALLOW, methods);
    response
}

/// The response to OPTIONS: 200 with the allowed methods.
pub(crate) fn allowed_methods(methods: &str) -> Response {
    let mut response = empty(StatusCode::OK);
    insert(&mut response, ALLOW, methods);
    response
}

/// 301 for GET and HEAD; 307 for other methods, which it preserves. The query is kept.
pub(crate) fn redirect(method: &Method, to: &str, query: Option<&str>) -> Response {
    let permanent = method == Method::GET || method == Method::HEAD;
    let status = if permanent { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    let mut response = empty(status);
    let to = match query.filter(|query| !query.is_empty()) {
        None => Cow::Borrowed(to),
        // Escapes only what is not ASCII.
        Some(query) => format!("{to}?{}", utf8_percent_encode(query, CONTROLS)).into(),
    };
    insert(&mut response, LOCATION, &to);
    response
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_response_without_headers_gets_the_memory_of_a_short_list() {
        let mut of_request = HeaderMap::new();
        of_request.insert(CONTENT_TYPE, TEXT);
        let mut response = empty(StatusCode::OK);
        reuse_headers(&mut response, of_request.clone());
        assert!(response.headers().is_empty() && response.headers().capacity() > 0);

        let mut response = text(StatusCode::OK, "OK");
        reuse_headers(&mut response, HeaderMap::new());
        assert_eq!(response.headers().get(CONTENT_TYPE), Some(&TEXT));

        let mut response = empty(StatusCode::OK);
        reuse_headers(&mut response, HeaderMap::with_capacity(4 * REUSED_HEADERS_MAX));
        assert_eq!(response.headers().capacity(), 0);
    }
}
