//! `GET /api/v1/groups`: pages of groups (difference 15 in `docs/compatibility.md`).

use std::collections::BTreeSet;

use crate::support::Gateway;
use serde_json::Value;

/// The `data` of a successful response.
fn page(gateway: &Gateway, query: &str) -> Value {
    let response = gateway.get(&format!("/api/v1/groups?{query}"));
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let document: Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(document["status"], "success");
    document["data"].clone()
}

fn jobs(page: &Value) -> Vec<String> {
    let groups = page["groups"].as_array().expect("a list");
    groups.iter().map(|group| group["labels"]["job"].as_str().expect("a job").to_owned()).collect()
}

fn matching(gateway: &Gateway, selectors: &[&str]) -> Vec<String> {
    let encode = |text: &&str| {
        let text = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        format!("match[]={text}")
    };
    let query: Vec<String> = selectors.iter().map(encode).collect();
    let page = page(gateway, &query.join("&"));
    let mut jobs = jobs(&page);
    assert_eq!(page["matching"], jobs.len());
    jobs.sort();
    jobs
}

/// The keys are long, so that each core searches its groups in several slices.
#[test]
fn difference_15_pages_list_each_group_once_in_the_order_of_push_times() {
    const GROUPS: usize = 300;
    let gateway = Gateway::start(&["--runtime.cores=2"]);
    let mut connection = gateway.connect();
    let zone = "z".repeat(1_000);
    for n in 0..GROUPS {
        let path = format!("/metrics/job/j{n}/zone/{zone}");
        assert_eq!(connection.request("PUT", &path, &[], b"m 1\n").expect("a response").status, 200);
    }
    let newest_first: Vec<String> = (0..GROUPS).rev().map(|n| format!("j{n}")).collect();
    for (sort, expected) in [
        ("sort=-push_time", newest_first.clone()),
        ("", newest_first.clone()),
        ("sort=push_time", newest_first.iter().rev().cloned().collect()),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = page(&gateway, &format!("limit=70&{sort}{after}"));
            assert_eq!(page["matching"], GROUPS);
            seen.extend(jobs(&page));
            assert!(seen.len() <= GROUPS, "a page is repeated");
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert!(seen == expected, "{sort}: {seen:?}");
    }
    // The default limit is 100. A full last page is followed by an empty one.
    assert_eq!(jobs(&page(&gateway, "")).len(), 100);
    let last = page(&gateway, "limit=300");
    let behind = page(&gateway, &format!("limit=300&after={}", last["next"].as_str().expect("a next page")));
    assert_eq!((jobs(&last).len(), jobs(&behind).len()), (GROUPS, 0));
    assert_eq!(behind["next"], Value::Null);
    // A group that is pushed between two pages does not appear again on a later page.
    let first = page(&gateway, "limit=10");
    let zone_path = format!("/metrics/job/j5/zone/{zone}");
    connection.request("PUT", &zone_path, &[], b"m 1\n").expect("a response");
    let rest = page(&gateway, &format!("limit=1000&after={}", first["next"].as_str().expect("a next page")));
    let all: BTreeSet<String> = jobs(&first).into_iter().chain(jobs(&rest)).collect();
    assert_eq!((jobs(&first).len() + jobs(&rest).len(), all.len()), (GROUPS - 1, GROUPS - 1));
    assert_eq!(jobs(&page(&gateway, "limit=1")), ["j5"]);
}

#[test]
fn selectors_match_labels_and_metric_names() {
    let gateway = Gateway::start(&[]);
    for (path, body) in [
        ("/metrics/job/backup/zone/eu", "backup_seconds 1\nshared 1\n"),
        ("/metrics/job/batch/zone/us", "batch_seconds 1\nshared 1\n"),
        ("/metrics/job/empty", ""),
    ] {
        assert_eq!(gateway.put(path, body).status, 200);
    }
    for (selectors, expected) in [
        (&["{}"][..], &["backup", "batch", "empty"][..]),
        (&[], &["backup", "batch", "empty"]),
        (&["{job=\"backup\"}"], &["backup"]),
        (&["{zone=~\"e.\"}", "{job='empty'}"], &["backup", "empty"]),
        (&["{zone=\"\"}"], &["empty"]),
        (&["{zone!=\"\",job!~\"bac.*\"}"], &["batch"]),
        (&["shared"], &["backup", "batch"]),
        (&["{__name__=~\".*_seconds\",zone=\"us\"}"], &["batch"]),
        (&["nothing"], &[]),
    ] {
        assert_eq!(matching(&gateway, selectors), expected, "{selectors:?}");
    }
}

#[test]
fn a_group_shows_the_reason_and_the_source_of_its_last_rejected_push() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/metrics/job/a/instance/h1", "m 1\nn 2\n").status, 200);
    let group = |document: &Value| document["groups"][0].clone();
    let seen = group(&page(&gateway, ""));
    assert_eq!(seen["labels"], serde_json::json!({"instance": "h1", "job": "a"}));
    assert_eq!((&seen["families"], &seen["last_push_successful"]), (&2.into(), &true.into()));
    assert_eq!((&seen["push_failure_time"], &seen["last_refusal"]), (&Value::Null, &Value::Null));

    let rejected = gateway.put("/metrics/job/a/instance/h1", "m 1 5\n");
    assert_eq!(rejected.status, 400);
    let seen = group(&page(&gateway, ""));
    assert_eq!((&seen["families"], &seen["last_push_successful"]), (&2.into(), &false.into()));
    let refusal = &seen["last_refusal"];
    let reason = refusal["reason"].as_str().expect("a reason");
    assert!(!reason.is_empty() && rejected.text().contains(reason), "{reason}");
    assert!(refusal["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:")), "{refusal}");
    assert_eq!(refusal["time"], seen["push_failure_time"]);

    assert_eq!(gateway.put("/metrics/job/a/instance/h1", "m 1\n").status, 200);
    let seen = group(&page(&gateway, ""));
    assert_eq!(seen["last_push_successful"], true);
    assert_eq!(&seen["last_refusal"], refusal, "a successful push keeps it, like the failure time");

    // A group without a successful push, and a reason longer than the gateway keeps.
    let long = format!("m{{a=\"{0}\"}} 1\nm{{a=\"{0}\"}} 1\n", "\u{e4}".repeat(2_000));
    assert_eq!(gateway.put("/metrics/job/b", &long).status, 400);
    let seen = group(&page(&gateway, "match[]={job=%22b%22}"));
    assert_eq!((&seen["push_time"], &seen["families"]), (&Value::Null, &0.into()));
    let reason = seen["last_refusal"]["reason"].as_str().expect("a reason");
    assert!((500..=512).contains(&reason.len()), "{}", reason.len());
}

#[test]
fn invalid_queries_are_400_with_a_reason() {
    let gateway = Gateway::start(&[]);
    assert_eq!(page(&gateway, ""), serde_json::json!({"matching": 0, "groups": [], "next": null}));
    for query in ["match[]=%7B", "match[]={a=~%22(%22}", "sort=name", "limit=0", "limit=1001", "after=x"] {
        let response = gateway.get(&format!("/api/v1/groups?{query}"));
        assert_eq!(response.status, 400, "{query}");
        let document: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!((&document["status"], &document["errorType"]), (&"error".into(), &"bad_data".into()));
        assert!(document["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    assert_eq!(gateway.request("POST", "/api/v1/groups", &[], b"").status, 405);
    assert_eq!(gateway.request("OPTIONS", "/api/v1/groups", &[], b"").status, 200);
}

#[test]
fn expressions_on_long_values_are_matched_and_hostile_ones_rejected() {
    let gateway = Gateway::start(&[]);
    let long = "ab".repeat(25_000);
    assert_eq!(gateway.put(&format!("/metrics/job/{long}"), "first 1\nsecond 2\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/short", "second 3\n").status, 200);

    assert_eq!(matching(&gateway, &["{job=~'(ab)+'}"]), std::slice::from_ref(&long));
    assert_eq!(matching(&gateway, &["{job=~'(ab)+c'}"]), [""; 0]);
    assert_eq!(matching(&gateway, &["{job=~'(ab)+',__name__=~'f.*'}"]), std::slice::from_ref(&long));
    assert_eq!(matching(&gateway, &["{job=~'(ab)+',__name__=~'third|fourth'}"]), [""; 0]);
    assert_eq!(matching(&gateway, &["third", "{job!~'(ab)+'}"]), ["short"]);

    let hostile = ["job=~'[ab]*a[ab]{1500}c'"; 8].join(",");
    let query = percent_encoding::utf8_percent_encode(&hostile, percent_encoding::NON_ALPHANUMERIC);
    let response = gateway.get(&format!("/api/v1/groups?match[]=%7B{query}%7D"));
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains("need too much work"), "{}", response.text());
}

#[test]
fn a_page_of_groups_with_long_keys_is_short() {
    const GROUPS: usize = 40;
    let gateway = Gateway::start(&[]);
    for group in 0..GROUPS {
        let job = format!("{group}-{}", "x".repeat(50_000));
        assert_eq!(gateway.put(&format!("/metrics/job/{job}"), "m 1\n").status, 200);
    }
    let (mut seen, mut after) = (BTreeSet::new(), String::new());
    for _ in 0..GROUPS {
        let page = page(&gateway, &format!("limit=1000{after}"));
        let jobs = jobs(&page);
        assert!(!jobs.is_empty() && jobs.len() < GROUPS);
        seen.extend(jobs);
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen.len(), GROUPS);
}

#[test]
fn groups_can_be_sorted_by_their_labels() {
    let gateway = Gateway::start(&["--runtime.cores=2"]);
    let mut expected = Vec::new();
    for number in (0..40).rev() {
        let job = format!("j{:02}", number / 2);
        let path = format!("/metrics/job/{job}/instance/{}", number % 2);
        assert_eq!(gateway.put(&path, "m 1\n").status, 200);
        expected.push(job);
    }
    expected.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = page(&gateway, &format!("sort=labels&limit=7{after}"));
        assert_eq!(page["matching"], 40);
        seen.extend(jobs(&page));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, expected);
}

#[test]
fn groups_can_be_selected_by_their_last_push() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/metrics/job/good", "m 1\n").status, 200);
    for job in ["bad", "repaired"] {
        assert_eq!(gateway.put(&format!("/metrics/job/{job}"), "m 1\nm 1\n").status, 400);
    }
    assert_eq!(gateway.put("/metrics/job/repaired", "m 1\n").status, 200);
    assert_eq!(jobs(&page(&gateway, "failing=true")), ["bad"]);
    assert_eq!(jobs(&page(&gateway, "failing=false&sort=labels")), ["good", "repaired"]);
    assert_eq!(page(&gateway, "pushed_before=1h")["matching"], 0);
    assert_eq!(page(&gateway, "pushed_before=9999999999")["matching"], 3);
}
