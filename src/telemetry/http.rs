//! Counts of requests. Each handle is created once and found by index, because every request needs one.

use std::array::from_fn;
use std::sync::OnceLock;

use metrics::{Counter, Histogram};

use super::own_metric::OwnMetric;

const REQUESTS: OwnMetric = OwnMetric::counter(
    "pushgateway_http_requests_total",
    "Total HTTP requests processed by the Pushgateway, excluding scrapes.",
)
.with_labels(&["code", "handler", "method"]);
const PUSH_DURATION: OwnMetric = OwnMetric::summary(
    "pushgateway_http_push_duration_seconds",
    "HTTP request duration for pushes to the Pushgateway.",
)
.with_labels(&["method"]);
const PUSH_SIZE: OwnMetric = OwnMetric::summary(
    "pushgateway_http_push_size_bytes",
    "HTTP request size for pushes to the Pushgateway.",
)
.with_labels(&["method"]);

/// Families about requests, with the names and help of the official program.
pub const METRICS: &[OwnMetric] = &[REQUESTS, PUSH_DURATION, PUSH_SIZE];

/// The counted endpoints. Scrapes, `/-/quit` and requests to unknown paths are not counted, as in the official program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// PUT or POST to a group.
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
    /// Deletion of all groups.
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

/// The methods with a label value of their own, as in the official program. Others are "unknown", so that clients cannot
/// create series.
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

/// The status codes of the endpoints. Others are counted too, but more slowly.
const CODES: [u16; 14] = [200, 202, 301, 307, 400, 403, 404, 405, 408, 413, 415, 429, 500, 503];

/// Counts requests and measures pushes. All instances share the same series.
#[derive(Debug)]
pub struct HttpMetrics {
    /// A handle is created at its first use, so that unused series do not appear in scrapes.
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
    /// Uses the installed recorder.
    pub fn new() -> Self {
        let by_code = || from_fn(|_| OnceLock::new());
        let by_method = || from_fn(|_| by_code());
        Self { requests: from_fn(|_| by_method()), pushes: from_fn(|_| OnceLock::new()) }
    }

    /// Counts a request by the method on its request line and the status code of the response.
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

    /// Records the duration of a push and the size of its request, head included, whatever the response was.
    pub fn observe_push(&self, method: &str, seconds: f64, bytes: u64) {
        let method = method_index(method);
        let push = self.pushes[method].get_or_init(|| PushMetrics {
            seconds: metrics::histogram!(PUSH_DURATION.name, "method" => method_label(method)),
            bytes: metrics::histogram!(PUSH_SIZE.name, "method" => method_label(method)),
        });
        push.seconds.record(seconds);
        push.bytes.record(bytes as f64);
    }
}

fn requests(handler: Handler, method: usize, code: u16) -> Counter {
    metrics::counter!(
        REQUESTS.name,
        "code" => code.to_string(),
        "handler" => handler.name(),
        "method" => method_label(method)
    )
}

fn method_index(method: &str) -> usize {
    METHODS.iter().position(|(name, _)| *name == method).unwrap_or(UNKNOWN_METHOD)
}

fn method_label(index: usize) -> &'static str {
    METHODS.get(index).map_or("unknown", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::super::recorder::{OwnFamily, OwnValue, Recorder};
    use super::*;

    /// Each series as its label values and its value; summaries as `name method count sum`.
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
    fn counts_requests_by_code_handler_and_method() {
        let recorder = Recorder::new(METRICS.iter().copied());
        metrics::with_local_recorder(&recorder, || {
            let http = HttpMetrics::new();
            http.observe(Handler::Push, "PUT", 200);
            http.observe(Handler::Push, "PUT", 200);
            http.observe(Handler::ApiOptions, "OPTIONS", 200);
            http.observe(Handler::Delete, "DELETE", 202);
            http.observe(Handler::Status, "BREW", 418);
            http.observe(Handler::Status, "put", 418);
        });
        assert_eq!(
            shown(&recorder.gather()),
            ["200 api/v1/options options 1", "200 push put 2", "202 delete delete 1", "418 status unknown 2"]
        );
    }

    #[test]
    fn push_summaries_appear_with_the_first_push() {
        let recorder = Recorder::new(METRICS.iter().copied());
        metrics::with_local_recorder(&recorder, || {
            let http = HttpMetrics::new();
            assert!(
                recorder.gather().is_empty(),
                "the official program shows no summaries before the first push"
            );
            http.observe_push("PUT", 0.5, 100);
            http.observe_push("PUT", 0.25, 50);
            http.observe_push("POST", 0.125, 10);
        });
        assert_eq!(
            shown(&recorder.gather()),
            [
                "pushgateway_http_push_duration_seconds post 1 0.125",
                "pushgateway_http_push_duration_seconds put 2 0.75",
                "pushgateway_http_push_size_bytes post 1 10",
                "pushgateway_http_push_size_bytes put 2 150",
            ]
        );
    }
}
