//! `/api/v1/groups`: pages of groups, as people and the web page ask for them.

use std::collections::BTreeSet;

use crate::support::Gateway;
use serde_json::Value;

fn ask(gateway: &Gateway, query: &str) -> Value {
    let answer = gateway.get(&format!("/api/v1/groups?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let document: Value = serde_json::from_slice(&answer.body).expect("JSON");
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
    let page = ask(gateway, &query.join("&"));
    let mut jobs = jobs(&page);
    assert_eq!(page["matching"], jobs.len());
    jobs.sort();
    jobs
}

/// Keys are long, so that each core looks through its groups in several slices.
#[test]
fn pages_follow_each_other_in_the_order_of_pushes() {
    const GROUPS: usize = 300;
    let gateway = Gateway::start(&["--runtime.cores=2"]);
    let mut connection = gateway.connect();
    let zone = "z".repeat(1_000);
    for n in 0..GROUPS {
        let path = format!("/metrics/job/j{n}/zone/{zone}");
        assert_eq!(connection.request("PUT", &path, &[], b"m 1\n").expect("an answer").status, 200);
    }
    let newest_first: Vec<String> = (0..GROUPS).rev().map(|n| format!("j{n}")).collect();
    for (sort, expected) in [
        ("sort=-push_time", newest_first.clone()),
        ("", newest_first.clone()),
        ("sort=push_time", newest_first.iter().rev().cloned().collect()),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = ask(&gateway, &format!("limit=70&{sort}{after}"));
            assert_eq!(page["matching"], GROUPS);
            seen.extend(jobs(&page));
            assert!(seen.len() <= GROUPS, "a page comes again");
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert!(seen == expected, "{sort}: {seen:?}");
    }
    // One hundred, where nothing is said; a full last page is followed by an empty one.
    assert_eq!(jobs(&ask(&gateway, "")).len(), 100);
    let last = ask(&gateway, "limit=300");
    let behind = ask(&gateway, &format!("limit=300&after={}", last["next"].as_str().expect("may go on")));
    assert_eq!((jobs(&last).len(), jobs(&behind).len()), (GROUPS, 0));
    assert_eq!(behind["next"], Value::Null);
    // A group that was pushed meanwhile is not on later pages twice.
    let first = ask(&gateway, "limit=10");
    let zone_path = format!("/metrics/job/j5/zone/{zone}");
    connection.request("PUT", &zone_path, &[], b"m 1\n").expect("an answer");
    let rest = ask(&gateway, &format!("limit=1000&after={}", first["next"].as_str().expect("goes on")));
    let all: BTreeSet<String> = jobs(&first).into_iter().chain(jobs(&rest)).collect();
    assert_eq!((jobs(&first).len() + jobs(&rest).len(), all.len()), (GROUPS - 1, GROUPS - 1));
    assert_eq!(jobs(&ask(&gateway, "limit=1")), ["j5"]);
}

#[test]
fn selectors_choose_by_labels_and_by_names() {
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
fn a_refusal_is_told_with_its_reason_and_its_source() {
    let gateway = Gateway::start(&[]);
    assert_eq!(gateway.put("/metrics/job/a/instance/h1", "m 1\nn 2\n").status, 200);
    let group = |document: &Value| document["groups"][0].clone();
    let seen = group(&ask(&gateway, ""));
    assert_eq!(seen["labels"], serde_json::json!({"instance": "h1", "job": "a"}));
    assert_eq!((&seen["families"], &seen["last_push_successful"]), (&2.into(), &true.into()));
    assert_eq!((&seen["push_failure_time"], &seen["last_refusal"]), (&Value::Null, &Value::Null));

    let refused = gateway.put("/metrics/job/a/instance/h1", "m 1 5\n");
    assert_eq!(refused.status, 400);
    let seen = group(&ask(&gateway, ""));
    assert_eq!((&seen["families"], &seen["last_push_successful"]), (&2.into(), &false.into()));
    let refusal = &seen["last_refusal"];
    let reason = refusal["reason"].as_str().expect("a reason");
    assert!(!reason.is_empty() && refused.text().contains(reason), "{reason}");
    assert!(refusal["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:")), "{refusal}");
    assert_eq!(refusal["time"], seen["push_failure_time"]);

    assert_eq!(gateway.put("/metrics/job/a/instance/h1", "m 1\n").status, 200);
    let seen = group(&ask(&gateway, ""));
    assert_eq!(seen["last_push_successful"], true);
    assert_eq!(&seen["last_refusal"], refusal, "it stays, as the failure time does");

    // A group that never was pushed successfully, for a reason that is longer than anyone wants to keep.
    let long = format!("m{{a=\"{0}\"}} 1\nm{{a=\"{0}\"}} 1\n", "\u{e4}".repeat(2_000));
    assert_eq!(gateway.put("/metrics/job/b", &long).status, 400);
    let seen = group(&ask(&gateway, "match[]={job=%22b%22}"));
    assert_eq!((&seen["push_time"], &seen["families"]), (&Value::Null, &0.into()));
    let reason = seen["last_refusal"]["reason"].as_str().expect("a reason");
    assert!((500..=512).contains(&reason.len()), "{}", reason.len());
}

#[test]
fn what_cannot_be_meant_is_refused_in_words() {
    let gateway = Gateway::start(&[]);
    assert_eq!(ask(&gateway, ""), serde_json::json!({"matching": 0, "groups": [], "next": null}));
    for query in ["match[]=%7B", "match[]={a=~%22(%22}", "sort=name", "limit=0", "limit=1001", "after=x"] {
        let answer = gateway.get(&format!("/api/v1/groups?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        let document: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((&document["status"], &document["errorType"]), (&"error".into(), &"bad_data".into()));
        assert!(document["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    assert_eq!(gateway.request("POST", "/api/v1/groups", &[], b"").status, 405);
    assert_eq!(gateway.request("OPTIONS", "/api/v1/groups", &[], b"").status, 200);
}
