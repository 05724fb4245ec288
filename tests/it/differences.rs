//! One test for each numbered difference in `docs/compatibility.md`, "Differences". The name of a test begins with the number.
//!
//! Differences 14 to 16 and 20 have their tests in `utf8_names`, `groups_api`, `storage` and `sockets`; more tests of difference 2 are in
//! `hostile_bodies` and `races`.

use std::time::Duration;

use crate::support::http_client::Response;
use crate::support::protobuf::read;
use crate::support::{Gateway, gzip, protobuf_fields as pb, unzstd, wait_for};

const JOB: &str = "/metrics/job/a";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

fn put_protobuf(gateway: &Gateway, path: &str, body: &[u8]) -> Response {
    gateway.request("PUT", path, pb::CONTENT_TYPE, body)
}

/// The body of a family with one gauge.
fn gauge(name: &[u8], labels: &[(&[u8], &[u8])]) -> Vec<u8> {
    pb::family(name, pb::GAUGE, &[pb::metric(labels, 2, &pb::double(1, 1.0))])
}

/// The body of a gauge histogram with one bucket.
fn gauge_histogram(name: &[u8]) -> Vec<u8> {
    let bucket = pb::message(3, &[pb::number(1, 2), pb::double(2, 0.5)].concat());
    let histogram = [pb::number(1, 3), pb::double(2, 1.5), bucket].concat();
    pb::family(name, pb::GAUGE_HISTOGRAM, &[pb::metric(&[], 7, &histogram)])
}

#[test]
fn difference_01_an_inconsistent_push_without_the_check_is_202_and_not_applied() {
    let gateway = Gateway::start(&["--push.disable-consistency-check"]);
    assert_eq!(gateway.put(JOB, "# TYPE m gauge\nm 1\n").status, 202);
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m counter\nm 1\n").status, 202);
    let seen = gateway.scrape();
    assert_eq!(seen.value("m", &[("job", "a")]), Some("1"));
    assert_eq!(seen.samples("m").count(), 1);
    let failure = seen.value("push_failure_time_seconds", &[("job", "b")]).expect("the group exists");
    assert_ne!(failure, "0");
}

#[test]
fn difference_02_grouping_keys_that_would_break_scrapes_create_no_group() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put(JOB, "m 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/c/x/%ff", "m 1\n").status, 400, "not UTF-8");
    assert_eq!(gateway.put("/metrics/job/a/instance/", "n 1\n").status, 400, "differs by instance=\"\" only");
    assert_eq!(gateway.scrape().samples("push_time_seconds").count(), 1);
}

#[test]
fn difference_02_push_times_in_a_body_are_ignored() {
    let gateway = Gateway::start(&[]);
    let body = "# TYPE push_time_seconds gauge\npush_time_seconds 5\n\
        # TYPE push_failure_time_seconds gauge\npush_failure_time_seconds 5\nm 1\n";
    assert_eq!(gateway.put(JOB, body).status, 200);
    let seen = gateway.scrape();
    assert_eq!(seen.value("push_failure_time_seconds", &[]), Some("0"));
    assert!(seen.samples("push_time_seconds").all(|sample| sample.number() > 1e9));
}

#[test]
fn difference_02_a_gauge_histogram_reserves_the_names_of_its_parts() {
    let gateway = Gateway::start(&[]);
    assert_eq!(put_protobuf(&gateway, JOB, &gauge_histogram(b"gh")).status, 200);
    for part in ["gh_bucket", "gh_sum", "gh_count"] {
        assert_eq!(gateway.put("/metrics/job/b", &format!("{part} 1\n")).status, 400, "{part}");
    }
    assert_eq!(gateway.put("/metrics/job/b", "gh_total 1\n").status, 200);
}

#[test]
fn difference_02_protobuf_that_would_break_a_scrape_is_inconsistent() {
    let gateway = Gateway::start(&[]);
    let histogram = pb::message(3, &[pb::number(1, 2), pb::double(2, 0.5)].concat());
    let label = [pb::message(1, b"id"), pb::message(2, b"\xff")].concat();
    let exemplar = [pb::double(1, 1.0), pb::message(2, &pb::message(1, &label))].concat();
    for (body, text) in [
        (pb::family(b"m", 6, &[pb::metric(&[], 3, &pb::double(1, 1.0))]), "has the unknown type 6"),
        (
            pb::family(b"m", pb::HISTOGRAM, &[pb::metric(&[(b"le", b"1")], 7, &histogram)]),
            "explicit \"le\" label",
        ),
        (
            pb::family(b"m", pb::COUNTER, &[pb::metric(&[], 3, &exemplar)]),
            "an exemplar has a label that is not utf8",
        ),
        (
            pb::family(b"m", pb::GAUGE_HISTOGRAM, &[pb::metric(&[], 2, &pb::double(1, 1.0))]),
            "is not a GAUGE_HISTOGRAM",
        ),
    ] {
        let response = put_protobuf(&gateway, JOB, &body);
        assert_eq!(response.status, 400, "{text}");
        assert!(response.text().contains(text), "{}", response.text());
        assert_eq!(gateway.scrape().samples("m").count(), 0, "{text}");
    }
}

#[test]
fn difference_02_a_family_is_a_histogram_or_a_gauge_histogram() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put(JOB, "# TYPE m histogram\nm_count 1\n").status, 200);
    let response = put_protobuf(&gateway, "/metrics/job/b", &gauge_histogram(b"m"));
    assert_eq!(response.status, 400);
    let text = "gathered metric family m has type GAUGE_HISTOGRAM but should be HISTOGRAM";
    assert!(response.text().contains(text), "{}", response.text());
}

/// The official program replaces them before it checks a push.
#[test]
fn push_times_in_a_body_are_not_checked() {
    let gateway = Gateway::start(&[]);
    for body in [
        "push_time_seconds 1\npush_time_seconds 1\n",
        "push_time_seconds{__x=\"1\"} 1\n",
        "# TYPE push_time_seconds summary\npush_time_seconds 1\npush_time_seconds_count 1\n",
    ] {
        assert_eq!(gateway.put(JOB, body).status, 200, "{body}");
    }
    let wrong_value = pb::family(b"push_time_seconds", pb::GAUGE, &[pb::metric(&[], 3, &pb::double(1, 1.0))]);
    assert_eq!(put_protobuf(&gateway, JOB, &wrong_value).status, 200);
    assert_eq!(gateway.put(JOB, "push_time_seconds 1 5\n").status, 400, "a timestamp");
}

#[test]
fn difference_02_a_family_without_metrics_has_a_type() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/metrics/job/b", "x 1\n").status, 200);
    let body = [pb::family(b"x", pb::SUMMARY, &[]), pb::family(b"x_sum", pb::GAUGE, &[])].concat();
    assert_eq!(put_protobuf(&gateway, JOB, &body).status, 400);
}

#[test]
fn difference_03_invalid_utf8_in_help_is_replaced() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.request("PUT", JOB, &[], b"# HELP m caf\xe9 \xff.\nm 1\n").status, 200);
    let help = gateway.scrape().family("m").expect("the family is exposed").help.clone();
    assert_eq!(help.as_deref(), Some("caf\u{fffd} \u{fffd}."));
}

#[test]
fn difference_04_names_in_protobuf_are_validated() {
    let gateway = Gateway::start(&[]);
    for body in [gauge(b"m 1\nn", &[]), gauge(b"m", &[(b"a\"", b"1")]), gauge(b"", &[])] {
        assert_eq!(put_protobuf(&gateway, JOB, &body).status, 400);
        let failure = gateway.scrape().value("push_failure_time_seconds", &[("job", "a")]).map(str::to_owned);
        assert_ne!(failure.expect("the group exists"), "0");
        assert_eq!(gateway.request("DELETE", JOB, &[], b"").status, 202);
    }
    // Invalid bytes are worse than invalid names.
    let body = [gauge(b"m\xff", &[]), b"\x05m".to_vec()].concat();
    assert_eq!(put_protobuf(&gateway, JOB, &body).status, 400);
    assert_eq!(gateway.scrape().samples("push_time_seconds").count(), 0, "an invalid body creates no group");
    // The official program forgets the first of these, which has no name.
    let nameless = [gauge(b"", &[]), pb::family(b"", pb::GAUGE, &[])].concat();
    assert_eq!(put_protobuf(&gateway, JOB, &nameless).status, 400);
    assert_eq!(gateway.request("DELETE", JOB, &[], b"").status, 202);
    // The official program rejects a label that an empty summary beside the counter must not have.
    let counter = [pb::metric(&[(b"quantile", b"x")], 3, &pb::double(1, 2.0)), pb::message(4, b"")].concat();
    assert_eq!(put_protobuf(&gateway, JOB, &pb::family(b"m", pb::COUNTER, &[counter])).status, 200);
    assert_eq!(gateway.scrape().value("m", &[("quantile", "x")]), Some("2"));
}

/// The order of groups may be any; the order of the series within a group is by label values, as in the official program.
#[test]
fn difference_05_series_are_sorted_within_a_group() {
    let gateway = Gateway::start(&[]);
    for job in ["b", "a", "c"] {
        let body = "m{x=\"2\"} 1\nm{x=\"10\"} 1\nm{x=\"1\"} 1\n";
        assert_eq!(gateway.put(&format!("/metrics/job/{job}"), body).status, 200);
    }
    let seen = gateway.scrape();
    for job in ["a", "b", "c"] {
        let of_job = seen.samples("m").filter(|sample| sample.label("job") == job);
        assert_eq!(of_job.map(|sample| sample.label("x")).collect::<Vec<_>>(), ["1", "10", "2"], "{job}");
    }
    assert_eq!(seen.samples("m").count(), 9);
}

#[test]
fn difference_06_a_job_that_is_not_base64_is_400() {
    let gateway = Gateway::start(&[]);
    for method in ["PUT", "POST", "DELETE"] {
        assert_eq!(gateway.request(method, "/metrics/job@base64/!", &[], b"").status, 400, "{method}");
    }
    assert_eq!(gateway.put("/metrics/job@base64/YQ", "m 1\n").status, 200);
}

#[test]
fn difference_07_a_body_beyond_the_limit_is_413() {
    let gateway = Gateway::start(&["--push.body-bytes-max=64KiB"]);
    let comment = |bytes: usize| format!("m 1\n#{}\n", "x".repeat(bytes));
    assert_eq!(gateway.put(JOB, &comment(60 << 10)).status, 200);
    assert_eq!(gateway.put(JOB, &comment(70 << 10)).status, 413);
    // The limit counts bytes after decompression.
    let compressed = gzip(comment(70 << 10).as_bytes());
    assert!(compressed.len() < 1 << 10);
    assert_eq!(gateway.request("PUT", JOB, &[("Content-Encoding", "gzip")], &compressed).status, 413);
    // The rendered lines repeat the labels of the URL, and may have four times the limit.
    let path = format!("/metrics/job/a/zone/{}", "z".repeat(1_000));
    let series = |count: usize| (0..count).map(|n| format!("m{{n=\"{n}\"}} 1\n")).collect::<String>();
    assert_eq!(gateway.put(&path, &series(200)).status, 200);
    assert_eq!(gateway.put(&path, &series(300)).status, 413);
}

#[test]
fn difference_07_long_labels_of_the_url_are_repeated_only_so_often() {
    let gateway = Gateway::start(&[]);
    let long = format!("/metrics/job/a/zone/{}", "z".repeat(30_000));
    let series = |count: usize| (0..count).map(|n| format!("m{{n=\"{n}\"}} 1\n")).collect::<String>();
    assert_eq!(gateway.put(&long, &series(100)).status, 200);
    let response = gateway.put(&long, &series(1_000));
    assert_eq!(response.status, 413);
    assert!(response.text().contains("labels of the group"), "{}", response.text());
    // Labels of the usual length may be repeated on any number of series.
    assert_eq!(
        gateway.put("/metrics/job/nightly/instance/host-1.example/zone/eu", &series(100_000)).status,
        200
    );
}

#[test]
fn difference_07_a_head_beyond_the_limit_is_431() {
    let gateway = Gateway::start(&["--web.head-bytes-max=8KiB"]);
    let status =
        |bytes: usize| gateway.request("GET", "/-/healthy", &[("X-Padding", &"x".repeat(bytes))], b"").status;
    assert_eq!((status(4 << 10), status(16 << 10)), (200, 431));
}

#[test]
fn difference_07_names_and_texts_have_a_limit() {
    let gateway = Gateway::start(&[]);
    let (name, value) = ("m".repeat(64 << 10), "v".repeat(1 << 20));
    for (text, status) in [
        (format!("{name} 1\n"), 200),
        (format!("m{name} 1\n"), 400),
        (format!("m{{{name}=\"1\"}} 1\n"), 200),
        (format!("m{{m{name}=\"1\"}} 1\n"), 400),
        (format!("m{{a=\"{value}\"}} 1\n"), 200),
        (format!("m{{a=\"v{value}\"}} 1\n"), 400),
        (format!("# HELP m {value}\nm 1\n"), 200),
        (format!("# HELP m v{value}\nm 1\n"), 400),
    ] {
        let response = gateway.put(JOB, &text);
        assert_eq!(response.status, status, "{}", response.text());
        assert!(status == 200 || response.text().contains("in line 1: "), "{}", response.text());
    }
    for (body, status) in [
        (gauge(name.as_bytes(), &[]), 200),
        (gauge(format!("m{name}").as_bytes(), &[]), 400),
        (gauge(b"m", &[(name.as_bytes(), b"1")]), 200),
        (gauge(b"m", &[(format!("m{name}").as_bytes(), b"1")]), 400),
        (gauge(b"m", &[(b"a", value.as_bytes())]), 200),
        (gauge(b"m", &[(b"a", format!("v{value}").as_bytes())]), 400),
    ] {
        let response = put_protobuf(&gateway, JOB, &body);
        assert_eq!(response.status, status, "{}", response.text());
        assert!(status == 200 || response.text().contains("in message 1: "), "{}", response.text());
    }
}

#[test]
fn difference_07_a_request_that_arrives_too_slowly_is_408() {
    let gateway = Gateway::start(&["--web.head-timeout=300ms", "--web.request-timeout=300ms"]);
    for unfinished in [
        "GET /-/healthy HTTP/1.1\r\nHo",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nm",
    ] {
        let mut connection = gateway.connect();
        connection.send(unfinished.as_bytes()).expect("the gateway reads");
        assert_eq!(connection.read("GET").expect("a response").status, 408, "{unfinished:?}");
    }
}

#[test]
fn difference_07_a_connection_beyond_the_limit_is_503_with_retry_after() {
    let gateway = Gateway::start(&["--web.connections-max=2"]);
    // More than the kernel buffers.
    let lines: String =
        (0..100_000).map(|number| format!("m{{a=\"{number}{}\"}} 1\n", "x".repeat(200))).collect();
    assert_eq!(gateway.put(JOB, &lines).status, 200);
    // Connections that wait for a request are closed to make room, those with a response are not. One of the first may still wait when
    // the next ones arrive, so further ones follow.
    let mut unread = Vec::new();
    let response = wait_for("a rejection", Duration::from_secs(20), || {
        let mut connection = gateway.connect();
        let _ = connection.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        unread.push(connection);
        Some(gateway.get("/-/healthy")).filter(|response| response.status != 200)
    });
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some(), "{:?}", response.headers);
}

#[test]
fn difference_08_zstd_bodies_are_decompressed() {
    let gateway = Gateway::start(&[]);
    let body = ruzstd::encoding::compress_to_vec(&b"m 1\n"[..], ruzstd::encoding::CompressionLevel::Fastest);
    assert_eq!(gateway.request("PUT", JOB, &[("Content-Encoding", "zstd")], &body).status, 200);
    assert_eq!(gateway.scrape().value("m", &[]), Some("1"));
}

#[test]
fn difference_08_scrapes_use_zstd_only_if_it_is_named_and_preferred() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put(JOB, "m 1\n").status, 200);
    for (accepted, coding) in [
        ("zstd", Some("zstd")),
        ("gzip;q=0.5, zstd", Some("zstd")),
        ("gzip, zstd;q=0.5", Some("gzip")),
        ("*", None),
        ("zstd;q=0", None),
    ] {
        let response = gateway.request("GET", "/metrics", &[("Accept-Encoding", accepted)], b"");
        assert_eq!(response.header("content-encoding"), coding, "Accept-Encoding: {accepted}");
        if coding == Some("zstd") {
            let text = String::from_utf8(unzstd(&response.body)).expect("UTF-8");
            assert!(text.contains("\nm{instance=\"\",job=\"a\"} 1\n"), "{text}");
        }
    }
}

#[test]
fn difference_09_there_are_no_go_metrics_and_no_pprof() {
    let gateway = Gateway::start(&[]);
    let seen = gateway.scrape();
    assert!(seen.families.iter().all(|family| !family.name.starts_with("go_")));
    assert!(seen.families.iter().any(|family| family.name.starts_with("sluicegate_")));
    assert_eq!(gateway.get("/debug/pprof").status, 404);
    assert_eq!(gateway.get("/debug/pprof/heap").status, 404);
}

#[test]
fn difference_10_corner_cases_of_the_text_format() {
    let gateway = Gateway::start(&["--push.enable-utf8-names"]);
    // The name in braces counts, whatever the line before is.
    assert_eq!(gateway.put(JOB, "a 1\n{\"b\",x=\"1\"} 2\n").status, 200);
    let seen = gateway.scrape();
    assert_eq!((seen.value("a", &[]), seen.value("b", &[("x", "1")])), (Some("1"), Some("2")));
    for body in ["a 1\n{x=\"1\"} 2\n", "{} 1\n"] {
        assert_eq!(gateway.put(JOB, body).status, 400, "no name: {body:?}");
    }
    // Go's conversion of these counts to an integer depends on the platform.
    assert_eq!(gateway.put(JOB, "# TYPE s summary\ns_count -1\ns_sum 1\n").status, 200);
    assert_eq!(gateway.scrape().value("s_count", &[]), Some("0"));
    // The last of two counts wins.
    assert_eq!(gateway.put(JOB, "# TYPE h histogram\nh_count 1.5\nh_count 2\nh_sum 1\n").status, 200);
    assert_eq!(gateway.scrape().value("h_count", &[]), Some("2"));
}

#[test]
fn difference_11_header_names_are_lower_case_and_redirects_have_no_body() {
    let gateway = Gateway::start(&[]);
    let response = gateway.get("/metrics/");
    assert_eq!((response.status, response.body.len()), (301, 0));
    assert_eq!(response.header("location"), Some("/metrics"));
    for (name, _) in response.headers.iter().chain(&gateway.get("/metrics").headers) {
        assert_eq!(*name, name.to_ascii_lowercase());
    }
}

#[test]
fn difference_12_the_api_shows_buckets_of_gauge_histograms() {
    let gateway = Gateway::start(&[]);
    assert_eq!(put_protobuf(&gateway, JOB, &gauge_histogram(b"gh")).status, 200);
    let document: serde_json::Value =
        serde_json::from_slice(&gateway.get("/api/v1/metrics").body).expect("JSON");
    let metric = &document["data"][0]["gh"]["metrics"][0];
    assert_eq!(metric["buckets"]["0.5"], "2", "{metric}");
    assert_eq!((&metric["count"], &metric["sum"]), (&"3".into(), &"1.5".into()), "{metric}");
}

#[test]
fn difference_13_protobuf_is_offered_only_in_the_delimited_form() {
    let gateway = Gateway::start(&[]);
    let content_type = |accept: &str| {
        let response = gateway.request("GET", "/metrics", &[("Accept", accept)], b"");
        response.header("content-type").unwrap_or_default().to_owned()
    };
    for encoding in ["text", "compact-text"] {
        let unavailable = PROTOBUF.replace("delimited", encoding);
        assert!(content_type(&unavailable).starts_with("text/plain; version=0.0.4"), "{encoding}");
        assert!(
            content_type(&format!("{unavailable}, {PROTOBUF};q=0.5")).starts_with(PROTOBUF),
            "{encoding}"
        );
    }
    let response = gateway.request("GET", "/metrics", &[("Accept", PROTOBUF)], b"");
    assert!(read(&response.body).iter().any(|family| family.name == "pushgateway_build_info"));
}

#[test]
fn difference_17_the_page_needs_no_files() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/metrics/job/backup/zone/eu", "rows 7\n").status, 200);
    for path in ["/", "/status"] {
        let page = gateway.get(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        let text = page.text();
        for word in ["backup", "zone", "eu", "rows"] {
            assert!(text.contains(word), "{word} in {path}");
        }
        assert!(!text.contains(" src=") && !text.contains("<link"), "{text}");
    }
    assert_eq!(gateway.get("/static/bootstrap.js").status, 404);
}

#[test]
fn difference_18_an_invalid_web_configuration_fails_the_start_and_not_a_running_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web.yml");
    let flag = format!("--web.config.file={}", file.display());
    std::fs::write(&file, "basic_auth_users: {john: doe}\n").expect("a file");
    let (status, log) = Gateway::fails_to_start(&[&flag]);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("john") && !log.contains("doe") && !log.contains("Listening on"), "{log}");

    std::fs::write(&file, "{}").expect("a file");
    let gateway = Gateway::start(&[&flag]);
    std::fs::write(&file, "[broken").expect("a file");
    wait_for("the error in the log", Duration::from_secs(20), || {
        gateway.log().contains("the last valid one stays in force").then_some(())
    });
    assert_eq!(gateway.put(JOB, "m 1\n").status, 200);
    assert_eq!(gateway.scrape().value("sluicegate_web_config_reload_successful", &[]), Some("0"));
}

#[test]
fn difference_19_obsolete_forms_of_http_are_rejected() {
    let gateway = Gateway::start(&[]);
    for head in [
        "PUT /metrics/job/a HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n  2\r\nContent-Length: 4\r\n\r\nm 1\n",
        "PUT /metrics/job/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nm 1\n\r\n0\r\n\r\n",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nm 1\n",
        "PUT /metrics/job/a HTTP/1.2\r\nHost: x\r\nContent-Length: 4\r\n\r\nm 1\n",
    ] {
        let response = gateway.connect().exchange("PUT", head.as_bytes()).expect("a response");
        assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{head}");
    }
    assert_eq!(gateway.scrape().samples("m").count(), 0);
}

#[test]
fn difference_21_redirects_are_escaped_once_and_stay_below_the_api() {
    let gateway = Gateway::start(&[]);
    for (method, path, location) in [
        ("PUT", "/metrics/job/a//x/b%2Fc?q=%2F", "/metrics/job/a/x/b%2Fc?q=%2F"),
        ("PUT", "/metrics//job/%C3%A9", "/metrics/job/%C3%A9"),
        ("GET", "/api/v1/Status", "/api/v1/status"),
        ("GET", "/api/v1/metrics/", "/api/v1/metrics"),
        ("DELETE", "/Metrics/job@base64/YQ/x/y", "/metrics/job@base64/YQ/x/y"),
    ] {
        let response = gateway.request(method, path, &[], b"");
        assert!(matches!(response.status, 301 | 307), "{path}");
        assert_eq!(response.header("location"), Some(location), "{path}");
    }
}

#[test]
fn difference_22_an_inconsistent_push_gets_the_first_inconsistency() {
    let gateway = Gateway::start(&[]);
    let response = gateway.put(JOB, "m{__x=\"1\"} 1\nn{__x=\"1\"} 1\n");
    assert_eq!(response.status, 400);
    let text = "pushed metrics are invalid or inconsistent with existing metrics: \
        collected metric \"m\" has a label with an invalid name: __x\n";
    assert_eq!(response.text(), text);
}

#[test]
fn difference_23_accept_encoding_follows_the_rfc() {
    let gateway = Gateway::start(&[]);
    for accepted in ["GZIP", "gzip;x=y", "gzip,,identity;q=0.5"] {
        let response = gateway.request("GET", "/metrics", &[("Accept-Encoding", accepted)], b"");
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{accepted}");
    }
}

#[test]
fn difference_24_a_gzip_header_with_reserved_flags_is_400() {
    let gateway = Gateway::start(&[]);
    let mut body = gzip(b"m 1\n");
    assert_eq!(gateway.request("PUT", JOB, &[("Content-Encoding", "gzip")], &body).status, 200);
    body[3] |= 0x80;
    assert_eq!(gateway.request("PUT", JOB, &[("Content-Encoding", "gzip")], &body).status, 400);
}

#[test]
fn difference_25_types_are_ascii() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put(JOB, "# TYPE m Summary\nm_count 1\n").status, 200);
    assert_eq!(gateway.put(JOB, "# TYPE m \u{17f}ummary\nm_count 1\n").status, 400);
}

#[test]
fn difference_26_a_negative_float_count_is_ignored() {
    let gateway = Gateway::start(&[]);
    let counts = [pb::number(1, 3), pb::double(4, -7.0)].concat();
    let bucket = pb::message(3, &[pb::number(1, 2), pb::double(2, 0.5), pb::double(4, -1.0)].concat());
    let body = pb::family(b"h", pb::HISTOGRAM, &[pb::metric(&[], 7, &[counts, bucket].concat())]);
    assert_eq!(put_protobuf(&gateway, JOB, &body).status, 200);
    let seen = gateway.scrape();
    assert_eq!(seen.value("h_count", &[]), Some("3"));
    assert_eq!(seen.value("h_bucket", &[("le", "0.5")]), Some("2"));
}
