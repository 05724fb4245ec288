//! Pushes: a scrape shows exactly what was pushed, and a rejected push changes nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::exposition::Exposition;
use crate::support::gateway::{Encoding, scrape};
use crate::support::{Gateway, gzip, wait_for};

const JOB: &str = "/metrics/job/a";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Waits for a scrape that meets a condition: the official program may apply DELETE a little after its 202.
fn scrape_until(gateway: &Gateway, what: &str, good: impl Fn(&Exposition) -> bool) -> Exposition {
    wait_for(what, std::time::Duration::from_secs(5), || Some(gateway.scrape()).filter(&good))
}

fn names(exposition: &Exposition) -> Vec<String> {
    exposition.pushed().families.into_iter().map(|family| family.name).collect()
}

#[test]
fn put_replaces_the_group_and_post_the_families() {
    let gateway = Gateway::start(&[]);
    let response = gateway.put(JOB, "m{x=\"1\"} 1\nm{x=\"2\"} 2\nn 3\n");
    assert_eq!((response.status, response.text().as_str()), (200, ""));

    assert_eq!(gateway.post(JOB, "m{x=\"3\"} 4\no 5\n").status, 200);
    let seen = gateway.scrape();
    assert_eq!(seen.samples("m").count(), 1, "POST replaces a whole family, not series");
    assert_eq!(seen.value("m", &[("x", "3"), ("job", "a"), ("instance", "")]), Some("4"));
    assert_eq!(seen.value("n", &[]), Some("3"));
    assert_eq!(seen.value("o", &[]), Some("5"));

    assert_eq!(gateway.put(JOB, "n 6\n").status, 200);
    assert_eq!(names(&gateway.scrape()), ["n", "push_failure_time_seconds", "push_time_seconds"]);

    assert_eq!(gateway.put(JOB, "").status, 200);
    assert_eq!(names(&gateway.scrape()), ["push_failure_time_seconds", "push_time_seconds"]);
}

#[test]
fn delete_removes_exactly_one_group() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    gateway.put("/metrics/job/a/zone/eu", "m 2\n");
    gateway.put("/metrics/job/b", "m 3\n");
    assert_eq!(gateway.scrape().samples("m").count(), 3);

    assert_eq!(gateway.delete(JOB).status, 202);
    assert_eq!(gateway.delete("/metrics/job/nobody").status, 202, "even if the group does not exist");
    let seen = scrape_until(&gateway, "the group to go", |seen| seen.samples("m").count() == 2);
    assert_eq!(seen.value("m", &[("job", "a"), ("zone", "eu")]), Some("2"));
    assert_eq!(seen.value("push_time_seconds", &[("job", "a"), ("zone", "")]), None);
}

#[test]
fn labels_of_the_url_win_and_all_spellings_name_one_group() {
    let gateway = Gateway::start(&[]);
    gateway.put(
        "/metrics/job@base64/YS9i/zone/e%20u/path@base64/L3Zhcg",
        "m{job=\"x\",zone=\"y\",own=\"\\\"\\\\\\n\"} 1\n",
    );
    gateway.post("/metrics/job@base64/YS9i/path@base64/L3Zhcg==/zone@base64/ZSB1", "n{instance=\"i\"} 2\n");
    let seen = gateway.scrape();
    let key = [("job", "a/b"), ("zone", "e u"), ("path", "/var")];
    assert_eq!(seen.value("m", &[&key[..], &[("own", "\"\\\n"), ("instance", "")]].concat()), Some("1"));
    assert_eq!(seen.value("n", &[&key[..], &[("instance", "i")]].concat()), Some("2"));
    assert_eq!(seen.samples("push_time_seconds").count(), 1);
}

#[test]
fn a_scrape_shows_each_type_as_it_was_pushed() {
    let gateway = Gateway::start(&[]);
    let body = "# HELP c Things \\\\ done.\n# TYPE c counter\nc 1e6\n# TYPE g gauge\ng -0.5\n\
        # HELP h Sizes.\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n\
        # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 30\ns_count 20\nu +Inf\n";
    assert_eq!(gateway.put(JOB, body).status, 200);
    let seen = gateway.scrape();
    let kinds = |name: &str| seen.family(name).map(|family| family.kind.clone()).unwrap_or_default();
    assert_eq!(["c", "g", "h", "s", "u"].map(kinds), ["counter", "gauge", "histogram", "summary", "untyped"]);
    assert_eq!(seen.family("c").and_then(|family| family.help.as_deref()), Some("Things \\ done."));
    assert_eq!(seen.value("c", &[]), Some("1e+06"));
    assert_eq!(seen.value("g", &[]), Some("-0.5"));
    assert_eq!(seen.value("h_bucket", &[("le", "1")]), Some("1"));
    assert_eq!(seen.value("h_bucket", &[("le", "+Inf")]), Some("4"));
    assert_eq!(seen.value("h_sum", &[]), Some("9.5"));
    assert_eq!(seen.value("s", &[("quantile", "0.5")]), Some("NaN"));
    assert_eq!(seen.value("s_count", &[]), Some("20"));
    assert_eq!(seen.value("u", &[]), Some("+Inf"));
}

#[test]
fn a_gzip_scrape_equals_a_plain_one() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    for job in 0..300 {
        let body: String = (0..20).map(|n| format!("m{n}{{x=\"{job}\"}} {}\n", job * n)).collect();
        gateway.put(&format!("/metrics/job/j{job}/zone/{}", job % 7), &body);
        // The gateway caches compressed pieces between scrapes; a push must invalidate them.
        if job % 60 == 0 {
            let zipped = scrape(&mut connection, Encoding::Gzip).pushed();
            assert_eq!(zipped, scrape(&mut connection, Encoding::Plain).pushed(), "after {job} groups");
        }
    }
    let plain = scrape(&mut connection, Encoding::Plain).pushed();
    assert_eq!(plain.families.iter().map(|family| family.samples.len()).sum::<usize>(), 300 * 22);
    assert_eq!(scrape(&mut connection, Encoding::Gzip).pushed(), plain);
    gateway.delete("/metrics/job/j150/zone/3");
    let plain = scrape_until(&gateway, "the group to go", |seen| seen.samples("m0").count() == 299).pushed();
    assert_eq!(scrape(&mut connection, Encoding::Gzip).pushed(), plain);
}

#[test]
fn scrapes_are_compressed_only_on_request() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    for (accepted, sent) in
        [("gzip", Some("gzip")), ("deflate, gzip;q=0.5", Some("gzip")), ("identity", None), ("br", None)]
    {
        let response = gateway.request("GET", "/metrics", &[("Accept-Encoding", accepted)], b"");
        assert_eq!(response.header("content-encoding"), sent, "Accept-Encoding: {accepted}");
    }
    assert_eq!(gateway.get("/metrics").header("content-encoding"), None);
    let kind = gateway.get("/metrics").header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
}

#[test]
fn gzip_and_chunked_bodies_are_decoded() {
    let gateway = Gateway::start(&[]);
    let zipped = [("Content-Encoding", "gzip")];
    let body = gzip(b"m 1\n");
    assert_eq!(gateway.request("PUT", JOB, &zipped, &body).status, 200);
    let members = [gzip(b"n 1"), gzip(b"2\n")].concat();
    assert_eq!(gateway.request("POST", JOB, &zipped, &members).status, 200, "a body of two gzip members");
    let truncated = &body[..body.len() - 3];
    assert_eq!(gateway.request("PUT", JOB, &zipped, truncated).status, 400, "a truncated gzip trailer");
    assert_eq!(gateway.request("PUT", JOB, &zipped, b"m 2\n").status, 400, "not gzip");
    assert_eq!(gateway.request("PUT", JOB, &zipped, b"").status, 400, "an empty body is not a gzip stream");
    let chunks: [&[u8]; 3] = [b"o 1", b"2", b"3\n"];
    assert_eq!(gateway.connect().request_chunked("POST", JOB, &[], &chunks).expect("a response").status, 200);
    let seen = gateway.scrape();
    assert_eq!(["m", "n", "o"].map(|name| seen.value(name, &[])), [Some("1"), Some("12"), Some("123")]);
}

#[test]
fn a_large_body_is_sent_after_100_continue() {
    let gateway = Gateway::start(&[]);
    let body: String = (0..20_000).map(|n| format!("big{{n=\"{n}\"}} {n}\n")).collect();
    let mut connection = gateway.connect();
    let head = format!(
        "PUT {JOB} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.send(head.as_bytes()).expect("sent");
    assert_eq!(connection.read("PUT").expect("an interim response").status, 100);
    assert_eq!(connection.exchange("PUT", body.as_bytes()).expect("a response").status, 200);
    assert_eq!(scrape(&mut connection, Encoding::Gzip).samples("big").count(), 20_000);
}

#[test]
fn a_connection_serves_many_requests() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    for n in 0..200 {
        let body = format!("m {n}\n");
        assert_eq!(connection.request("PUT", JOB, &[], body.as_bytes()).expect("a response").status, 200);
        assert_eq!(scrape(&mut connection, Encoding::Plain).value("m", &[]), Some(n.to_string().as_str()));
    }
}

#[test]
fn a_syntax_error_changes_nothing_and_names_the_line() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    let before = gateway.scrape().pushed();
    for (body, line) in [
        ("m 1\nm one\n", 2),
        ("m 1\n# TYPE x foo\n", 2),
        ("m{a=\"1\" 1\n", 1),
        ("m 1", 1),
        ("\n\na{x=\"1\",x=\"2\"} 1\n", 3),
        ("m 1\r\n", 1),
        ("h 7\n# TYPE h histogram\n", 2),
    ] {
        let response = gateway.put(JOB, body);
        assert_eq!(response.status, 400, "{body:?}");
        let text = response.text();
        assert!(text.starts_with(&format!("text format parsing error in line {line}: ")), "{body:?}: {text}");
        assert!(text.ends_with('\n'), "{text:?}");
        assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(gateway.put("/metrics/job/new", body).status, 400);
    }
    assert_eq!(gateway.scrape().pushed(), before);
}

#[test]
fn invalid_grouping_keys_are_400() {
    let gateway = Gateway::start(&[]);
    for (path, words) in [
        ("/metrics/job/a/x-y/1", "x-y"),
        ("/metrics/job/a/__x/1", "__x"),
        ("/metrics/job/a/x", "odd number"),
        ("/metrics/job@base64/=", "job name is required"),
        ("/metrics/job/a/x@base64/!", "base64"),
    ] {
        for method in ["PUT", "POST", "DELETE"] {
            let response = gateway.request(method, path, &[], b"");
            assert_eq!(response.status, 400, "{method} {path}");
            assert!(response.text().contains(words), "{method} {path}: {}", response.text());
        }
    }
    assert!(names(&gateway.scrape()).is_empty());
}

#[test]
fn an_inconsistent_push_creates_only_the_group_and_a_failure_time() {
    const WORDS: &str = "pushed metrics are invalid or inconsistent with existing metrics: ";
    let gateway = Gateway::start(&[]);
    gateway.put("/metrics/job/other", "# TYPE typed gauge\ntyped 1\nh_count 1\n");
    let begin = now();
    for (number, body) in [
        "m 1 5\n",
        "m 1\nm 2\n",
        "m{a=\"1\",b=\"2\"} 1\nm{b=\"2\",a=\"1\"} 2\n",
        "# TYPE typed counter\ntyped 1\n",
        "# TYPE h histogram\nh_count 1\n",
        "# TYPE pushgateway_build_info counter\npushgateway_build_info 1\n",
        "m{__x=\"1\"} 1\n",
    ]
    .iter()
    .enumerate()
    {
        let (path, job) = (format!("/metrics/job/fresh{number}"), format!("fresh{number}"));
        let response = gateway.put(&path, body);
        assert_eq!(response.status, 400, "{body:?}");
        assert!(response.text().starts_with(WORDS), "{body:?}: {}", response.text());
        let seen = gateway.scrape();
        let key = [("job", job.as_str()), ("instance", "")];
        assert_eq!(seen.value("push_time_seconds", &key), Some("0"), "{body:?}");
        let failure = seen.samples("push_failure_time_seconds").find(|sample| sample.label("job") == job);
        let failure = failure.expect("a failure time").number();
        assert!((begin - 1.0..now() + 1.0).contains(&failure), "{body:?}: {failure}");
        let of_job =
            seen.families.iter().filter(|family| family.samples.iter().any(|s| s.label("job") == job));
        assert_eq!(of_job.count(), 2, "{body:?}");
    }
    // An existing group keeps its content, and the next successful push keeps the failure time.
    gateway.put(JOB, "m 1\n");
    assert_eq!(gateway.post(JOB, "n 1\nm 1\nm 2\n").status, 400);
    let failed = gateway.scrape();
    assert_eq!(failed.value("m", &[("job", "a")]), Some("1"));
    assert_eq!(failed.value("n", &[]), None);
    let failure = failed.value("push_failure_time_seconds", &[("job", "a")]).expect("a time").to_owned();
    assert_ne!(failure, "0");
    assert_eq!(gateway.put(JOB, "m 2\n").status, 200);
    let after = gateway.scrape();
    assert_eq!(after.value("m", &[("job", "a")]), Some("2"));
    assert_eq!(after.value("push_failure_time_seconds", &[("job", "a")]), Some(failure.as_str()));
}

#[test]
fn push_times_are_the_times_of_the_pushes() {
    let gateway = Gateway::start(&[]);
    let time = |name| gateway.scrape().samples(name).next().expect("one group").number();
    let begin = now();
    gateway.put(JOB, "m 1\n");
    let first = time("push_time_seconds");
    assert!((begin - 0.001..=now() + 0.001).contains(&first), "{begin} {first}");
    assert!(time("push_failure_time_seconds") == 0.0);
    std::thread::sleep(std::time::Duration::from_millis(5));
    gateway.post(JOB, "");
    assert!(time("push_time_seconds") > first);
    // A body cannot set them.
    gateway.put(JOB, "# TYPE push_time_seconds gauge\npush_time_seconds 5\n");
    assert!(time("push_time_seconds") > first);
    gateway.put(JOB, "m 1 5\n");
    assert!(time("push_failure_time_seconds") > first);
    gateway.delete(JOB);
    gateway.put(JOB, "m 1\n");
    assert!(time("push_failure_time_seconds") == 0.0, "DELETE removes the failure time");
}

#[test]
fn the_consistency_check_looks_at_the_state_after_the_push() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "# TYPE m gauge\nm 1\nn 1\n");
    assert_eq!(gateway.put(JOB, "# TYPE m counter\nm 1\n").status, 200, "no other group has this name");
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m gauge\nm 1\n").status, 400);
    assert_eq!(gateway.delete(JOB).status, 202);
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m gauge\nm 1\n").status, 200, "DELETE frees the name");
    // A POST is checked together with the families it leaves in place.
    gateway.put(JOB, "# TYPE h histogram\nh_count 1\nk 1\n");
    assert_eq!(gateway.post(JOB, "h_sum 1\n").status, 400);
    assert_eq!(gateway.put(JOB, "h_sum 1\n").status, 200);
}

#[test]
fn duplicate_series_of_two_groups_are_rejected() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put(JOB, "m{zone=\"eu\"} 1\nm{zone=\"us\"} 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/a/zone/eu", "m 1\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/a/zone/eu", "m{x=\"1\"} 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/a/zone/asia", "m 1\n").status, 200);
    assert_eq!(gateway.post(JOB, "m{zone=\"asia\"} 1\n").status, 400);
    assert_eq!(gateway.post(JOB, "m{zone=\"eu\",x=\"1\"} 1\n").status, 400);
    gateway.scrape();
}
