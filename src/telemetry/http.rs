//! Counting requests, as cheap as a request may hope for: handles are made once and found by index.

use std::array::from_fn;
use std::sync::OnceLock;

use metrics::{Counter, Histogram};

use super::names;

/// The routes that are counted. Scrapes and requests that no route takes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// PUT and POST of a group.
    Push,
    /// DELETE of a group.
    Delete,
    /// `/-/healthy`
    Healthy,
    /// `/-/ready`
    Ready,
    /// The web page.
    Status,
    /// Files of the web page.
    Static,
    /// Deleting all groups.
    Wipe,
    /// `/api/v1/status`
    ApiStatus,
    /// `/api/v1/metrics`
    ApiMetrics,
    /// `/api/v1/groups`
    ApiGroups,
    /// OPTIONS on any path of the API.
    ApiOptions,
}

const HANDLERS: usize = Handler::ApiOptions as usize + 1;

impl Handler {
    /// The value of the label `handler`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
            Self::Status => "status",
            Self::Static => "static",
            Self::Wipe => "wipe",
            Self::ApiStatus => "api/v1/status",
            Self::ApiMetrics => "api/v1/metrics",
            Self::ApiGroups => "api/v1/groups",
            Self::ApiOptions => "api/v1/options",
        }
    }
}

/// The methods that have a word of their own, by which the official program labels them. What else a client may send is "unknown":
/// a label must not be the client's to choose.
const METHODS: [(&str, &str); 10] = [
    ("PUT", "put"),
    ("POST", "post"),
    ("DELETE", "delete"),
    ("GET", "get"),
    ("HEAD", "head"),
    ("OPTIONS", "options"),
    ("PATCH", "patch"),
    ("CONNECT", "connect"),
    ("TRACE", "trace"),
    ("NOTIFY", "notify"),
];
const UNKNOWN_METHOD: usize = METHODS.len();

/// The codes that routes answer with; others are counted too, by a slower way.
const CODES: [u16; 14] = [200, 202, 301, 307, 400, 403, 404, 405, 408, 413, 415, 429, 500, 503];

/// Counts requests and measures pushes. One for all cores, or one for each: the series are the same.
#[derive(Debug)]
pub struct HttpMetrics {
    /// A handle is made at its first use, so that a series appears when there is something to show.
    requests: [[[OnceLock<Counter>; CODES.len()]; METHODS.len() + 1]; HANDLERS],
    pushes: [OnceLock<PushMetrics>; METHODS.len() + 1],
}

#[derive(Debug)]
struct PushMetrics {
    seconds: Histogram,
    bytes: Histogram,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpMetrics {
    /// Counts into the recorder that is installed.
    pub fn new() -> Self {
        let by_code = || from_fn(|_| OnceLock::new());
        let by_method = || from_fn(|_| by_code());
        Self { requests: from_fn(|_| by_method()), pushes: from_fn(|_| OnceLock::new()) }
    }

    /// Counts an answered request. The method is as on the request line.
    pub fn observe(&self, handler: Handler, method: &str, code: u16) {
        let method = method_index(method);
        match CODES.iter().position(|known| *known == code) {
            Some(index) => {
                let counter = &self.requests[handler as usize][method][index];
                counter.get_or_init(|| requests(handler, method, code)).increment(1);
            }
            None => requests(handler, method, code).increment(1),
        }
    }

    /// Measures a push, whatever its answer: how long it took and how large the request was, its head included.
    pub fn observe_push(&self, method: &str, seconds: f64, bytes: u64) {
        let method = method_index(method);
        let push = self.pushes[method].get_or_init(|| PushMetrics {
            seconds: metrics::histogram!(names::HTTP_PUSH_DURATION, "method" => method_label(method)),
            bytes: metrics::histogram!(names::HTTP_PUSH_SIZE, "method" => method_label(method)),
        });
        push.seconds.record(seconds);
        push.bytes.record(bytes as f64);
    }
}

fn requests(handler: Handler, method: usize, code: u16) -> Counter {
    metrics::counter!(
        names::HTTP_REQUESTS,
        "code" => code.to_string(),
        "handler" => handler.name(),
        "method" => method_label(method)
    )
}

fn method_index(method: &str) -> usize {
    METHODS.iter().position(|(typed, _)| *typed == method).unwrap_or(UNKNOWN_METHOD)
}

fn method_label(index: usize) -> &'static str {
    METHODS.get(index).map_or("unknown", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{OwnFamily, OwnValue, Registry};
    use super::*;

    /// Each series as `handler method code value`, or for summaries as `name method count sum`.
    fn shown(families: &[OwnFamily]) -> Vec<String> {
        let mut lines = Vec::new();
        for family in families {
            for sample in &family.samples {
                let mut line: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_ref()).collect();
                let value = match &sample.value {
                    OwnValue::Single(value) => value.to_string(),
                    OwnValue::Summary { sum, count, .. } => {
                        line.insert(0, family.name);
                        format!("{count} {sum}")
                    }
                };
                lines.push(format!("{} {value}", line.join(" ")));
            }
        }
        lines
    }

    #[test]
    fn requests_are_counted_by_code_handler_and_method() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            let http = HttpMetrics::new();
            http.observe(Handler::Push, "PUT", 200);
            http.observe(Handler::Push, "PUT", 200);
            http.observe(Handler::ApiOptions, "OPTIONS", 200);
            http.observe(Handler::Delete, "DELETE", 202);
            http.observe(Handler::Status, "BREW", 418);
            http.observe(Handler::Status, "put", 418);
        });
        assert_eq!(
            shown(&registry.gather()),
            ["200 api/v1/options options 1", "200 push put 2", "202 delete delete 1", "418 status unknown 2"]
        );
    }

    #[test]
    fn pushes_are_measured_from_the_first_on() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            let http = HttpMetrics::new();
            assert!(
                registry.gather().is_empty(),
                "the official program shows no summary before the first push"
            );
            http.observe_push("PUT", 0.5, 100);
            http.observe_push("PUT", 0.25, 50);
            http.observe_push("POST", 0.125, 10);
        });
        assert_eq!(
            shown(&registry.gather()),
            [
                "pushgateway_http_push_duration_seconds post 1 0.125",
                "pushgateway_http_push_duration_seconds put 2 0.75",
                "pushgateway_http_push_size_bytes post 1 10",
                "pushgateway_http_push_size_bytes put 2 150",
            ]
        );
    }
}
