//! The shared parts of the JSON API: headers, and documents as the official API v1 writes them.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::{Error, Handlers, Request};
use crate::http::response::{Response, empty};

/// OPTIONS on any path of the API.
pub(super) async fn options(_: &Handlers, _: Request<'_>) -> Result<Response, Error> {
    let mut response = empty(StatusCode::OK);
    insert_headers(response.headers_mut());
    Ok(response)
}

/// Makes a response one whose body is JSON.
pub(super) fn json(mut response: Response) -> Response {
    insert_headers(response.headers_mut());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A document as JSON bytes.
pub(super) fn to_json<T: Serialize + ?Sized>(document: &T) -> Bytes {
    serde_json::to_vec(document).expect("keys are strings and no value fails to serialize").into()
}

/// 200 with `data` in a success document.
pub(super) fn success<T: Serialize>(data: &T) -> Response {
    json(Response::new(success_json(data).into()))
}

/// `data` in a success document.
pub(super) fn success_json<T: Serialize>(data: &T) -> Bytes {
    #[derive(Serialize)]
    struct Document<'a, T> {
        status: &'static str,
        data: &'a T,
    }
    to_json(&Document { status: "success", data })
}

/// 400 with an error document.
pub(super) fn bad_data(reason: &str) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        status: &'static str,
        error_type: &'static str,
        error: &'a str,
    }
    let document = to_json(&Document { status: "error", error_type: "bad_data", error: reason });
    let mut response = json(Response::new(document.into()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// Lets any origin read the response, and forbids caching.
fn insert_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        ("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin"),
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "Date"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
}
