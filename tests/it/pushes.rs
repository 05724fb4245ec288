//! The gateway's main job, seen from outside: what is pushed is what is scraped, and what is refused changes nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::exposition::Exposition;
use crate::support::gateway::{Encoding, is_official, program, scrape};
use crate::support::{Gateway, gzip, wait_for};

const JOB: &str = "/metrics/job/a";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// DELETE and wipe answer 202: official may apply them a little later.
fn scrape_until(gateway: &Gateway, what: &str, good: impl Fn(&Exposition) -> bool) -> Exposition {
    wait_for(what, std::time::Duration::from_secs(5), || Some(gateway.scrape()).filter(&good))
}

fn names(exposition: &Exposition) -> Vec<String> {
    exposition.pushed().families.into_iter().map(|family| family.name).collect()
}

#[test]
fn put_replaces_the_group_and_post_the_families() {
    let gateway = Gateway::start(&[]);
    let answer = gateway.put(JOB, "m{x=\"1\"} 1\nm{x=\"2\"} 2\nn 3\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));

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
fn groups_are_apart_and_delete_takes_exactly_one() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    gateway.put("/metrics/job/a/zone/eu", "m 2\n");
    gateway.put("/metrics/job/b", "m 3\n");
    assert_eq!(gateway.scrape().samples("m").count(), 3);

    assert_eq!(gateway.delete(JOB).status, 202);
    assert_eq!(gateway.delete("/metrics/job/nobody").status, 202, "also an absent group");
    let seen = scrape_until(&gateway, "the group to go", |seen| seen.samples("m").count() == 2);
    assert_eq!(seen.value("m", &[("job", "a"), ("zone", "eu")]), Some("2"));
    assert_eq!(seen.value("push_time_seconds", &[("job", "a"), ("zone", "")]), None);
}

#[test]
fn labels_of_the_url_win_and_spellings_meet() {
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
fn every_type_comes_out_as_it_went_in() {
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
        // Compressed forms are kept between scrapes: changes must reach them.
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
fn encodings_are_sent_only_when_asked_for() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    for (asked, sent) in
        [("gzip", Some("gzip")), ("deflate, gzip;q=0.5", Some("gzip")), ("identity", None), ("br", None)]
    {
        let answer = gateway.request("GET", "/metrics", &[("Accept-Encoding", asked)], b"");
        assert_eq!(answer.header("content-encoding"), sent, "asked for {asked}");
    }
    assert_eq!(gateway.get("/metrics").header("content-encoding"), None);
    let kind = gateway.get("/metrics").header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
}

#[test]
fn gzip_and_chunked_bodies_are_read() {
    let gateway = Gateway::start(&[]);
    let zipped = [("Content-Encoding", "gzip")];
    let body = gzip(b"m 1\n");
    assert_eq!(gateway.request("PUT", JOB, &zipped, &body).status, 200);
    let members = [gzip(b"n 1"), gzip(b"2\n")].concat();
    assert_eq!(gateway.request("POST", JOB, &zipped, &members).status, 200, "members may follow each other");
    if !is_official() {
        let cut = &body[..body.len() - 3];
        assert_eq!(gateway.request("PUT", JOB, &zipped, cut).status, 400, "cut in the trailer");
    }
    assert_eq!(gateway.request("PUT", JOB, &zipped, b"m 2\n").status, 400, "no gzip");
    assert_eq!(gateway.request("PUT", JOB, &zipped, b"").status, 400, "an empty body is no gzip stream");
    let chunks: [&[u8]; 3] = [b"o 1", b"2", b"3\n"];
    assert_eq!(gateway.connect().request_chunked("POST", JOB, &[], &chunks).expect("an answer").status, 200);
    let seen = gateway.scrape();
    assert_eq!(["m", "n", "o"].map(|name| seen.value(name, &[])), [Some("1"), Some("12"), Some("123")]);
}

#[test]
fn a_large_body_waits_for_the_word_to_continue() {
    let gateway = Gateway::start(&[]);
    let body: String = (0..20_000).map(|n| format!("big{{n=\"{n}\"}} {n}\n")).collect();
    let mut connection = gateway.connect();
    let head = format!(
        "PUT {JOB} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.send(head.as_bytes()).expect("sent");
    assert_eq!(connection.read("PUT").expect("an interim answer").status, 100);
    assert_eq!(connection.exchange("PUT", body.as_bytes()).expect("an answer").status, 200);
    assert_eq!(scrape(&mut connection, Encoding::Gzip).samples("big").count(), 20_000);
}

#[test]
fn a_connection_serves_many_requests() {
    let gateway = Gateway::start(&[]);
    let mut connection = gateway.connect();
    for n in 0..200 {
        let body = format!("m {n}\n");
        assert_eq!(connection.request("PUT", JOB, &[], body.as_bytes()).expect("an answer").status, 200);
        assert_eq!(scrape(&mut connection, Encoding::Plain).value("m", &[]), Some(n.to_string().as_str()));
    }
}

#[test]
fn what_cannot_be_read_touches_nothing_and_says_where() {
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
        let answer = gateway.put(JOB, body);
        assert_eq!(answer.status, 400, "{body:?}");
        let text = answer.text();
        assert!(text.starts_with(&format!("text format parsing error in line {line}: ")), "{body:?}: {text}");
        assert!(text.ends_with('\n'), "{text:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(gateway.put("/metrics/job/new", body).status, 400);
    }
    assert_eq!(gateway.scrape().pushed(), before);
}

#[test]
fn bad_paths_are_refused() {
    let gateway = Gateway::start(&[]);
    for (path, words) in [
        ("/metrics/job/a/x-y/1", "x-y"),
        ("/metrics/job/a/__x/1", "__x"),
        ("/metrics/job/a/x", "odd number"),
        ("/metrics/job@base64/=", "job name is required"),
        ("/metrics/job/a/x@base64/!", "base64"),
    ] {
        for method in ["PUT", "POST", "DELETE"] {
            let answer = gateway.request(method, path, &[], b"");
            assert_eq!(answer.status, 400, "{method} {path}");
            assert!(answer.text().contains(words), "{method} {path}: {}", answer.text());
        }
    }
    assert!(names(&gateway.scrape()).is_empty());
}

#[test]
fn a_refused_push_makes_the_group_and_a_failure_time_only() {
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
        let answer = gateway.put(&path, body);
        assert_eq!(answer.status, 400, "{body:?}");
        assert!(answer.text().starts_with(WORDS), "{body:?}: {}", answer.text());
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
    // The content of a living group stays, and the failure time outlives the next success.
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
fn push_times_are_those_of_the_pushes() {
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
    // They are always the gateway's.
    gateway.put(JOB, "# TYPE push_time_seconds gauge\npush_time_seconds 5\n");
    assert!(time("push_time_seconds") > first);
    gateway.put(JOB, "m 1 5\n");
    assert!(time("push_failure_time_seconds") > first);
    gateway.delete(JOB);
    gateway.put(JOB, "m 1\n");
    assert!(time("push_failure_time_seconds") == 0.0, "DELETE forgets the failure");
}

#[test]
fn the_state_after_the_push_is_what_is_checked() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "# TYPE m gauge\nm 1\nn 1\n");
    assert_eq!(gateway.put(JOB, "# TYPE m counter\nm 1\n").status, 200, "nobody else has the type");
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m gauge\nm 1\n").status, 400);
    assert_eq!(gateway.delete(JOB).status, 202);
    assert_eq!(
        gateway.put("/metrics/job/b", "# TYPE m gauge\nm 1\n").status,
        200,
        "after DELETE the type is free"
    );
    // POST is checked against what stays.
    gateway.put(JOB, "# TYPE h histogram\nh_count 1\nk 1\n");
    assert_eq!(gateway.post(JOB, "h_sum 1\n").status, 400);
    assert_eq!(gateway.put(JOB, "h_sum 1\n").status, 200);
}

#[test]
fn twin_series_of_two_groups_are_refused() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put(JOB, "m{zone=\"eu\"} 1\nm{zone=\"us\"} 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/a/zone/eu", "m 1\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/a/zone/eu", "m{x=\"1\"} 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/a/zone/asia", "m 1\n").status, 200);
    assert_eq!(gateway.post(JOB, "m{zone=\"asia\"} 1\n").status, 400);
    assert_eq!(gateway.post(JOB, "m{zone=\"eu\",x=\"1\"} 1\n").status, 400);
    gateway.scrape();
}

#[test]
fn wipe_needs_its_flag_and_takes_everything() {
    let without = Gateway::start(&[]);
    assert_eq!(without.put("/api/v1/admin/wipe", "").status, 404);
    drop(without);
    let gateway = Gateway::start(&["--web.enable-admin-api"]);
    for job in 0..50 {
        gateway.put(&format!("/metrics/job/j{job}"), "# TYPE m gauge\nm 1\n");
    }
    let answer = gateway.put("/api/v1/admin/wipe", "");
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    scrape_until(&gateway, "the groups to go", |seen| names(seen).is_empty());
    assert_eq!(gateway.put(JOB, "# TYPE m counter\nm 1\n").status, 200, "its names are free again");
    assert_eq!(gateway.scrape().samples("push_time_seconds").count(), 1);
}

#[test]
fn the_api_shows_status_and_groups() {
    let gateway = Gateway::start(&["--web.enable-admin-api"]);
    let status: serde_json::Value =
        serde_json::from_slice(&gateway.get("/api/v1/status").body).expect("JSON");
    assert_eq!(status["status"], "success");
    assert_eq!(status["data"]["flags"]["web.enable-admin-api"], "true");
    assert_eq!(status["data"]["flags"]["web.telemetry-path"], "/metrics");
    assert!(status["data"]["build_information"]["version"].is_string());
    assert!(status["data"]["start_time"].is_string());

    let groups = || -> serde_json::Value {
        serde_json::from_slice(&gateway.get("/api/v1/metrics").body).expect("JSON")
    };
    assert_eq!(groups()["data"], serde_json::json!([]));
    gateway.put("/metrics/job/a/zone/eu", "# HELP g A gauge.\n# TYPE g gauge\ng{x=\"1\"} 1e6\n");
    let group = &groups()["data"][0];
    assert_eq!(group["labels"], serde_json::json!({"job": "a", "zone": "eu"}));
    assert_eq!(group["last_push_successful"], true);
    assert_eq!(group["g"]["type"], "GAUGE");
    assert_eq!(group["g"]["help"], "A gauge.");
    let metric =
        serde_json::json!({"labels": {"instance": "", "job": "a", "zone": "eu", "x": "1"}, "value": "1e+06"});
    assert_eq!(group["g"]["metrics"][0], metric);
    gateway.put("/metrics/job/a/zone/eu", "g 1 5\n");
    assert_eq!(groups()["data"][0]["last_push_successful"], false);
    assert_eq!(gateway.get("/api/v1/metrics").header("access-control-allow-origin"), Some("*"));
    assert_eq!(gateway.request("OPTIONS", "/api/v1/metrics", &[], b"").status, 200);
}

#[test]
fn unclean_paths_are_redirected() {
    let gateway = Gateway::start(&[]);
    for (method, path, location) in [
        ("GET", "/metrics/", "/metrics"),
        ("GET", "//metrics", "/metrics"),
        ("GET", "/static", "/static/"),
        ("PUT", "/metrics/job/a//b/1", "/metrics/job/a/b/1"),
        ("PUT", "/metrics/job/a/../b", "/metrics/job/b"),
        ("PUT", "/metrics/job/./a", "/metrics/job/a"),
        ("PUT", "/metrics/JOB/a", "/metrics/job/a"),
        ("PUT", "/metrics/job/", "/metrics/job"),
    ] {
        let answer = gateway.request(method, path, &[], b"");
        assert!(matches!(answer.status, 301 | 307 | 308), "{method} {path}: {}", answer.status);
        assert_eq!(answer.header("location"), Some(location), "{method} {path}");
    }
}

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    let gateway = Gateway::start(&[]);
    for (method, path) in [
        ("GET", "/nothing"),
        ("PUT", "/metrics/job"),
        ("PUT", "/metrics/jobs/a"),
        ("GET", "/api/v1/nothing"),
        ("GET", "/static/none.js"),
    ] {
        assert_eq!(gateway.request(method, path, &[], b"").status, 404, "{method} {path}");
    }
    for (method, path, allow) in [
        ("GET", JOB, "DELETE, OPTIONS, POST, PUT"),
        ("PATCH", JOB, "DELETE, OPTIONS, POST, PUT"),
        ("HEAD", "/metrics", "GET, OPTIONS"),
        ("PUT", "/metrics", "GET, OPTIONS"),
        ("POST", "/-/healthy", "GET, OPTIONS"),
    ] {
        let answer = gateway.request(method, path, &[], b"");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    assert_eq!(
        (gateway.get("/-/healthy").text().as_str(), gateway.get("/-/ready").text().as_str()),
        ("OK", "OK")
    );
    assert_eq!(gateway.put("/-/quit", "").status, 403);
    assert_eq!(gateway.get("/-/quit").status, 405);
}

#[test]
fn it_ends_cleanly_when_told_to() {
    let mut gateway = Gateway::start(&["--web.enable-lifecycle"]);
    assert_eq!(gateway.put("/-/quit", "").status, 200);
    assert!(gateway.ended().success());

    let mut gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    let _idle = gateway.connect();
    assert!(gateway.stop().success(), "{}", gateway.log());
}

#[test]
fn a_second_gateway_on_the_port_fails() {
    let first = Gateway::start(&[]);
    let output = std::process::Command::new(program())
        .args([format!("--web.listen-address=127.0.0.1:{}", first.port()).as_str(), "--persistence.file="])
        .output()
        .expect("the program starts");
    assert!(!output.status.success() || is_official());
    for _ in 0..20 {
        assert_eq!(first.get("/-/ready").status, 200, "all of the traffic is still the first one's");
    }
}

#[test]
fn own_metrics_count_pushes_but_not_scrapes() {
    let gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    gateway.put(JOB, "m one\n");
    gateway.delete(JOB);
    gateway.scrape();
    let count = |labels: &[(&str, &str)]| {
        gateway.scrape().value("pushgateway_http_requests_total", labels).map(str::to_owned)
    };
    assert_eq!(count(&[("handler", "push"), ("code", "200"), ("method", "put")]).as_deref(), Some("1"));
    assert_eq!(count(&[("handler", "push"), ("code", "400"), ("method", "put")]).as_deref(), Some("1"));
    assert_eq!(count(&[("handler", "delete"), ("code", "202"), ("method", "delete")]).as_deref(), Some("1"));
    let seen = gateway.scrape();
    assert_eq!(seen.value("pushgateway_http_push_size_bytes_count", &[("method", "put")]), Some("2"));
    assert!(seen.value("pushgateway_build_info", &[]).is_some());
    assert!(seen.value("process_start_time_seconds", &[]).is_some());
}

#[test]
fn differences_from_the_official_program() {
    if is_official() {
        return;
    }
    let gateway = Gateway::start(&["--push.disable-consistency-check"]);
    assert_eq!(gateway.put(JOB, "# TYPE m gauge\nm 1\n").status, 202);
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m counter\nm 1\n").status, 202);
    let seen = gateway.scrape();
    assert_eq!(seen.samples("m").count(), 1, "an inconsistent push is answered, but not applied");
    assert_ne!(seen.value("push_failure_time_seconds", &[("job", "b")]), Some("0"));
    assert_eq!(gateway.put("/metrics/job/c/x/%ff", "m 1\n").status, 400, "not UTF-8");
    assert_eq!(gateway.put("/metrics/job@base64/!", "m 1\n").status, 400, "no base64");
    assert_eq!(
        gateway.put("/metrics/job/a/instance/", "n 1\n").status,
        400,
        "differs by an empty instance only"
    );
}
