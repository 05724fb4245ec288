//! Limits on everything that the gateway contains: `--push.groups-max`, `--push.series-max` and `--push.bytes-max`.

use std::path::Path;

use crate::support::gateway::Gateway;

/// Whether the group with this job has a failure time that is not 0. `None` if there is no such group.
fn has_failed(gateway: &Gateway, job: &str) -> Option<bool> {
    let labels = [("instance", ""), ("job", job)];
    gateway.scrape().value("push_failure_time_seconds", &labels).map(|value| value != "0")
}

/// The value of a gauge that has the limit as its label.
fn gauge(gateway: &Gateway, name: &str, limit: &str) -> Option<String> {
    gateway.scrape().value(name, &[("limit", limit)]).map(str::to_owned)
}

#[test]
fn a_push_beyond_a_limit_is_400_and_names_it() {
    let gateway = Gateway::start(&["--push.groups-max=2", "--push.series-max=8"]);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/b", "m 1\n").status, 200);

    let refused = gateway.put("/metrics/job/c", "m 1\n");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("--push.groups-max=2"), "{}", refused.text());
    assert_eq!(has_failed(&gateway, "c"), None, "there was no room for a group that only failed");
    assert_eq!(refused.header("retry-after"), None, "the same push would fail again");

    let refused = gateway.post("/metrics/job/a", "n{x=\"1\"} 1\nn{x=\"2\"} 1\nn{x=\"3\"} 1\n");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("--push.series-max=8"), "{}", refused.text());
    assert_eq!(has_failed(&gateway, "a"), Some(true));
    assert_eq!(gateway.scrape().samples("n").count(), 0, "nothing of the push is applied");

    assert_eq!(gauge(&gateway, "sluicegate_state", "push.series-max").as_deref(), Some("6"));
    assert_eq!(gauge(&gateway, "sluicegate_state_max", "push.groups-max").as_deref(), Some("2"));
    let reason = [("reason", "over_limit")];
    assert_eq!(gateway.scrape().value("sluicegate_push_refusals_total", &reason), Some("2"));

    // What adds nothing is accepted, and a delete makes room.
    assert_eq!(gateway.put("/metrics/job/a", "m 2\n").status, 200);
    assert_eq!(gateway.post("/metrics/job/a", "n{x=\"1\"} 1\nn{x=\"2\"} 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/a", "n{x=\"1\"} 1\nn{x=\"2\"} 1\nn{x=\"3\"} 1\n").status, 200);
    assert_eq!(gateway.delete("/metrics/job/b").status, 202);
    assert_eq!(gateway.put("/metrics/job/c", "m 1\n").status, 200);
}

#[test]
fn help_texts_and_lines_count_as_bytes() {
    let gateway = Gateway::start(&["--push.bytes-max=64KiB"]);
    let text = "x".repeat(40 << 10);
    assert_eq!(gateway.put("/metrics/job/a", &format!("# HELP m {text}\nm 1\n")).status, 200);
    let refused = gateway.put("/metrics/job/b", &format!("m{{x=\"{text}\"}} 1\n"));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("--push.bytes-max=65536"), "{}", refused.text());
    assert_eq!(has_failed(&gateway, "b"), Some(true), "there was room for a group that only failed");
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_eq!(gateway.put("/metrics/job/b", &format!("m{{x=\"{text}\"}} 1\n")).status, 200);
}

#[test]
fn without_the_consistency_check_the_response_is_the_same() {
    let gateway = Gateway::start(&["--push.disable-consistency-check", "--push.groups-max=1"]);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 202);
    assert_eq!(gateway.put("/metrics/job/b", "m 1\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/b", "# TYPE m counter\nm 1\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\nm 1\n").status, 202);
}

#[test]
fn a_store_beyond_a_limit_is_restored_completely() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("over-limit-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let path = format!("--storage.path={}", path.display());
    let mut gateway = Gateway::start(&[&path]);
    for job in 0..10 {
        assert_eq!(gateway.put(&format!("/metrics/job/{job}"), "m 1\nn 1\n").status, 200);
    }
    assert!(gateway.stop().success());

    let gateway = Gateway::start(&[&path, "--push.groups-max=5", "--push.series-max=20"]);
    assert_eq!(gateway.scrape().samples("m").count(), 10);
    gateway.log_with("limit=push.groups-max");
    gateway.log_with("limit=push.series-max");
    assert_eq!(gauge(&gateway, "sluicegate_state", "push.groups-max").as_deref(), Some("10"));
    assert_eq!(gateway.put("/metrics/job/new", "m 1\n").status, 400);
    assert_eq!(gateway.post("/metrics/job/1", "o 1\n").status, 400);
    assert_eq!(gateway.put("/metrics/job/1", "m 1\no 1\n").status, 200, "as much as before");
    assert_eq!(gateway.put("/metrics/job/1", "m 1\n").status, 200, "less than before");
    for job in 0..6 {
        assert_eq!(gateway.delete(&format!("/metrics/job/{job}")).status, 202);
    }
    assert_eq!(gateway.put("/metrics/job/new", "m 1\n").status, 200);
}

/// All cores count together, and a race does not let more pushes through.
#[test]
fn concurrent_pushes_do_not_exceed_a_limit() {
    let gateway = Gateway::start(&["--push.groups-max=50", "--runtime.cores=4"]);
    let accepted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let gateway = &gateway;
                scope.spawn(move || {
                    let mut connection = gateway.connect();
                    let push = |number| {
                        let path = format!("/metrics/job/{thread}-{number}");
                        connection.request("PUT", &path, &[], b"m 1\n").expect("a response").status
                    };
                    (0..25).map(push).filter(|status| *status == 200).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(accepted, 50);
    assert_eq!(gateway.scrape().samples("push_time_seconds").count(), 50);
}
