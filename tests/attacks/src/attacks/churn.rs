//! State that is created and deleted again and again: nothing of it may remain.

use anyhow::Result;

use crate::attack::{Attack, Play};
use crate::bodies::{gzip, put_encoded, series};
use crate::http::{delete, get, put, request};
use crate::scene::Scene;

pub const ATTACKS: &[Attack] = &[
    Attack::new("new-label-names", "groups with ever new label names, pushed and deleted", new_label_names)
        .stores_mib(64),
    Attack::new(
        "new-metric-names",
        "groups with ever new metric names, pushed and deleted",
        new_metric_names,
    )
    .stores_mib(64),
    Attack::new("new-help", "20,000 families whose help texts change with each push", new_help)
        .stores_mib(64),
    Attack::new("replaced-series", "a group whose 50,000 series all change with each push", replaced_series)
        .stores_mib(64),
    Attack::new("deletes", "DELETE of groups that do not exist", deletes),
    Attack::new("heads", "HEAD of everything, on 32 connections", heads),
    Attack::new("wipes", "PUT /api/v1/admin/wipe, as fast as possible", wipes).may_delete(),
    Attack::new("stored-churn", "the same new names, with a store", stored_churn).stores_mib(64).with_store(),
    Attack::new("failures", "inconsistent pushes to ever new groups", failures).stores_mib(200),
    Attack::new("new-shapes", "bodies of 64 KB with ever new labels, each pushed twice", new_shapes)
        .stores_mib(64),
    Attack::new("shared-names", "two groups that fight over the types of 1,000 names", shared_names)
        .stores_mib(32),
];

/// A body that is pushed a second time with other numbers is worth remembering, and none of these comes a third time.
fn new_shapes(_: &Scene) -> Result<Play> {
    Ok(Box::new(|scene| {
        scene.flood_with(4, |connection, round| {
            let run = connection + 4 * (round / 2);
            let lines =
                (0..1_600).map(|number| format!("attack_shape{{n=\"{number}\",run=\"{run}\"}} {round}\n"));
            put(&format!("/metrics/job/attack/instance/{connection}"), lines.collect::<String>())
        });
    }))
}

/// Groups that are pushed and deleted; `make` builds the path and the body for a number.
fn churn(make: impl Fn(usize) -> (String, Vec<u8>) + Send + Sync + 'static) -> Result<Play> {
    Ok(Box::new(move |scene| {
        scene.flood_with(4, |connection, round| {
            let (path, body) = make(connection + 4 * (round / 2));
            if round % 2 == 0 { put(&path, body) } else { delete(&path) }
        });
    }))
}

fn new_label_names(_: &Scene) -> Result<Play> {
    let long = "n".repeat(20_000);
    churn(move |number| (format!("/metrics/job/attack/{long}{number}/x"), b"attack_labels 1\n".to_vec()))
}

fn new_metric_names(_: &Scene) -> Result<Play> {
    let long = "n".repeat(500);
    churn(move |number| {
        let lines = (0..100).map(|family| format!("{long}_{number}_{family} 1\n"));
        (format!("/metrics/job/attack{number}"), lines.collect::<String>().into_bytes())
    })
}

fn stored_churn(_: &Scene) -> Result<Play> {
    churn(|number| {
        let body = format!("attack_{number} 1\nattack_{number}_more{{a=\"b\"}} 1\n");
        (format!("/metrics/job/attack{number}/label{number}/x"), body.into_bytes())
    })
}

fn new_help(_: &Scene) -> Result<Play> {
    let body = |text: &str| {
        let lines =
            (0..20_000).map(|number| format!("# HELP attack_help{number} {text}\nattack_help{number} 1\n"));
        put_encoded("/metrics/job/attack", "gzip", &gzip(lines.collect::<String>().as_bytes()))
    };
    let requests: Vec<Vec<u8>> = ["one", "another"].map(body).into();
    Ok(Box::new(move |scene| scene.flood(2, &requests)))
}

fn replaced_series(_: &Scene) -> Result<Play> {
    let one = series("attack_replaced", 50_000);
    let other = one.replace("{n=", "{other=");
    let requests: Vec<Vec<u8>> =
        [one, other].map(|body| put_encoded("/metrics/job/attack", "gzip", &gzip(body.as_bytes()))).into();
    Ok(Box::new(move |scene| scene.flood(2, &requests)))
}

fn deletes(_: &Scene) -> Result<Play> {
    let make =
        |number: usize, round: usize| delete(&format!("/metrics/job/attack/instance/{number}-{round}"));
    Ok(Box::new(move |scene| scene.flood_with(16, make)))
}

fn heads(_: &Scene) -> Result<Play> {
    let head = |path: &str| request("HEAD", path, &[], b"");
    let requests =
        ["/metrics", "/", "/-/healthy", "/api/v1/metrics", "/metrics/job/attack", "/nothing"].map(head);
    Ok(Box::new(move |scene| scene.flood(32, &requests)))
}

fn wipes(_: &Scene) -> Result<Play> {
    let wipe = request("PUT", "/api/v1/admin/wipe", &[], b"");
    Ok(Box::new(move |scene| scene.flood(8, &[wipe, get("/metrics")])))
}

fn failures(scene: &Scene) -> Result<Play> {
    scene.set_up(&put("/metrics/job/attack", "# TYPE attack_type gauge\nattack_type 1\n"))?;
    let make = |number: usize, round: usize| {
        put(
            &format!("/metrics/job/attack/instance/{number}-{round}"),
            "# TYPE attack_type counter\nattack_type 1\n",
        )
    };
    Ok(Box::new(move |scene| scene.flood_with(4, make)))
}

fn shared_names(_: &Scene) -> Result<Play> {
    let body = |kind: &str| {
        let lines = (0..1_000)
            .map(|number| format!("# TYPE attack_shared{number} {kind}\nattack_shared{number} 1\n"));
        lines.collect::<String>()
    };
    let (gauges, counters) = (body("gauge"), body("counter"));
    let requests = vec![
        put("/metrics/job/attack-one", gauges),
        delete("/metrics/job/attack-two"),
        put("/metrics/job/attack-two", counters),
        delete("/metrics/job/attack-one"),
    ];
    Ok(Box::new(move |scene| scene.flood(4, &requests)))
}
