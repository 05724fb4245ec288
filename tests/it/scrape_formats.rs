//! Scrape formats: text and protobuf in all codings have the same content.

use crate::support::exposition::Exposition;
use crate::support::http_client::{Connection, Response};
use crate::support::protobuf::{
    Bucket, Histogram, Label, Metric, MetricFamily, Single, Span, Time, as_text, read, respelled, write,
};
use crate::support::{Gateway, gunzip_one_member, unzstd};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

fn request(connection: &mut Connection, accept: &str, coding: &str) -> Response {
    let headers = [("Accept", accept), ("Accept-Encoding", coding)];
    let response = connection.request("GET", "/metrics", &headers, b"").expect("a scrape response");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-encoding").unwrap_or("identity"), coding);
    response
}

fn body(connection: &mut Connection, accept: &str, coding: &str) -> Vec<u8> {
    let response = request(connection, accept, coding);
    match coding {
        "identity" => response.body,
        "gzip" => gunzip_one_member(&response.body),
        "zstd" => unzstd(&response.body),
        other => panic!("{other}"),
    }
}

fn text(connection: &mut Connection, coding: &str) -> Exposition {
    let text = String::from_utf8(body(connection, "text/plain", coding)).expect("UTF-8");
    Exposition::parse(&text).unwrap_or_else(|problem| panic!("{problem}"))
}

fn protobuf(connection: &mut Connection, coding: &str) -> Vec<MetricFamily> {
    read(&body(connection, PROTOBUF, coding))
}

/// Panics unless all formats and codings have the same content. The gateway's own metrics change with every scrape and do
/// not count.
fn check_all_formats(connection: &mut Connection) {
    let plain = respelled(text(connection, "identity").pushed());
    for coding in ["identity", "gzip", "zstd"] {
        assert!(respelled(text(connection, coding).pushed()) == plain, "text in {coding}");
        assert!(as_text(protobuf(connection, coding)).pushed() == plain, "protobuf in {coding}");
    }
}

/// A push as a Go program sends it: a counter with its creation time, and a histogram with native buckets only.
fn from_go(count: u64) -> Vec<u8> {
    let created = Some(Time { seconds: 1_700_000_000 });
    let counter = Metric { counter: Some(Single { value: count as f64, created }), ..Metric::default() };
    let native = Histogram {
        count,
        sum: 1.5,
        zero_threshold: 0.001,
        positive_span: vec![Span { offset: 0, length: 1 }],
        positive_delta: vec![count as i64],
        ..Histogram::default()
    };
    let native = Metric { histogram: Some(native), ..Metric::default() };
    write(&[
        MetricFamily {
            name: "go_like_total".into(),
            help: Some("H.".into()),
            kind: 0,
            metric: vec![counter],
        },
        MetricFamily { name: "native".into(), help: None, kind: 4, metric: vec![native] },
    ])
}

#[test]
fn all_formats_and_codings_have_the_same_content() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    check_all_formats(&mut connection);
    let kinds = "# HELP c Things \\n done.\n# TYPE c counter\nc{x=\"\\\"\\\\\\n\"} 5\n# TYPE g gauge\ng -0\n\
        # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n\
        # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 30\ns_count 20\nu -Inf\n";
    let push = |job: &str, headers: &[(&str, &str)], body: &[u8]| {
        let response = gateway.request("PUT", &format!("/metrics/job/{job}"), headers, body);
        assert_eq!(response.status, 200, "{}", response.text());
    };
    for job in 0..200 {
        push(&format!("text{job}"), &[], kinds.as_bytes());
        push(&format!("go{job}"), &[("Content-Type", PROTOBUF)], &from_go(job));
        // The gateway caches encoded pieces between scrapes; a push must invalidate them.
        if job % 50 == 0 {
            check_all_formats(&mut connection);
        }
    }
    for job in (0..200).step_by(3) {
        push(&format!("go{job}"), &[("Content-Type", PROTOBUF)], &from_go(job + 1_000));
        gateway.delete(&format!("/metrics/job/text{job}"));
    }
    check_all_formats(&mut connection);
}

/// The lines of a large group are divided into segments, but never within a histogram.
#[test]
fn thousands_of_histograms_in_a_group_stay_whole_in_protobuf() {
    let gateway = Gateway::start(&[]);
    let lines: String = (0..3_000)
        .map(|n| {
            format!(
                "h_bucket{{n=\"{n}\",le=\"1\"}} {n}\nh_bucket{{n=\"{n}\",le=\"+Inf\"}} {n}\n\
                 h_sum{{n=\"{n}\"}} 1\nh_count{{n=\"{n}\"}} {n}\n"
            )
        })
        .collect();
    assert_eq!(gateway.put("/metrics/job/a", &format!("# TYPE h histogram\n{lines}")).status, 200);
    // The same pushed as protobuf: the gateway keeps the message, because the lines do not have all of it.
    let metrics = (0..3_000).map(|n| {
        let label = vec![Label { name: "n".into(), value: n.to_string() }];
        let bucket = vec![Bucket { count: 1, count_float: 0.0, at: 1.0 }];
        let histogram = Some(Histogram { count: 7, sum: 2.0, bucket, ..Histogram::default() });
        Metric { label, histogram, ..Metric::default() }
    });
    let family = MetricFamily { name: "h".into(), help: None, kind: 4, metric: metrics.collect() };
    let body = write(&[family]);
    let response = gateway.request("PUT", "/metrics/job/b", &[("Content-Type", PROTOBUF)], &body);
    assert_eq!(response.status, 200, "{}", response.text());
    let mut connection = gateway.connect();
    check_all_formats(&mut connection);
    let metrics = protobuf(&mut connection, "identity").into_iter().find(|family| family.name == "h");
    let metrics = metrics.expect("the family is exposed").metric;
    assert_eq!(metrics.len(), 6_000);
    assert!(
        metrics.iter().all(|metric| !metric.histogram.as_ref().expect("a histogram").bucket.is_empty()),
        "a histogram without buckets"
    );
}

/// Text has no native buckets and no creation times.
#[test]
fn protobuf_scrapes_keep_what_text_cannot_express() {
    let gateway = Gateway::start(&[]);
    gateway.request("PUT", "/metrics/job/a", &[("Content-Type", PROTOBUF)], &from_go(3));
    gateway.put("/metrics/job/b", "# TYPE go_like_total counter\ngo_like_total 1\n");
    let seen = protobuf(&mut gateway.connect(), "gzip");
    let of = |name: &str, job: &str| {
        let family = seen.iter().find(|family| family.name == name).expect("a family");
        let is_job = |metric: &&Metric| metric.label.iter().any(|l| l.name == "job" && l.value == job);
        family.metric.iter().find(is_job).expect("a metric").clone()
    };
    let created = of("go_like_total", "a").counter.expect("a counter").created;
    assert_eq!(created, Some(Time { seconds: 1_700_000_000 }));
    assert_eq!(of("go_like_total", "b").counter.expect("a counter").created, None);
    let native = of("native", "a").histogram.expect("a histogram");
    assert_eq!((native.positive_delta, native.bucket), (vec![3], Vec::new()));
}

#[test]
fn the_content_type_is_the_negotiated_one() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    for (accept, expected) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"),
        ("text/plain;escaping=dots", "text/plain; version=0.0.4; charset=utf-8; escaping=dots"),
        (
            PROTOBUF,
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; \
             escaping=underscores",
        ),
        (
            "application/openmetrics-text;escaping=allow-utf-8,text/plain;q=0.5",
            "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
        ),
    ] {
        let response = request(&mut connection, accept, "identity");
        assert_eq!(response.header("content-type"), Some(expected), "Accept: {accept}");
        assert_eq!(response.header("vary"), Some("Accept, Accept-Encoding"));
    }
}

#[test]
fn the_api_shows_native_buckets() {
    let gateway = Gateway::start(&[]);
    gateway.request("PUT", "/metrics/job/a", &[("Content-Type", PROTOBUF)], &from_go(2_000_000));
    let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1e6\nh_bucket{le=\"+Inf\"} 1e6\nh_count 1e6\nh_sum 0.5\n\
        # TYPE f histogram\nf_bucket{le=\"1\"} 0.5\nf_count 1500000.5\nf_sum 2\n\
        # TYPE s summary\ns_count 1e6\ns_sum 1e6\n";
    assert_eq!(gateway.post("/metrics/job/a", text).status, 200);
    let document: serde_json::Value =
        serde_json::from_slice(&gateway.get("/api/v1/metrics").body).expect("JSON");
    let metric = |name: &str| document["data"][0][name]["metrics"][0].clone();
    let native = metric("native");
    assert_eq!(native["buckets"], serde_json::json!([[0, "0.5", "1", "2000000"]]));
    assert_eq!((&native["count"], &native["sum"]), (&"2000000".into(), &"1.5".into()));
    // Go prints integers in full and floats in the shortest form.
    assert_eq!(metric("h")["buckets"], serde_json::json!({"1": "1000000", "+Inf": "1000000"}));
    assert_eq!(metric("h")["count"], "1000000");
    assert_eq!(metric("f")["buckets"]["1"], "0.5");
    assert_eq!(metric("f")["count"], "1.5000005e+06");
    assert_eq!((&metric("s")["count"], &metric("s")["sum"]), (&"1000000".into(), &"1e+06".into()));
}
