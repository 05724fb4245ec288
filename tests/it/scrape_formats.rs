//! The exposition in all its forms: whatever the format and the compression, the same is said.

use crate::support::exposition::Exposition;
use crate::support::http_client::{Connection, Response};
use crate::support::protobuf::{
    Bucket, Histogram, Label, Metric, MetricFamily, Single, Span, Time, as_text, read, respelled, write,
};
use crate::support::{Gateway, gunzip_one_member, unzstd};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

fn ask(connection: &mut Connection, accept: &str, coding: &str) -> Response {
    let headers = [("Accept", accept), ("Accept-Encoding", coding)];
    let answer = connection.request("GET", "/metrics", &headers, b"").expect("an answer to a scrape");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-encoding").unwrap_or("identity"), coding);
    answer
}

fn body(connection: &mut Connection, accept: &str, coding: &str) -> Vec<u8> {
    let answer = ask(connection, accept, coding);
    match coding {
        "identity" => answer.body,
        "gzip" => gunzip_one_member(&answer.body),
        "zstd" => unzstd(&answer.body),
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

/// All forms of the exposition say the same, but for the gateway's own metrics, which change with every scrape.
fn check_all_forms(connection: &mut Connection) {
    let plain = respelled(text(connection, "identity").pushed());
    for coding in ["identity", "gzip", "zstd"] {
        assert!(respelled(text(connection, coding).pushed()) == plain, "text in {coding}");
        assert!(as_text(protobuf(connection, coding)).pushed() == plain, "protobuf in {coding}");
    }
}

/// What a Go program pushes: a counter with its time of creation, a histogram with native buckets only.
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
fn every_form_says_the_same() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    check_all_forms(&mut connection);
    let kinds = "# HELP c Things \\n done.\n# TYPE c counter\nc{x=\"\\\"\\\\\\n\"} 5\n# TYPE g gauge\ng -0\n\
        # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n\
        # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 30\ns_count 20\nu -Inf\n";
    let push = |job: &str, headers: &[(&str, &str)], body: &[u8]| {
        let answer = gateway.request("PUT", &format!("/metrics/job/{job}"), headers, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    for job in 0..200 {
        push(&format!("text{job}"), &[], kinds.as_bytes());
        push(&format!("go{job}"), &[("Content-Type", PROTOBUF)], &from_go(job));
        // Forms are kept between scrapes: changes must reach them.
        if job % 50 == 0 {
            check_all_forms(&mut connection);
        }
    }
    for job in (0..200).step_by(3) {
        push(&format!("go{job}"), &[("Content-Type", PROTOBUF)], &from_go(job + 1_000));
        gateway.delete(&format!("/metrics/job/text{job}"));
    }
    check_all_forms(&mut connection);
}

/// Its lines are cut into pieces, but never within a histogram.
#[test]
fn a_group_of_thousands_of_histograms_is_the_same_in_protobuf() {
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
    // The same from protobuf, of which no line is the whole truth.
    let metrics = (0..3_000).map(|n| {
        let label = vec![Label { name: "n".into(), value: n.to_string() }];
        let bucket = vec![Bucket { count: 1, count_float: 0.0, at: 1.0 }];
        let histogram = Some(Histogram { count: 7, sum: 2.0, bucket, ..Histogram::default() });
        Metric { label, histogram, ..Metric::default() }
    });
    let family = MetricFamily { name: "h".into(), help: None, kind: 4, metric: metrics.collect() };
    let body = write(&[family]);
    let answer = gateway.request("PUT", "/metrics/job/b", &[("Content-Type", PROTOBUF)], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut connection = gateway.connect();
    check_all_forms(&mut connection);
    let metrics = protobuf(&mut connection, "identity").into_iter().find(|family| family.name == "h");
    let metrics = metrics.expect("is shown").metric;
    assert_eq!(metrics.len(), 6_000);
    assert!(
        metrics.iter().all(|metric| !metric.histogram.as_ref().expect("a histogram").bucket.is_empty()),
        "no histogram is torn"
    );
}

/// Text cannot show these.
#[test]
fn protobuf_gives_back_what_only_protobuf_can_say() {
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
fn the_answer_says_what_it_is() {
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
        let answer = ask(&mut connection, accept, "identity");
        assert_eq!(answer.header("content-type"), Some(expected), "asked for {accept}");
        assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
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
    // Go prints whole counts in full, and floats in its shortest form.
    assert_eq!(metric("h")["buckets"], serde_json::json!({"1": "1000000", "+Inf": "1000000"}));
    assert_eq!(metric("h")["count"], "1000000");
    assert_eq!(metric("f")["buckets"]["1"], "0.5");
    assert_eq!(metric("f")["count"], "1.5000005e+06");
    assert_eq!((&metric("s")["count"], &metric("s")["sum"]), (&"1000000".into(), &"1e+06".into()));
}
