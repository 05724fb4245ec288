//! A real Prometheus scrapes the gateway: release 2 or 3, with and without native histograms.
//!
//! Needs `prometheus` on the PATH: `cargo test --test it prometheus:: -- --ignored`. See
//! `support/prometheus.rs` for other releases.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::gateway::{Encoding, scrape};
use crate::support::prometheus::{Native, Prometheus};
use crate::support::{Gateway, hostile_bodies, protobuf_fields, wait_for};

/// The push of client_golang 1.25.0 for a native histogram that observed -5, 0, 1, 2, 3 and 100, recorded from
/// `go_client HOST:PORT native`.
const NATIVE_HISTOGRAM: &[u8] = include_bytes!("support/native_histogram.bin");

/// A proxy in front of the gateway that keeps the first bytes of what either side sends.
fn recording_proxy(gateway: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    const KEPT_BYTES: usize = 2048;
    fn pass_on(mut from: TcpStream, mut to: TcpStream, heads: &Mutex<Vec<String>>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let head = String::from_utf8_lossy(&buffer[..count.min(KEPT_BYTES)]).into_owned();
            heads.lock().expect("no panic while it was held").push(head);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // Fails if the other side has closed the connection.
        let _ = to.shutdown(Shutdown::Write);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", gateway)).expect("the gateway listens");
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                let kept = Arc::clone(&kept);
                thread::spawn(move || pass_on(from, to, &kept));
            }
        }
    });
    (port, heads)
}

#[test]
#[ignore = "needs prometheus"]
fn prometheus_stores_every_pushed_sample() {
    check_every_pushed_sample(Native::Off);
}

/// Prometheus scrapes protobuf in this mode.
#[test]
#[ignore = "needs prometheus"]
fn prometheus_with_native_histograms_stores_every_pushed_sample() {
    check_every_pushed_sample(Native::On);
}

/// Pushes samples of all types and queries Prometheus for each. Prometheus 3, and release 2 with protobuf, stores `le` as a
/// float (`1.0`).
fn check_every_pushed_sample(native: Native) {
    let gateway = Gateway::start(&[]);
    let (port, heads) = recording_proxy(gateway.port());
    let Some(prometheus) = Prometheus::start(port, native) else { return };
    let body = "# HELP c Things done.\n# TYPE c counter\nc{x=\"\\\"\\\\\\n\"} 5\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n\
        h_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n# TYPE s summary\ns{quantile=\"0.5\"} 2\ns_sum 30\ns_count 20\nu -Inf\n";
    for (path, body) in [
        ("/metrics/job/backup", body),
        ("/metrics/job/backup/instance/h1/zone/eu", "# TYPE g gauge\ng 1e6\n"),
        ("/metrics/job@base64/YS9i", "# TYPE g gauge\ng{instance=\"own\"} 0.25\n"),
    ] {
        assert_eq!(gateway.put(path, body).status, 200);
    }
    assert_eq!(gateway.put("/metrics/job/refused", "m 1 5\n").status, 400);
    let many: String = (0..2_000).map(|n| format!("many{{n=\"{n}\"}} {n}\n")).collect();
    assert_eq!(gateway.put("/metrics/job/many", &many).status, 200);

    wait_for("Prometheus to scrape", Duration::from_secs(60), || {
        let up = prometheus.query("up")?;
        assert!(up.len() <= 1, "one target");
        let scraped = prometheus.query("count(many)")?;
        (up.first()?.1 == "1" && scraped.first()?.1 == "2000").then_some(())
    });
    for (expression, value) in [
        ("c{job=\"backup\",instance=\"\",x=\"\\\"\\\\\\n\"}", "5"),
        ("h_bucket{job=\"backup\",le=~\"1|1.0\"}", "1"),
        ("h_bucket{job=\"backup\",le=\"+Inf\"}", "4"),
        ("h_sum{job=\"backup\"}", "9.5"),
        ("h_count{job=\"backup\"}", "4"),
        ("s{job=\"backup\",quantile=\"0.5\"}", "2"),
        ("s_sum{job=\"backup\"}", "30"),
        ("s_count{job=\"backup\"}", "20"),
        ("u{job=\"backup\"}", "-Inf"),
        ("g{job=\"backup\",instance=\"h1\",zone=\"eu\"}", "1000000"),
        ("g{job=\"a/b\",instance=\"own\"}", "0.25"),
        ("sum(many)", "1999000"),
        ("push_failure_time_seconds{job=\"backup\",instance=\"\"}", "0"),
        ("count(push_time_seconds{job=\"backup\"} > 1.7e9)", "2"),
        ("push_time_seconds{job=\"refused\"}", "0"),
        ("count(push_failure_time_seconds{job=\"refused\"} > 1.7e9)", "1"),
        ("pushgateway_build_info * 0 + 1", "1"),
    ] {
        let result = prometheus.query(expression).expect("a response");
        assert_eq!(result.len(), 1, "{expression}: {result:?}");
        assert_eq!(result[0].1, value, "{expression}");
    }
    // `honor_labels`: pushed series have no labels of the scraped target.
    for (labels, _) in prometheus.query("{__name__=~\"c|h_sum|s_sum|u\"}").expect("a response") {
        assert_eq!(labels["job"], "backup");
        assert_eq!(labels.get("instance"), None, "an empty instance label is dropped: {labels}");
    }

    let heads = heads.lock().expect("no panic while it was held");
    let requested =
        heads.iter().any(|head| head.starts_with("GET /metrics") && head.contains("Accept-Encoding: gzip"));
    let sent = heads.iter().any(|head| head.to_ascii_lowercase().contains("\r\ncontent-encoding: gzip\r\n"));
    assert!(requested && sent, "gzip was requested: {requested}, sent: {sent}");
    drop(heads);

    // The next scrape marks a deleted group as stale.
    assert_eq!(gateway.delete("/metrics/job/many").status, 202);
    wait_for("the group to go", Duration::from_secs(30), || {
        prometheus.query("count(many)").filter(Vec::is_empty).map(|_| ())
    });
}

#[test]
#[ignore = "needs prometheus"]
fn a_native_histogram_arrives_with_its_buckets() {
    let gateway = Gateway::start(&[]);
    let Some(prometheus) = Prometheus::start(gateway.port(), Native::On) else { return };
    match std::env::var("SLUICEGATE_TEST_GO_CLIENT") {
        Ok(client) => {
            let address = format!("127.0.0.1:{}", gateway.port());
            let done = Command::new(client).args([&address, "native"]).output().expect("the client starts");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Err(_) => {
            let response = gateway.request(
                "PUT",
                "/metrics/job/native",
                protobuf_fields::CONTENT_TYPE,
                NATIVE_HISTOGRAM,
            );
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
    prometheus.wait_for_scrape();
    let result = prometheus.query_raw("native_seconds").expect("a response");
    assert_eq!(result.len(), 1, "{result:?}");
    assert_eq!(result[0]["metric"]["job"], "native");
    let histogram = &result[0]["histogram"][1];
    assert_eq!((&histogram["count"], &histogram["sum"]), (&"6".into(), &"101".into()), "{result:?}");
    let buckets = histogram["buckets"].as_array().expect("buckets");
    assert_eq!(buckets.len(), 6, "a bucket for each observation: {buckets:?}");
    for (bucket, observed) in buckets.iter().zip([-5.0, 0.0, 1.0, 2.0, 3.0, 100.0]) {
        let number =
            |at: usize| bucket[at].as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number");
        assert!(number(1) <= observed && observed <= number(2), "{observed} in {bucket}");
        assert_eq!(number(3), 1.0, "{bucket}");
    }
    // Classic histograms remain classic.
    let classic = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n";
    assert_eq!(gateway.put("/metrics/job/classic", classic).status, 200);
    prometheus.wait_for_scrape();
    for (expression, value) in
        [("h_bucket{le=~\"1|1.0\"}", "1"), ("h_bucket{le=\"+Inf\"}", "4"), ("h_count", "4")]
    {
        let result = prometheus.query(expression).expect("a response");
        assert_eq!(
            result.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(),
            [value],
            "{expression}"
        );
    }
}

/// Prometheus stores its count and sum, as those of a classic histogram.
#[test]
#[ignore = "needs prometheus"]
fn without_native_histograms_prometheus_stores_a_classic_histogram() {
    let gateway = Gateway::start(&[]);
    let Some(prometheus) = Prometheus::start(gateway.port(), Native::Off) else { return };
    let response =
        gateway.request("PUT", "/metrics/job/native", protobuf_fields::CONTENT_TYPE, NATIVE_HISTOGRAM);
    assert_eq!(response.status, 200, "{}", response.text());
    prometheus.wait_for_scrape();
    for (expression, value) in [
        ("native_seconds_count", "6"),
        ("native_seconds_sum", "101"),
        ("native_seconds_bucket{le=\"+Inf\"}", "6"),
    ] {
        let result = prometheus.query(expression).expect("a response");
        assert_eq!(
            result.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(),
            [value],
            "{expression}"
        );
    }
}

#[test]
#[ignore = "needs prometheus"]
fn hostile_pushes_do_not_break_prometheus_scrapes() {
    let gateway = Gateway::start(&[]);
    let all: Vec<_> = [Native::Off, Native::On]
        .into_iter()
        .map_while(|native| Prometheus::start(gateway.port(), native))
        .collect();
    hostile_bodies::push_victim(&gateway);
    for push in hostile_bodies::all() {
        gateway.request("PUT", push.path, push.headers, &push.body);
    }
    // Prometheus has stored everything in the exposition; it has dropped nothing.
    let shown = scrape(&mut gateway.connect(), Encoding::Gzip);
    for prometheus in &all {
        prometheus.wait_for_scrape();
        for name in ["p_help", "p_le", "p_q", "v_rows", "push_failure_time_seconds", "push_time_seconds"] {
            let series = prometheus.query(&format!("count({name})")).expect("a response");
            let count = series.first().map_or("0", |(_, value)| value.as_str());
            assert_eq!(count, shown.samples(name).count().to_string(), "{name}");
        }
    }
}
