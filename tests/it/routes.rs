//! Routes besides pushes: redirects, unknown paths and methods, the JSON API, the lifecycle.

use std::process::Command;
use std::time::Duration;

use crate::support::gateway::program;
use crate::support::{Gateway, wait_for};

const JOB: &str = "/metrics/job/a";

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
fn a_delete_is_accepted_even_if_its_group_cannot_exist() {
    let gateway = Gateway::start(&["--push.enable-utf8-names"]);
    for path in ["/metrics/job/a/x/%ff", "/metrics/job/a/U__x_2e_y/1/x_y/1", "/metrics/job/a/U______x/1"] {
        assert_eq!(gateway.request("DELETE", path, &[], b"").status, 202, "{path}");
        assert_eq!(gateway.put(path, "m 1\n").status, 400, "{path}");
    }
    assert_eq!(gateway.request("DELETE", "/metrics/job/a/x", &[], b"").status, 400, "names no group");
}

/// Scripts match on the texts.
#[test]
fn paths_that_name_no_group_have_the_official_texts() {
    let gateway = Gateway::start(&[]);
    for (path, text) in [
        ("/metrics/job/a/x", "odd number of components in label string \"/x\"\n"),
        ("/metrics/job/a/x%zz", "400 Bad Request\n"),
        ("/metrics//job/a/x%zz", "400 Bad Request\n"),
        (
            "/metrics/job@base64/!",
            "invalid base64 encoding in job name \"\": illegal base64 data at input byte 0\n",
        ),
        (
            "/metrics/job/a/x@base64/Y",
            "invalid base64 encoding for label x=\"Y\": illegal base64 data at input byte 0\n",
        ),
    ] {
        let response = gateway.put(path, "m 1\n");
        assert_eq!((response.status, response.text().as_str()), (400, text), "{path}");
    }
}

#[test]
fn paths_that_are_not_clean_are_redirected() {
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
        ("PUT", "/metrics/job/a/dir/.", "/metrics/job/a/dir"),
        ("PUT", "/metrics/job/a/x/y/z/..", "/metrics/job/a/x/y"),
        ("PUT", "/Metrics/job/a/x/%2F/y/1", "/metrics/job/a/x/y/1"),
        ("GET", "/%2Fmetrics?x=1", "/metrics?x=1"),
        ("GET", "/api/v1", "/api/v1/"),
    ] {
        let response = gateway.request(method, path, &[], b"");
        assert!(matches!(response.status, 301 | 307 | 308), "{method} {path}: {}", response.status);
        assert_eq!(response.header("location"), Some(location), "{method} {path}");
    }
}

#[test]
fn unknown_paths_are_404_and_unknown_methods_405() {
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
        let response = gateway.request(method, path, &[], b"");
        assert_eq!(response.status, 405, "{method} {path}");
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    }
    assert_eq!(
        (gateway.get("/-/healthy").text().as_str(), gateway.get("/-/ready").text().as_str()),
        ("OK", "OK")
    );
    assert_eq!(gateway.put("/-/quit", "").status, 403);
    assert_eq!(gateway.get("/-/quit").status, 405);
}

#[test]
fn wipe_needs_its_flag_and_deletes_all_groups() {
    let without = Gateway::start(&[]);
    assert_eq!(without.put("/api/v1/admin/wipe", "").status, 404);
    drop(without);
    let gateway = Gateway::start(&["--web.enable-admin-api"]);
    for job in 0..50 {
        gateway.put(&format!("/metrics/job/j{job}"), "# TYPE m gauge\nm 1\n");
    }
    let response = gateway.put("/api/v1/admin/wipe", "");
    assert_eq!((response.status, response.text().as_str()), (202, ""));
    // The official program may wipe a little later.
    wait_for("the groups to go", Duration::from_secs(5), || {
        gateway.scrape().pushed().families.is_empty().then_some(())
    });
    assert_eq!(gateway.put(JOB, "# TYPE m counter\nm 1\n").status, 200, "the names are free again");
    assert_eq!(gateway.scrape().samples("push_time_seconds").count(), 1);
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
fn quit_and_sigterm_exit_with_status_0() {
    let mut gateway = Gateway::start(&["--web.enable-lifecycle"]);
    assert_eq!(gateway.put("/-/quit", "").status, 200);
    assert!(gateway.wait().success());

    let mut gateway = Gateway::start(&[]);
    gateway.put(JOB, "m 1\n");
    let _idle = gateway.connect();
    assert!(gateway.stop().success(), "{}", gateway.log());
}

#[test]
fn a_second_gateway_on_the_same_port_fails_to_start() {
    let first = Gateway::start(&[]);
    let output = Command::new(program())
        .args([format!("--web.listen-address=127.0.0.1:{}", first.port()).as_str(), "--persistence.file="])
        .output()
        .expect("the program starts");
    assert!(!output.status.success(), "{output:?}");
    for _ in 0..20 {
        assert_eq!(first.get("/-/ready").status, 200, "the first gateway gets all connections");
    }
}
