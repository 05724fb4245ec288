//! No push can break a scrape, or another group: each push that can is tried, and the gateway lives on.

use crate::support::gateway::{Encoding, scrape};
use crate::support::hostile_bodies::{self as poison, Fate, Poison};
use crate::support::{Gateway, exposition::Exposition};

/// How many groups there are. Each has a push time.
fn groups(exposition: &Exposition) -> usize {
    exposition.samples("push_time_seconds").count()
}

fn failures(exposition: &Exposition) -> Vec<String> {
    let failed = exposition.samples("push_failure_time_seconds").filter(|sample| sample.value != "0");
    failed.map(|sample| format!("{:?} {}", sample.labels, sample.value)).collect()
}

#[test]
fn no_push_breaks_a_scrape_or_another_group() {
    try_all(&Gateway::start(&[]), &poison::all());
}

#[test]
fn nor_with_utf8_names() {
    let gateway = Gateway::start(&["--push.enable-utf8-names"]);
    let (all, more) = (poison::all(), poison::with_utf8_names());
    // Names that are not UTF-8 or empty stay refused; what else is refused for its name alone is allowed now.
    let is_name = |what: &str| ["a name with a line feed", "a label name with a quote"].contains(&what);
    try_all(
        &gateway,
        &all.into_iter().filter(|poison| !is_name(poison.what)).chain(more).collect::<Vec<_>>(),
    );
}

fn try_all(gateway: &Gateway, all: &[Poison]) {
    poison::push_victim(gateway);
    let mut connection = gateway.connect();
    for (number, poison) in all.iter().enumerate() {
        let what = poison.what;
        let before = gateway.scrape();
        let answer = gateway.request("PUT", poison.path, poison.headers, &poison.body);
        let status = if poison.fate == Fate::Taken { 200 } else { 400 };
        assert_eq!(answer.status, status, "{what}: {}", answer.text());

        // Both kinds of scrape are valid: the reader is strict.
        let after = scrape(&mut connection, Encoding::Plain);
        scrape(&mut connection, Encoding::Gzip);
        assert_eq!(gateway.get("/api/v1/metrics").status, 200, "{what}: API");
        match poison.fate {
            Fate::TurnedAway => {
                assert_eq!(groups(&after), groups(&before), "{what}: a group was made");
                assert_eq!(failures(&after), failures(&before), "{what}: a failure time was set");
            }
            Fate::Refused => {
                assert_ne!(failures(&after), failures(&before), "{what}: no failure time was set");
            }
            Fate::Taken => {}
        }
        assert_eq!(after.value("v_rows", &[("job", "victim")]), Some("7"), "{what}: the victim was hurt");

        // Others can push what they like.
        let path = format!("/metrics/job/other/number/{number}");
        let answer =
            gateway.put(&path, &format!("other {number}\n# TYPE other_h histogram\nother_h_count 1\n"));
        assert_eq!(answer.status, 200, "{what}: another group cannot push: {}", answer.text());
        let answer = gateway.post(poison::VICTIM, "# TYPE v_rows counter\nv_rows 7\n");
        assert_eq!(answer.status, 200, "{what}: the victim cannot push: {}", answer.text());
        let shown = gateway.scrape();
        let number = number.to_string();
        assert_eq!(shown.value("other", &[("number", &number)]), Some(number.as_str()), "{what}");
    }
}

/// What a refusal leaves behind is a group with two times and nothing else; it goes as any other.
#[test]
fn poisoned_groups_can_be_deleted() {
    let gateway = Gateway::start(&[]);
    poison::push_victim(&gateway);
    let all = poison::all();
    for poison in &all {
        gateway.request("PUT", poison.path, poison.headers, &poison.body);
    }
    for poison in all.iter().filter(|poison| poison.fate != Fate::TurnedAway) {
        assert_eq!(gateway.delete(poison.path).status, 202, "{}", poison.what);
    }
    let shown = gateway.scrape();
    let jobs: Vec<_> = shown.samples("push_time_seconds").map(|sample| sample.label("job")).collect();
    assert_eq!(jobs, ["victim"], "groups are left");
}
