//! `PUT /api/v1/admin/delete_groups`: groups are deleted by selector or age.

use std::path::Path;

use serde_json::{Value, json};
use sluicegate::storage::engines::ENGINES;

use crate::support::Gateway;

const ADMIN: &str = "--web.enable-admin-api";

/// The status and the document of a request.
fn delete(gateway: &Gateway, query: &str) -> (u16, Value) {
    let response = gateway.request("PUT", &format!("/api/v1/admin/delete_groups?{query}"), &[], b"");
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

fn deleted(gateway: &Gateway, query: &str) -> Value {
    let (status, document) = delete(gateway, query);
    assert_eq!((status, &document["status"]), (200, &json!("success")), "{query}: {document}");
    document["data"].clone()
}

/// The jobs of all groups, sorted.
fn jobs(gateway: &Gateway) -> Vec<String> {
    let scrape = gateway.scrape();
    let mut jobs: Vec<String> =
        scrape.samples("push_time_seconds").map(|sample| sample.label("job").to_owned()).collect();
    jobs.sort();
    jobs
}

fn selector(text: &str) -> String {
    let text = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    format!("match[]={text}")
}

#[test]
fn groups_are_deleted_by_selector_and_a_dry_run_deletes_none() {
    let gateway = Gateway::start(&[ADMIN, "--runtime.cores=2"]);
    for job in ["ci-1", "ci-2", "backup", "other"] {
        assert_eq!(gateway.put(&format!("/metrics/job/{job}"), "m 1\n").status, 200);
    }
    let ci = selector(r#"{job=~"ci-.*"}"#);
    let data = deleted(&gateway, &format!("{ci}&dry_run=true"));
    assert_eq!((&data["matching"], &data["deleted"]), (&json!(2), &json!(0)));
    let mut shown: Vec<_> =
        data["groups"].as_array().expect("a list").iter().map(|group| &group["job"]).collect();
    shown.sort_by_key(ToString::to_string);
    assert_eq!(shown, ["ci-1", "ci-2"]);
    assert_eq!(jobs(&gateway).len(), 4);

    assert_eq!(deleted(&gateway, &ci), json!({"matching": 2, "deleted": 2}));
    assert_eq!(jobs(&gateway), ["backup", "other"]);
    assert_eq!(deleted(&gateway, &ci), json!({"matching": 0, "deleted": 0}));
    // Several selectors combine with or.
    let both = format!("{}&{}", selector(r#"{job="backup"}"#), selector("m"));
    assert_eq!(deleted(&gateway, &both), json!({"matching": 2, "deleted": 2}));
    assert_eq!(jobs(&gateway), [""; 0]);
    // What is deleted is released: another type for the same name.
    assert_eq!(gateway.put("/metrics/job/new", "# TYPE m counter\nm 1\n").status, 200);
}

#[test]
fn groups_are_deleted_by_age_and_a_failed_push_does_not_make_them_younger() {
    let gateway = Gateway::start(&[ADMIN]);
    assert_eq!(gateway.put("/metrics/job/old", "m 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/failed", "m 1\nm 1\n").status, 400);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(gateway.put("/metrics/job/young", "m 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/old", "m 1\nm 1\n").status, 400);
    assert_eq!(deleted(&gateway, "pushed_before=1h"), json!({"matching": 0, "deleted": 0}));
    assert_eq!(deleted(&gateway, "pushed_before=1970-01-02T00:00:00Z")["matching"], 0);
    assert_eq!(deleted(&gateway, "pushed_before=1s"), json!({"matching": 2, "deleted": 2}));
    assert_eq!(jobs(&gateway), ["young"]);
    assert_eq!(deleted(&gateway, "pushed_before=9999999999")["deleted"], 1);
}

#[test]
fn invalid_requests_and_other_methods_delete_nothing() {
    let gateway = Gateway::start(&[ADMIN]);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    for query in
        ["", "dry_run=true", "failing=true", "match[]={", "pushed_before=soon", "match[]=m&dry_run=1"]
    {
        let (status, document) = delete(&gateway, query);
        assert_eq!((status, &document["errorType"]), (400, &json!("bad_data")), "{query}: {document}");
    }
    let path = "/api/v1/admin/delete_groups?match[]=m";
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(gateway.request(method, path, &[], b"").status, 405, "{method}");
    }
    assert_eq!(jobs(&gateway), ["a"]);
    let without = Gateway::start(&[]);
    assert_eq!(without.request("PUT", path, &[], b"").status, 404);
}

#[test]
fn what_was_deleted_stays_deleted_after_a_kill() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = format!("delete-groups-{engine}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path);
        let _ = std::fs::remove_dir_all(&path);
        let flags = [
            ADMIN.to_owned(),
            format!("--storage.backend={engine}"),
            format!("--storage.path={}", path.display()),
        ];
        let flags = flags.each_ref().map(String::as_str);
        let mut gateway = Gateway::start(&flags);
        let mut connection = gateway.connect();
        for number in 0..500 {
            let path = format!("/metrics/job/{}-{number}", if number % 2 == 0 { "ci" } else { "other" });
            assert_eq!(connection.request("PUT", &path, &[], b"m 1\n").expect("a response").status, 200);
        }
        let ci = selector(r#"{job=~"ci-.*"}"#);
        assert_eq!(deleted(&gateway, &ci), json!({"matching": 250, "deleted": 250}), "{engine}");
        gateway.kill();
        let gateway = Gateway::start(&flags);
        let jobs = jobs(&gateway);
        assert_eq!(jobs.len(), 250, "{engine}");
        assert!(jobs.iter().all(|job| job.starts_with("other-")), "{engine}");
    }
}

/// A group that is pushed between the search and its deletion stays, so a job that pushes all the time is never missing for long.
#[test]
fn groups_that_are_pushed_all_the_time_are_whole_or_missing() {
    let gateway = Gateway::start(&[ADMIN, "--runtime.cores=2"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut connection = gateway.connect();
                for round in 0..200 {
                    let path = format!("/metrics/job/j{thread}-{}", round % 5);
                    let body = format!("a {round}\nb {round}\n");
                    let response =
                        connection.request("PUT", &path, &[], body.as_bytes()).expect("a response");
                    assert_eq!(response.status, 200);
                }
            });
        }
        for _ in 0..50 {
            deleted(&gateway, &selector(r#"{job=~"j.*"}"#));
            let scrape = gateway.scrape();
            for sample in scrape.samples("a") {
                let job = sample.label("job");
                let other = scrape.value("b", &[("instance", ""), ("job", job)]);
                assert_eq!(other, Some(&*sample.value), "{job}");
            }
        }
    });
    let left = jobs(&gateway).len();
    assert_eq!(deleted(&gateway, "pushed_before=9999999999"), json!({"matching": left, "deleted": left}));
}
