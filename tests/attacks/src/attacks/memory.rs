//! Requests and responses that need far more memory than the client spends.

use std::fmt::Write as _;

use anyhow::Result;

use crate::attack::{Attack, Play};
use crate::bodies::{comments, gzip, put_encoded, series, snappy, zstd};
use crate::http::{delete, get, head, put, request};
use crate::scene::Scene;

const MIB: usize = 1 << 20;

pub const ATTACKS: &[Attack] = &[
    Attack::new("gzip-bombs", "40 gzip bodies, each 63 MiB when decoded", gzip_bombs),
    Attack::new("zstd-bombs", "40 zstd bodies, each 63 MiB when decoded", zstd_bombs),
    Attack::new("snappy-bombs", "40 snappy bodies, each 63 MiB when decoded", snappy_bombs),
    Attack::new("gzip-series", "gzip bodies with 700,000 series each", gzip_series).stores_mib(400),
    Attack::new("announced-bodies", "40 bodies that announce 64 MiB and never finish", announced_bodies),
    Attack::new("chunked-bodies", "200 chunked bodies of 1 MiB that never finish", chunked_bodies),
    Attack::new("url-labels", "60 KB of labels in the URL, 4,000 series in the body", url_labels)
        .stores_mib(320),
    Attack::new("wide-grouping-keys", "groups with 1,000 labels in the URL", wide_grouping_keys)
        .stores_mib(64),
    Attack::new("api-unread", "60 unread /api/v1/metrics of a group of 20 MB", api_unread).stores_mib(32),
    Attack::new("page-unread", "60 unread status pages of a group of 20 MB", page_unread).stores_mib(32),
    Attack::new("groups-api-unread", "60 unread /api/v1/groups of a group of 20 MB", groups_api_unread)
        .stores_mib(32)
        .sluicegate_only("it has no /api/v1/groups"),
    Attack::new("pipelined-unread", "50 connections with 100 pipelined GETs each, unread", pipelined_unread)
        .stores_mib(32),
    Attack::new("label-value", "a label value of 60 MB", label_value).stores_mib(200),
    Attack::new("many-labels", "a series with 10,000 labels", many_labels).stores_mib(16),
    Attack::new("many-groups", "new groups without end", many_groups).stores_mib(600),
    Attack::new("help-text", "eight help texts of 1 MiB, changed by each push", help_text).stores_mib(64),
    Attack::new("long-errors", "rejected pushes whose errors quote 60 KB", long_errors).stores_mib(8),
    Attack::new("release", "groups of 40 MB, pushed and deleted one after the other, with a store", release)
        .stores_mib(256)
        .with_store(),
];

fn encoded_bombs(coding: &'static str, body: &[u8]) -> Result<Play> {
    let request = put_encoded("/metrics/job/attack", coding, body);
    Ok(Box::new(move |scene| scene.flood(40, &[request])))
}

fn gzip_bombs(_: &Scene) -> Result<Play> {
    encoded_bombs("gzip", &gzip(&comments(63 * MIB)))
}

fn zstd_bombs(_: &Scene) -> Result<Play> {
    encoded_bombs("zstd", &zstd(&comments(63 * MIB)))
}

fn snappy_bombs(_: &Scene) -> Result<Play> {
    encoded_bombs("snappy", &snappy(&comments(63 * MIB)))
}

fn gzip_series(scene: &Scene) -> Result<Play> {
    let count = if scene.is_quick { 70_000 } else { 700_000 };
    encoded_bombs("gzip", &gzip(series("attack_series", count).as_bytes()))
}

/// Each connection sends as much as the gateway reads.
fn announced_bodies(_: &Scene) -> Result<Play> {
    let mut bytes = head("PUT", "/metrics/job/attack", &[("Content-Length", "67108864")]);
    bytes.resize(48 * MIB, b'#');
    Ok(Box::new(move |scene| scene.hold(40, &bytes)))
}

fn chunked_bodies(_: &Scene) -> Result<Play> {
    let mut bytes = head("PUT", "/metrics/job/attack", &[("Transfer-Encoding", "chunked")]);
    bytes.extend_from_slice(b"100000\r\n");
    bytes.resize(bytes.len() + MIB, b'#');
    bytes.extend_from_slice(b"\r\n");
    Ok(Box::new(move |scene| scene.hold(200, &bytes)))
}

fn url_labels(_: &Scene) -> Result<Play> {
    let value = "v".repeat(60_000);
    let request = put(&format!("/metrics/job/attack/zone/{value}"), series("attack_wide", 4_000));
    Ok(Box::new(move |scene| scene.flood(4, &[request])))
}

fn wide_grouping_keys(_: &Scene) -> Result<Play> {
    let labels = (0..1_000).fold(String::new(), |mut labels, number| {
        let _ = write!(labels, "/label{number}/value{number}");
        labels
    });
    let make = move |number: usize, round: usize| {
        put(&format!("/metrics/job/attack{}{labels}", (number * 7 + round) % 200), "attack_key 1\n")
    };
    Ok(Box::new(move |scene| scene.flood_with(4, make)))
}

/// Stores a group whose exposition has about 20 MB.
fn store_large_group(scene: &Scene) -> Result<()> {
    let body = format!("attack_large{{text=\"{}\"}} 1\n", "x".repeat(1_000));
    let lines = if scene.is_quick { 10_000 } else { 20_000 };
    let body = (0..lines).fold(String::new(), |mut all, number| {
        all.push_str(&body.replacen("attack_large{", &format!("attack_large{{n=\"{number}\","), 1));
        all
    });
    scene.set_up(&put_encoded("/metrics/job/attack", "gzip", &gzip(body.as_bytes())))
}

fn unread(scene: &Scene, path: &str) -> Result<Play> {
    store_large_group(scene)?;
    let request = get(path);
    Ok(Box::new(move |scene| scene.hold(60, &request)))
}

fn api_unread(scene: &Scene) -> Result<Play> {
    unread(scene, "/api/v1/metrics")
}

fn page_unread(scene: &Scene) -> Result<Play> {
    unread(scene, "/")
}

fn groups_api_unread(scene: &Scene) -> Result<Play> {
    unread(scene, "/api/v1/groups")
}

fn pipelined_unread(scene: &Scene) -> Result<Play> {
    store_large_group(scene)?;
    let requests = [get("/api/v1/metrics"), get("/"), get("/metrics")].concat().repeat(33);
    Ok(Box::new(move |scene| scene.hold(50, &requests)))
}

fn label_value(scene: &Scene) -> Result<Play> {
    let bytes = if scene.is_quick { 6 * MIB } else { 60 * MIB };
    let body = format!("attack_value{{text=\"{}\"}} 1\n", "x".repeat(bytes));
    encoded_bombs_of(body.as_bytes(), 4)
}

fn encoded_bombs_of(body: &[u8], connections: usize) -> Result<Play> {
    let request = put_encoded("/metrics/job/attack", "gzip", &gzip(body));
    Ok(Box::new(move |scene| scene.flood(connections, &[request])))
}

fn many_labels(_: &Scene) -> Result<Play> {
    let labels = (0..10_000).fold(String::new(), |mut labels, number| {
        let _ = write!(labels, "label{number}=\"{number}\",");
        labels
    });
    let request = put("/metrics/job/attack", format!("attack_labels{{{labels}}} 1\n"));
    Ok(Box::new(move |scene| scene.flood(8, &[request])))
}

fn many_groups(_: &Scene) -> Result<Play> {
    let make = |number: usize, round: usize| {
        put(
            &format!("/metrics/job/attack/instance/{number}-{round}"),
            "attack_groups 1\nattack_more{a=\"b\"} 2\n",
        )
    };
    Ok(Box::new(move |scene| scene.flood_with(4, make)))
}

fn help_text(scene: &Scene) -> Result<Play> {
    let families = if scene.is_quick { 1 } else { 8 };
    let body = |letter: &str| {
        let help = letter.repeat(MIB);
        let family = |number| format!("# HELP attack_help{number} {help}\nattack_help{number} 1\n");
        (0..families).map(family).collect::<String>()
    };
    let requests: Vec<Vec<u8>> = ["a", "b", "c"]
        .map(|letter| put_encoded("/metrics/job/attack", "gzip", &gzip(body(letter).as_bytes())))
        .into();
    Ok(Box::new(move |scene| scene.flood(4, &requests)))
}

fn long_errors(_: &Scene) -> Result<Play> {
    let name = "n".repeat(60_000);
    let requests = vec![
        put("/metrics/job/attack", format!("{name} 1\n{name} 2\n")),
        put("/metrics/job/attack", format!("{name} x\n")),
        put("/metrics/job/attack", format!("# TYPE {name} nonsense\n")),
        put(&format!("/metrics/job/attack/zone@base64/{name}!"), "m 1\n"),
        request("GET", &format!("/api/v1/groups?match[]={name}{{"), &[], b""),
    ];
    Ok(Box::new(move |scene| scene.flood(8, &requests)))
}

fn release(scene: &Scene) -> Result<Play> {
    let lines = if scene.is_quick { 60_000 } else { 600_000 };
    let body = gzip(series("attack_released", lines).as_bytes());
    let make = move |connection: usize, round: usize| {
        let path = format!("/metrics/job/attack{}", (connection + 2 * (round / 2)) % 100);
        if round.is_multiple_of(2) { put_encoded(&path, "gzip", &body) } else { delete(&path) }
    };
    Ok(Box::new(move |scene| scene.flood_with(2, make)))
}
