//! Names of any UTF-8, where the operator allows them: in bodies and URLs, and as every scraper can read them.

use crate::support::Gateway;
use crate::support::protobuf::{Label, Metric, MetricFamily, Single, read, write};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const SCHEMES: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

fn gateway() -> Gateway {
    Gateway::start(&["--push.enable-utf8-names"])
}

fn accepted(gateway: &Gateway, path: &str, body: &str) {
    let answer = gateway.put(path, body);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

fn refused(gateway: &Gateway, path: &str, body: &str) {
    let answer = gateway.put(path, body);
    assert_eq!(answer.status, 400, "{path}: {body}");
}

/// The lines of an exposition that have this word in them, in the coding that is asked for.
fn lines(gateway: &Gateway, escaping: &str, word: &str) -> Vec<String> {
    let accept = format!("text/plain;escaping={escaping}");
    let answer = gateway.request("GET", "/metrics", &[("Accept", &accept)], b"");
    assert_eq!(answer.status, 200);
    answer.text().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}

fn metric(name: &str, labels: &[(&str, &str)], value: f64) -> MetricFamily {
    let label = labels.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() });
    let gauge = Some(Single { value, created: None });
    let metric = vec![Metric { label: label.collect(), gauge, ..Metric::default() }];
    MetricFamily { name: name.into(), help: Some("Help.".into()), kind: 1, metric }
}

#[test]
fn each_scraper_gets_names_as_it_asks_for_them() {
    let gateway = gateway();
    let body = "# HELP \"my.metric\" Help.\n# TYPE \"my.metric\" gauge\n{\"my.metric\",\"a.b\"=\"x,\\\"y\\\"\"} 1\n\
        # TYPE \"h.x\" histogram\n{\"h.x_bucket\",le=\"1\"} 1\n{\"h.x_bucket\",le=\"+Inf\"} 1\n{\"h.x_sum\"} 2\n\
        {\"h.x_count\"} 1\nplain_name{c=\"1\"} 3\n";
    accepted(&gateway, "/metrics/job/a/U__zone_2e_x/eu", body);
    let labels = "instance=\"\",job=\"a\"";
    for (escaping, name, histogram, label, zone) in [
        ("underscores", "my_metric", "h_x", "a_b", "zone_x"),
        ("dots", "my_dot_metric", "h_dot_x", "a_dot_b", "zone_dot_x"),
        ("values", "U__my_2e_metric", "U__h_2e_x", "U__a_2e_b", "U__zone_2e_x"),
    ] {
        let expected = [
            format!("# HELP {name} Help."),
            format!("# TYPE {name} gauge"),
            format!("{name}{{{label}=\"x,\\\"y\\\"\",{labels},{zone}=\"eu\"}} 1"),
        ];
        assert_eq!(lines(&gateway, escaping, name), expected);
        let buckets = format!("{histogram}_bucket{{{labels},{zone}=\"eu\",le=\"1\"}} 1");
        assert!(lines(&gateway, escaping, histogram).contains(&buckets), "{escaping}");
        assert_eq!(lines(&gateway, escaping, "plain_name{").len(), 1, "a plain name is never escaped");
        assert_eq!(
            lines(&gateway, escaping, "push_time_seconds{"),
            [lines(&gateway, "allow-utf-8", "push_time_seconds{")[0].replace("\"zone.x\"", zone)]
        );
    }
    let expected = [
        "# HELP \"my.metric\" Help.",
        "# TYPE \"my.metric\" gauge",
        "{\"my.metric\",\"a.b\"=\"x,\\\"y\\\"\",instance=\"\",job=\"a\",\"zone.x\"=\"eu\"} 1",
    ];
    assert_eq!(lines(&gateway, "allow-utf-8", "my.metric"), expected);
}

#[test]
fn protobuf_has_them_too_in_and_out() {
    let gateway = gateway();
    let body = write(&[metric("my.metric", &[("a.b", "1"), ("plain", "2")], 5.0)]);
    let answer = gateway.request("PUT", "/metrics/job/a", &[("Content-Type", PROTOBUF)], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (escaping, name, label) in [
        ("allow-utf-8", "my.metric", "a.b"),
        ("underscores", "my_metric", "a_b"),
        ("dots", "my_dot_metric", "a_dot_b"),
        ("values", "U__my_2e_metric", "U__a_2e_b"),
    ] {
        let accept = format!("{PROTOBUF};escaping={escaping}");
        let answer = gateway.request("GET", "/metrics", &[("Accept", &accept)], b"");
        let families = read(&answer.body);
        let family = families.iter().find(|family| family.name == name).expect("is shown");
        let labels: Vec<&str> = family.metric[0].label.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(labels, [label, "instance", "job", "plain"], "{escaping}");
        assert_eq!(family.metric[0].gauge.as_ref().map(|gauge| gauge.value), Some(5.0));
    }
    let document: serde_json::Value =
        serde_json::from_slice(&gateway.get("/api/v1/metrics").body).expect("JSON");
    assert_eq!(document["data"][0]["my.metric"]["metrics"][0]["labels"]["a.b"], "1");
}

#[test]
fn without_the_flag_such_names_are_refused() {
    let gateway = Gateway::start(&[]);
    refused(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
    refused(&gateway, "/metrics/job/a", "m{\"a.b\"=\"1\"} 1\n");
    refused(&gateway, "/metrics/job/a/a.b/1", "m 1\n");
    let body = write(&[metric("my.metric", &[], 1.0)]);
    assert_eq!(gateway.request("PUT", "/metrics/job/a", &[("Content-Type", PROTOBUF)], &body).status, 400);
    accepted(&gateway, "/metrics/job/a/U__x_2e_y/1", "m 1\n");
    assert_eq!(lines(&gateway, "values", "m{U__"), ["m{U__x_2e_y=\"1\",instance=\"\",job=\"a\"} 1"]);
}

/// Whatever the scheme, each name and each series stands once.
#[test]
fn what_becomes_one_when_escaped_is_refused() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
    accepted(&gateway, "/metrics/job/h", "# TYPE \"h.x\" histogram\n{\"h.x_count\"} 1\n");
    for body in [
        "my_metric 1\n",
        "my_dot_metric 1\n",
        "U__my_2e_metric 1\n",
        "{\"my-metric\"} 1\n",
        "h_x_count 1\n",
        "{\"h-x_sum\"} 1\n",
        "# TYPE my summary\nmy_count 1\n# TYPE \"my.count\" gauge\n{\"my.count\"} 1\n",
        "{\"process.start_time_seconds\"} 1\n",
        "{\"push.time_seconds\"} 1\n",
        "{\"x.y\"} 1\nx_y 1\n",
        "m{\"a.b\"=\"1\",a_b=\"2\"} 1\n",
        "m{\"jo-b\"=\"1\",jo_b=\"1\"} 1\n",
        "m{\"..name..\"=\"1\"} 1\n",
        "m{\"a.b\"=\"1\"} 1\nm{a_b=\"1\"} 1\n",
    ] {
        refused(&gateway, "/metrics/job/b", body);
    }
    accepted(&gateway, "/metrics/job/b", "my_metrics 1\n{\"my.metrics.too\"} 1\n");
    // In the URL they do not even make a group: its push times would show them.
    for labels in ["a.b/1/a_b/1", "U__a_2e_b/1/a-b/1", "..name../1", "U______x/1"] {
        refused(&gateway, &format!("/metrics/job/url/{labels}"), "");
    }
    for escaping in SCHEMES {
        assert!(lines(&gateway, escaping, "url").is_empty());
        let mut types = lines(&gateway, escaping, "# TYPE");
        let count = types.len();
        types.sort();
        types.dedup();
        assert_eq!(types.len(), count, "{escaping}");
    }
    // A name is free again when nobody holds the other.
    assert_eq!(gateway.delete("/metrics/job/a").status, 202);
    accepted(&gateway, "/metrics/job/b", "my_metric 1\n");
}

/// The state after the push counts here, too.
#[test]
fn a_group_may_go_from_one_spelling_to_the_other() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
    accepted(&gateway, "/metrics/job/a", "my_metric 1\n");
    assert_eq!(gateway.post("/metrics/job/a", "{\"my.metric\"} 1\n").status, 400, "the other stays");
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
}

#[test]
fn twins_are_found_under_quoted_names() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/a/U__zone_2e_x/eu", "{\"my.metric\"} 1\n");
    refused(&gateway, "/metrics/job/a", "{\"my.metric\",\"zone.x\"=\"eu\"} 1\n");
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\",\"zone.x\"=\"us\"} 1\n");
}
