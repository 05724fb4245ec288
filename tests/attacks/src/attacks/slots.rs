//! Clients that occupy what is limited: scrapes, connections, descriptors, permits.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Result;
use socket2::SockRef;

use crate::attack::{Attack, Play};
use crate::bodies::{gzip, put_encoded, series};
use crate::http::{get, head, put, request};
use crate::scene::Scene;

/// A limit that the attacker can reach without many descriptors of its own.
const FEW_CONNECTIONS: &[&str] = &["--web.connections-max=400"];

pub const ATTACKS: &[Attack] = &[
    Attack::new("scrapers-unread", "40 scrapers that read nothing", scrapers_unread).stores_mib(64),
    Attack::new("scrapers-sip", "40 scrapers that read 50 bytes a second", scrapers_sip).stores_mib(64),
    Attack::new("scrapers-leave", "scrapers that disconnect midway, again and again", scrapers_leave)
        .stores_mib(64),
    Attack::new("api-unread-slots", "100 unread /api/v1/groups and /api/v1/metrics", api_unread_slots)
        .stores_mib(64),
    Attack::new("idle-connections", "as many idle connections as allowed", idle_connections)
        .flags(FEW_CONNECTIONS),
    Attack::new("slow-heads", "request heads on all connections, a byte at a time", slow_heads)
        .flags(FEW_CONNECTIONS),
    Attack::new("slow-bodies", "bodies on 300 connections, a byte at a time", slow_bodies)
        .flags(FEW_CONNECTIONS),
    Attack::new("few-descriptors", "more connections than the gateway has descriptors", few_descriptors)
        .descriptors_max(300),
    Attack::new("many-connections", "5,000 idle connections", many_connections),
    Attack::new("resets", "requests whose connections are reset at once", resets),
    Attack::new("connect-and-close", "connections that are closed at once", connect_and_close),
    Attack::new("expect-continue", "bodies that wait for 100 Continue and never come", expect_continue),
    Attack::new("flood", "64 connections that push as fast as they can", flood).stores_mib(8),
    Attack::new("unread-log", "a flood of rejected pushes, with nobody reading the log", unread_log)
        .stderr_is_unread()
        .flags(&["--log.level=debug"]),
];

fn store_medium_group(scene: &Scene) -> Result<()> {
    let count = if scene.is_quick { 150_000 } else { 300_000 };
    let body = gzip(series("attack_medium", count).as_bytes());
    scene.set_up(&put_encoded("/metrics/job/attack", "gzip", &body))
}

fn scrapers_unread(scene: &Scene) -> Result<Play> {
    store_medium_group(scene)?;
    Ok(Box::new(|scene| scene.hold(40, &get("/metrics"))))
}

fn scrapers_sip(scene: &Scene) -> Result<Play> {
    store_medium_group(scene)?;
    Ok(Box::new(|scene| scene.sip(40, &get("/metrics"), 1)))
}

fn scrapers_leave(scene: &Scene) -> Result<Play> {
    store_medium_group(scene)?;
    Ok(Box::new(|scene| {
        scene.hold_with(40, &get("/metrics"), |held, round| {
            if round % 2 == 0 {
                Ok(())
            } else {
                io::Read::read(&mut held.stream, &mut [0; 4096]).and(Err(io::ErrorKind::Other.into()))
            }
        });
    }))
}

fn api_unread_slots(scene: &Scene) -> Result<Play> {
    store_medium_group(scene)?;
    let request = [get("/api/v1/groups"), get("/api/v1/metrics")].concat();
    Ok(Box::new(move |scene| scene.hold(100, &request)))
}

/// Each connection has had a request, as idle connections have.
fn idle_connections(_: &Scene) -> Result<Play> {
    Ok(Box::new(|scene| scene.hold(500, &get("/-/healthy"))))
}

fn slow_heads(_: &Scene) -> Result<Play> {
    Ok(Box::new(|scene| scene.drip(500, b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nX: ", b"x")))
}

fn slow_bodies(_: &Scene) -> Result<Play> {
    let head = head("PUT", "/metrics/job/attack", &[("Content-Length", "1000000")]);
    Ok(Box::new(move |scene| scene.drip(300, &head, b"#")))
}

fn few_descriptors(_: &Scene) -> Result<Play> {
    Ok(Box::new(|scene| scene.hold(500, &get("/-/healthy"))))
}

fn many_connections(_: &Scene) -> Result<Play> {
    Ok(Box::new(|scene| scene.hold(5_000, &get("/-/healthy"))))
}

fn resets(_: &Scene) -> Result<Play> {
    let push = put("/metrics/job/attack", series("attack_resets", 100));
    let requests = [push, get("/metrics"), get("/api/v1/metrics")];
    Ok(Box::new(move |scene| {
        scene.threads(4, |number| {
            let mut round = number;
            while !scene.is_over() {
                round += 1;
                let Ok(mut stream) = scene.connect() else { continue };
                // Nothing else is expected: the peer may have reset the connection first.
                let _ = stream.write_all(&requests[round % requests.len()]);
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        });
    }))
}

fn connect_and_close(_: &Scene) -> Result<Play> {
    Ok(Box::new(|scene| {
        scene.threads(4, |_| {
            while !scene.is_over() {
                if let Ok(stream) = scene.connect() {
                    // Without TIME_WAIT, so that ports do not run out.
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            }
        });
    }))
}

fn expect_continue(_: &Scene) -> Result<Play> {
    let head =
        head("PUT", "/metrics/job/attack", &[("Content-Length", "60000000"), ("Expect", "100-continue")]);
    Ok(Box::new(move |scene| scene.hold(200, &head)))
}

fn flood(_: &Scene) -> Result<Play> {
    let push = put("/metrics/job/attack", series("attack_flood", 20));
    Ok(Box::new(move |scene| scene.flood(64, &[push])))
}

fn unread_log(_: &Scene) -> Result<Play> {
    let requests = vec![
        put("/metrics/job/attack", "not a metric\n"),
        put("/metrics/job/attack", "m 1\nm 2\n"),
        request("PATCH", "/metrics/job/attack", &[], b""),
    ];
    Ok(Box::new(move |scene| scene.flood(8, &requests)))
}
