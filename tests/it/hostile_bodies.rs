//! Hostile pushes: no push breaks a scrape or another group (difference 2 in `docs/compatibility.md`).

use crate::support::gateway::{Encoding, scrape};
use crate::support::hostile_bodies::{self, HostilePush, Outcome};
use crate::support::{Gateway, exposition::Exposition};

/// The number of groups. Each has a push time.
fn groups(exposition: &Exposition) -> usize {
    exposition.samples("push_time_seconds").count()
}

fn failures(exposition: &Exposition) -> Vec<String> {
    let failed = exposition.samples("push_failure_time_seconds").filter(|sample| sample.value != "0");
    failed.map(|sample| format!("{:?} {}", sample.labels, sample.value)).collect()
}

#[test]
fn difference_02_no_push_breaks_a_scrape_or_another_group() {
    check_all(&Gateway::start(&[]), &hostile_bodies::all());
}

#[test]
fn difference_14_no_push_with_utf8_names_breaks_a_scrape_or_another_group() {
    let gateway = Gateway::start(&["--push.enable-utf8-names"]);
    let (all, more) = (hostile_bodies::all(), hostile_bodies::with_utf8_names());
    // With the flag, these names are valid. Empty names and names that are not UTF-8 remain invalid.
    let valid_now = |what: &str| ["a name with a line feed", "a label name with a quote"].contains(&what);
    check_all(
        &gateway,
        &all.into_iter().filter(|push| !valid_now(push.what)).chain(more).collect::<Vec<_>>(),
    );
}

fn check_all(gateway: &Gateway, all: &[HostilePush]) {
    hostile_bodies::push_victim(gateway);
    let mut connection = gateway.connect();
    for (number, push) in all.iter().enumerate() {
        let what = push.what;
        let before = gateway.scrape();
        let response = gateway.request("PUT", push.path, push.headers, &push.body);
        let status = if push.outcome == Outcome::Accepted { 200 } else { 400 };
        assert_eq!(response.status, status, "{what}: {}", response.text());

        // `scrape` panics unless the exposition is valid.
        let after = scrape(&mut connection, Encoding::Plain);
        scrape(&mut connection, Encoding::Gzip);
        assert_eq!(gateway.get("/api/v1/metrics").status, 200, "{what}: API");
        match push.outcome {
            Outcome::Invalid => {
                assert_eq!(groups(&after), groups(&before), "{what}: it has created a group");
                assert_eq!(failures(&after), failures(&before), "{what}: it has set a failure time");
            }
            Outcome::Inconsistent => {
                assert_ne!(failures(&after), failures(&before), "{what}: it has set no failure time");
            }
            Outcome::Accepted => {}
        }
        assert_eq!(after.value("v_rows", &[("job", "victim")]), Some("7"), "{what}: the victim has changed");

        // Other groups can still push.
        let path = format!("/metrics/job/other/number/{number}");
        let response =
            gateway.put(&path, &format!("other {number}\n# TYPE other_h histogram\nother_h_count 1\n"));
        assert_eq!(response.status, 200, "{what}: another group cannot push: {}", response.text());
        let response = gateway.post(hostile_bodies::VICTIM, "# TYPE v_rows counter\nv_rows 7\n");
        assert_eq!(response.status, 200, "{what}: the victim cannot push: {}", response.text());
        let shown = gateway.scrape();
        let number = number.to_string();
        assert_eq!(shown.value("other", &[("number", &number)]), Some(number.as_str()), "{what}");
    }
}

/// A rejected push leaves a group with two push times; DELETE removes it.
#[test]
fn groups_of_rejected_pushes_can_be_deleted() {
    let gateway = Gateway::start(&[]);
    hostile_bodies::push_victim(&gateway);
    let all = hostile_bodies::all();
    for push in &all {
        gateway.request("PUT", push.path, push.headers, &push.body);
    }
    for push in all.iter().filter(|push| push.outcome != Outcome::Invalid) {
        assert_eq!(gateway.delete(push.path).status, 202, "{}", push.what);
    }
    let shown = gateway.scrape();
    let jobs: Vec<_> = shown.samples("push_time_seconds").map(|sample| sample.label("job")).collect();
    assert_eq!(jobs, ["victim"], "remaining groups");
}
