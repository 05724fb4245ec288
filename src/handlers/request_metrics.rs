//! Counts of requests and measurements of pushes, under the names of the official program.
//!
//! A metric's handle is created at its first use and then found by index, so that counting a request costs no look-up.

use std::array::from_fn;
use std::sync::OnceLock;
use std::time::Instant;

use http::{Method, StatusCode};
use metrics::{Counter, Histogram};

use super::Endpoint;
use crate::telemetry::OwnMetric;

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

pub(crate) const METRICS: &[OwnMetric] = &[REQUESTS, PUSH_DURATION, PUSH_SIZE];

/// The methods that have a label of their own in the official program. Any other method is "unknown", because a client must not be able
/// to choose the value of a label.
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

/// The status codes that endpoints use. Others are counted too, but more slowly.
const CODES: [u16; 14] = [200, 202, 301, 307, 400, 403, 404, 405, 408, 413, 415, 429, 500, 503];

/// The metrics of requests, shared by all cores.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    /// Created at their first use, so that a series appears when there is something to count.
    requests: [[[OnceLock<Counter>; CODES.len()]; METHODS.len() + 1]; Endpoint::ALL.len()],
    pushes: [OnceLock<PushMetrics>; METHODS.len() + 1],
}

#[derive(Debug)]
struct PushMetrics {
    seconds: Histogram,
    bytes: Histogram,
}

impl RequestMetrics {
    /// Counts into the installed recorder.
    pub(crate) fn new() -> Self {
        let by_code = || from_fn(|_| OnceLock::new());
        let by_method = || from_fn(|_| by_code());
        Self { requests: from_fn(|_| by_method()), pushes: from_fn(|_| OnceLock::new()) }
    }

    /// Counts a request, and measures a push from `started` on. `bytes` is the size of the request with its head.
    pub(super) fn observe(
        &self,
        endpoint: Endpoint,
        method: &Method,
        status: StatusCode,
        started: Instant,
        bytes: u64,
    ) {
        let Some(label) = endpoint.metric_label() else { return };
        self.count(endpoint, label, method, status.as_u16());
        if endpoint == Endpoint::Push {
            self.measure_push(method, started.elapsed().as_secs_f64(), bytes);
        }
    }

    fn count(&self, endpoint: Endpoint, label: &'static str, method: &Method, code: u16) {
        let method = method_index(method.as_str());
        match CODES.iter().position(|known| *known == code) {
            Some(index) => {
                let counter = &self.requests[endpoint as usize][method][index];
                counter.get_or_init(|| requests(label, method, code)).increment(1);
            }
            None => requests(label, method, code).increment(1),
        }
    }

    fn measure_push(&self, method: &Method, seconds: f64, bytes: u64) {
        let method = method_index(method.as_str());
        let push = self.pushes[method].get_or_init(|| PushMetrics {
            seconds: metrics::histogram!(PUSH_DURATION.name, "method" => method_label(method)),
            bytes: metrics::histogram!(PUSH_SIZE.name, "method" => method_label(method)),
        });
        push.seconds.record(seconds);
        push.bytes.record(bytes as f64);
    }
}

fn requests(label: &'static str, method: usize, code: u16) -> Counter {
    metrics::counter!(
        REQUESTS.name,
        "code" => code.to_string(),
        "handler" => label,
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
    use super::*;
    use crate::telemetry::{OwnFamily, OwnValue, Recorder};

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
            let requests = RequestMetrics::new();
            let count = |endpoint: Endpoint, method: &str, code| {
                let method = Method::from_bytes(method.as_bytes()).expect("the method is valid");
                requests.count(
                    endpoint,
                    endpoint.metric_label().expect("the endpoint is counted"),
                    &method,
                    code,
                );
            };
            count(Endpoint::Push, "PUT", 200);
            count(Endpoint::Push, "PUT", 200);
            count(Endpoint::ApiOptions, "OPTIONS", 200);
            count(Endpoint::Delete, "DELETE", 202);
            count(Endpoint::StatusPage, "BREW", 418);
            count(Endpoint::StatusPage, "put", 418);
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
            let requests = RequestMetrics::new();
            assert!(
                recorder.gather().is_empty(),
                "the official program shows no summaries before the first push"
            );
            requests.measure_push(&Method::PUT, 0.5, 100);
            requests.measure_push(&Method::PUT, 0.25, 50);
            requests.measure_push(&Method::POST, 0.125, 10);
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
