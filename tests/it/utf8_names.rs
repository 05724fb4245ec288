//! UTF-8 names (`--push.enable-utf8-names`): in bodies and URLs, and in each escaping scheme that a scraper can negotiate.

use crate::support::Gateway;
use crate::support::protobuf::{Label, Metric, MetricFamily, Single, read, write};

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const SCHEMES: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

fn gateway() -> Gateway {
    Gateway::start(&["--push.enable-utf8-names"])
}

fn accepted(gateway: &Gateway, path: &str, body: &str) {
    let response = gateway.put(path, body);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
}

fn rejected(gateway: &Gateway, path: &str, body: &str) {
    let response = gateway.put(path, body);
    assert_eq!(response.status, 400, "{path}: {body}");
}

/// The lines of a scrape in an escaping scheme that contain a word.
fn lines(gateway: &Gateway, escaping: &str, word: &str) -> Vec<String> {
    let accept = format!("text/plain;escaping={escaping}");
    let response = gateway.request("GET", "/metrics", &[("Accept", &accept)], b"");
    assert_eq!(response.status, 200);
    response.text().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}

fn metric(name: &str, labels: &[(&str, &str)], value: f64) -> MetricFamily {
    let label = labels.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() });
    let gauge = Some(Single { value, created: None });
    let metric = vec![Metric { label: label.collect(), gauge, ..Metric::default() }];
    MetricFamily { name: name.into(), help: Some("Help.".into()), kind: 1, metric }
}

#[test]
fn a_scraper_gets_names_in_the_escaping_it_negotiates() {
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
fn protobuf_bodies_and_scrapes_carry_utf8_names() {
    let gateway = gateway();
    let body = write(&[metric("my.metric", &[("a.b", "1"), ("plain", "2")], 5.0)]);
    let response = gateway.request("PUT", "/metrics/job/a", &[("Content-Type", PROTOBUF)], &body);
    assert_eq!(response.status, 200, "{}", response.text());
    for (escaping, name, label) in [
        ("allow-utf-8", "my.metric", "a.b"),
        ("underscores", "my_metric", "a_b"),
        ("dots", "my_dot_metric", "a_dot_b"),
        ("values", "U__my_2e_metric", "U__a_2e_b"),
    ] {
        let accept = format!("{PROTOBUF};escaping={escaping}");
        let response = gateway.request("GET", "/metrics", &[("Accept", &accept)], b"");
        let families = read(&response.body);
        let family = families.iter().find(|family| family.name == name).expect("the family is exposed");
        let labels: Vec<&str> = family.metric[0].label.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(labels, [label, "instance", "job", "plain"], "{escaping}");
        assert_eq!(family.metric[0].gauge.as_ref().map(|gauge| gauge.value), Some(5.0));
    }
    let document: serde_json::Value =
        serde_json::from_slice(&gateway.get("/api/v1/metrics").body).expect("JSON");
    assert_eq!(document["data"][0]["my.metric"]["metrics"][0]["labels"]["a.b"], "1");
}

#[test]
fn without_the_flag_utf8_names_are_rejected() {
    let gateway = Gateway::start(&[]);
    rejected(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
    rejected(&gateway, "/metrics/job/a", "m{\"a.b\"=\"1\"} 1\n");
    rejected(&gateway, "/metrics/job/a/a.b/1", "m 1\n");
    let body = write(&[metric("my.metric", &[], 1.0)]);
    assert_eq!(gateway.request("PUT", "/metrics/job/a", &[("Content-Type", PROTOBUF)], &body).status, 400);
    accepted(&gateway, "/metrics/job/a/U__x_2e_y/1", "m 1\n");
    assert_eq!(lines(&gateway, "values", "m{U__"), ["m{U__x_2e_y=\"1\",instance=\"\",job=\"a\"} 1"]);
}

/// In every escaping scheme, each name and each series occurs once.
#[test]
fn difference_14_names_that_collide_after_escaping_are_rejected() {
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
        rejected(&gateway, "/metrics/job/b", body);
    }
    accepted(&gateway, "/metrics/job/b", "my_metrics 1\n{\"my.metrics.too\"} 1\n");
    // In a URL they do not even create a group, because its push times would have these labels.
    for labels in ["a.b/1/a_b/1", "U__a_2e_b/1/a-b/1", "..name../1", "U______x/1"] {
        rejected(&gateway, &format!("/metrics/job/url/{labels}"), "");
    }
    for escaping in SCHEMES {
        assert!(lines(&gateway, escaping, "url").is_empty());
        let mut types = lines(&gateway, escaping, "# TYPE");
        let count = types.len();
        types.sort();
        types.dedup();
        assert_eq!(types.len(), count, "{escaping}");
    }
    // The name is free again once no group holds the other spelling.
    assert_eq!(gateway.delete("/metrics/job/a").status, 202);
    accepted(&gateway, "/metrics/job/b", "my_metric 1\n");
}

/// The collision check, too, looks at the state after the push.
#[test]
fn a_group_can_change_the_spelling_of_a_name() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
    accepted(&gateway, "/metrics/job/a", "my_metric 1\n");
    assert_eq!(
        gateway.post("/metrics/job/a", "{\"my.metric\"} 1\n").status,
        400,
        "POST keeps the other spelling"
    );
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\"} 1\n");
}

#[test]
fn duplicate_series_are_found_under_quoted_names() {
    let gateway = gateway();
    accepted(&gateway, "/metrics/job/a/U__zone_2e_x/eu", "{\"my.metric\"} 1\n");
    rejected(&gateway, "/metrics/job/a", "{\"my.metric\",\"zone.x\"=\"eu\"} 1\n");
    accepted(&gateway, "/metrics/job/a", "{\"my.metric\",\"zone.x\"=\"us\"} 1\n");
}
