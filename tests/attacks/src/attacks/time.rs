//! Requests that keep a core busy for long.

use std::fmt::Write as _;

use anyhow::Result;

use crate::attack::{Attack, Play};
use crate::bodies::{comments, families, gzip, put_encoded, series, zstd};
use crate::http::{get, post, put, request};
use crate::scene::Scene;

const MIB: usize = 1 << 20;

pub const ATTACKS: &[Attack] = &[
    Attack::new("many-families", "800,000 families in one push, in random order", many_families)
        .stores_mib(700),
    Attack::new(
        "many-groups-above-limit",
        "200 groups of 1,100 families, each in a shard of its own",
        many_groups_above_limit,
    )
    .stores_mib(200),
    Attack::new("selectors", "8 catastrophic expressions on a label value of 60 KB", selectors)
        .stores_mib(8)
        .sluicegate_only("it has no selectors"),
    Attack::new("short-zstd", "6 senders of 2 KB of zstd, 63 MiB when decoded", short_zstd),
    Attack::new("bomb-without-push", "the same, to paths that want no body", bomb_without_push),
    Attack::new(
        "label-name-sets",
        "1,000 series into a family with 2,000 sets of label names",
        label_name_sets,
    )
    .stores_mib(64),
    Attack::new("two-sets", "a million series into a family with two sets of label names", two_sets)
        .stores_mib(400),
    Attack::new(
        "two-large-sets",
        "200,000 series, each looked up in another group of 400,000",
        two_large_sets,
    )
    .stores_mib(400),
    Attack::new("api-of-large-group", "the JSON of a group of 200,000 series, polled", api_of_large_group)
        .stores_mib(64),
    Attack::new(
        "page-of-large-group",
        "the status page of a group of 200,000 series, polled",
        page_of_large_group,
    )
    .stores_mib(64),
    Attack::new("long-name", "a metric name of 60 MiB", long_name).stores_mib(256),
    Attack::new(
        "post-into-large-group",
        "POSTs of 4 bytes into a stored group of 40 MB",
        post_into_large_group,
    )
    .stores_mib(160)
    .with_store(),
    Attack::new("uploads", "32 connections that upload 1 MiB again and again", uploads),
    Attack::new("late-error", "60 MiB whose last line is wrong", late_error),
    Attack::new("repeated-series", "a million times the same series in a body", repeated_series),
    Attack::new("type-flips", "200,000 series that change their type with each push", type_flips)
        .stores_mib(128),
    Attack::new("forms", "scrapes of 200,000 series in ever different forms", forms).stores_mib(256),
    Attack::new("long-accept", "scrapes with 10,000 entries in Accept and Accept-Encoding", long_accept)
        .flags(&["--web.head-bytes-max=1MiB"]),
    Attack::new("paging", "/api/v1/groups of 5,000 groups with odd limits", paging)
        .stores_mib(32)
        .sluicegate_only("it has no /api/v1/groups"),
    Attack::new("one-core", "groups that all live on one core", one_core).stores_mib(32),
];

fn many_families(scene: &Scene) -> Result<Play> {
    let count = if scene.is_quick { 80_000 } else { 800_000 };
    let push = put_encoded("/metrics/job/attack", "gzip", &gzip(families(count).as_bytes()));
    Ok(Box::new(move |scene| scene.flood(1, &[push])))
}

/// Slightly larger than groups that share a shard.
fn many_groups_above_limit(_: &Scene) -> Result<Play> {
    let body: String = (0..1_100).map(|number| format!("attack_above{number} 1\n")).collect();
    let make = move |number: usize, round: usize| {
        put(&format!("/metrics/job/attack/instance/{}", (number + 2 * round) % 200), &body)
    };
    Ok(Box::new(move |scene| scene.flood_with(2, make)))
}

fn selectors(scene: &Scene) -> Result<Play> {
    let value = "ab".repeat(30_000);
    scene.set_up(&put("/metrics/job/attack", format!("attack_match{{text=\"{value}\"}} 1\n")))?;
    let matcher = "match[]=%7Btext%3D~%22%5Bab%5D%2Aa%5Bab%5D%7B1500%7Dc%22%7D";
    let request = get(&format!("/api/v1/groups?{}", [matcher; 8].join("&")));
    Ok(Box::new(move |scene| scene.flood(8, &[request])))
}

fn short_zstd(_: &Scene) -> Result<Play> {
    let mut body = b"attack_zstd 1\n".to_vec();
    body.resize(63 * MIB, b'\n');
    let push = put_encoded("/metrics/job/attack", "zstd", &zstd(&body));
    Ok(Box::new(move |scene| scene.flood(6, &[push])))
}

fn bomb_without_push(_: &Scene) -> Result<Play> {
    let body = zstd(&comments(63 * MIB));
    let encoding = [("Content-Encoding", "zstd")];
    let requests = vec![
        request("DELETE", "/metrics/job/attack", &encoding, &body),
        request("POST", "/no/such/path", &encoding, &body),
        request("PUT", "/-/healthy", &encoding, &body),
    ];
    Ok(Box::new(move |scene| scene.flood(6, &requests)))
}

fn label_name_sets(scene: &Scene) -> Result<Play> {
    let sets = if scene.is_quick { 300 } else { 2_000 };
    for number in 0..sets {
        scene.set_up(&put(&format!("/metrics/job/attack/set{number}/x"), "attack_sets 1\n"))?;
    }
    let make = |number: usize, round: usize| {
        put(&format!("/metrics/job/attack/instance/{number}-{}", round % 20), series("attack_sets", 1_000))
    };
    Ok(Box::new(move |scene| scene.flood_with(2, make)))
}

fn two_sets(scene: &Scene) -> Result<Play> {
    let count = if scene.is_quick { 100_000 } else { 1_000_000 };
    scene.set_up(&put("/metrics/job/attack/zone/x", "# TYPE attack_two gauge\nattack_two{n=\"-\"} 1\n"))?;
    let push = put_encoded("/metrics/job/attack", "gzip", &gzip(series("attack_two", count).as_bytes()));
    let clear = put("/metrics/job/attack", "attack_other 1\n");
    Ok(Box::new(move |scene| scene.flood(2, &[push, clear])))
}

fn two_large_sets(scene: &Scene) -> Result<Play> {
    let count = if scene.is_quick { 100_000 } else { 400_000 };
    let series = |count| gzip(series("attack_two", count).as_bytes());
    scene.set_up(&put_encoded("/metrics/job/attack", "gzip", &series(count)))?;
    let push = put_encoded("/metrics/job/attack/zone/x", "gzip", &series(count / 2));
    let clear = put("/metrics/job/attack/zone/x", "attack_other 1\n");
    Ok(Box::new(move |scene| scene.flood(2, &[push, clear])))
}

fn store_many_series(scene: &Scene) -> Result<()> {
    let count = if scene.is_quick { 20_000 } else { 200_000 };
    let body = gzip(series("attack_many", count).as_bytes());
    scene.set_up(&put_encoded("/metrics/job/attack", "gzip", &body))
}

fn api_of_large_group(scene: &Scene) -> Result<Play> {
    store_many_series(scene)?;
    Ok(Box::new(move |scene| scene.flood(4, &[get("/api/v1/metrics")])))
}

fn page_of_large_group(scene: &Scene) -> Result<Play> {
    store_many_series(scene)?;
    Ok(Box::new(move |scene| scene.flood(4, &[get("/")])))
}

fn long_name(scene: &Scene) -> Result<Play> {
    let name = "n".repeat(if scene.is_quick { 6 * MIB } else { 60 * MIB });
    let push = put_encoded("/metrics/job/attack", "gzip", &gzip(format!("{name} 1\n").as_bytes()));
    Ok(Box::new(move |scene| scene.flood(4, &[push])))
}

fn post_into_large_group(scene: &Scene) -> Result<Play> {
    let count = if scene.is_quick { 100_000 } else { 1_000_000 };
    let body = gzip(series("attack_posted", count).as_bytes());
    scene.set_up(&put_encoded("/metrics/job/attack", "gzip", &body))?;
    let requests: Vec<Vec<u8>> =
        (0..10).map(|value| post("/metrics/job/attack", format!("m {value}\n"))).collect();
    Ok(Box::new(move |scene| scene.flood(1, &requests)))
}

fn uploads(_: &Scene) -> Result<Play> {
    let push = put("/metrics/job/attack", comments(MIB));
    Ok(Box::new(move |scene| scene.flood(32, &[push])))
}

fn late_error(_: &Scene) -> Result<Play> {
    let mut body = comments(60 * MIB);
    body.extend_from_slice(b"attack_late 1 not-a-time\n");
    let push = put_encoded("/metrics/job/attack", "gzip", &gzip(&body));
    Ok(Box::new(move |scene| scene.flood(8, &[push])))
}

fn repeated_series(_: &Scene) -> Result<Play> {
    let body = "attack_repeated{a=\"b\"} 1\n".repeat(1_000_000);
    let push = put_encoded("/metrics/job/attack", "gzip", &gzip(body.as_bytes()));
    Ok(Box::new(move |scene| scene.flood(4, &[push])))
}

fn type_flips(scene: &Scene) -> Result<Play> {
    let count = if scene.is_quick { 20_000 } else { 200_000 };
    let gauges = series("attack_flips", count);
    let counters = gauges.replacen(" gauge", " counter", 1);
    let push = |body: &str| put_encoded("/metrics/job/attack", "gzip", &gzip(body.as_bytes()));
    let requests = vec![push(&gauges), push(&counters)];
    Ok(Box::new(move |scene| scene.flood(2, &requests)))
}

fn forms(scene: &Scene) -> Result<Play> {
    store_many_series(scene)?;
    let accepts = [
        "text/plain;version=0.0.4",
        "text/plain;version=1.0.0;escaping=underscores",
        "text/plain;version=1.0.0;escaping=dots",
        "text/plain;version=1.0.0;escaping=values",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=compact-text",
    ];
    let requests: Vec<Vec<u8>> = ["identity", "gzip", "zstd"]
        .iter()
        .flat_map(|coding| accepts.map(|accept| (*coding, accept)))
        .map(|(coding, accept)| {
            request("GET", "/metrics", &[("Accept", accept), ("Accept-Encoding", coding)], b"")
        })
        .collect();
    let change = put("/metrics/job/attack-change", "# TYPE attack_many gauge\nattack_many 1\n");
    let requests: Vec<Vec<u8>> = requests.into_iter().flat_map(|scrape| [scrape, change.clone()]).collect();
    Ok(Box::new(move |scene| scene.flood(4, &requests)))
}

fn long_accept(_: &Scene) -> Result<Play> {
    let accept = (0..10_000).fold(String::new(), |mut all, number| {
        let _ = write!(all, "text/x{number};q=0.{:03},", number % 1_000);
        all
    });
    let codings = (0..10_000).fold(String::new(), |mut all, number| {
        let _ = write!(all, "x{number};q=0.5,");
        all
    });
    let scrape = request("GET", "/metrics", &[("Accept", &accept), ("Accept-Encoding", &codings)], b"");
    Ok(Box::new(move |scene| scene.flood(4, &[scrape])))
}

fn paging(scene: &Scene) -> Result<Play> {
    for number in 0..if scene.is_quick { 500 } else { 5_000 } {
        scene.set_up(&put(&format!("/metrics/job/attack/instance/{number}"), "attack_paging 1\n"))?;
    }
    let requests: Vec<Vec<u8>> = [
        "limit=1",
        "limit=18446744073709551615",
        "limit=0",
        "limit=-1",
        "limit=1&after=zzzz",
        "after=%00",
        "match[]=%7Bjob%3D~%22.%2A%22%7D",
        "match[]=%7Binstance%3D~%22.%2A1.%2A2%22%7D&limit=1",
    ]
    .iter()
    .map(|query| get(&format!("/api/v1/groups?{query}")))
    .collect();
    Ok(Box::new(move |scene| scene.flood(8, &requests)))
}

/// An attacker can find groups of one core, because the hash is public. Here a single group stands for them.
fn one_core(_: &Scene) -> Result<Play> {
    let push = put("/metrics/job/attack", series("attack_one_core", 500));
    Ok(Box::new(move |scene| scene.flood(32, &[push])))
}
