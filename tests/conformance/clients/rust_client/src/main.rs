//! Pushes with the crate `prometheus`, which sends protobuf. Usage: rust_client HOST:PORT
//!
//! The crate has no DELETE and rejects values with `/`, so the program sends DELETE itself, as users of the crate do. It sends
//! a value with a slash as base64 under a label name with @base64, which the crate passes on.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use prometheus::{Counter, Gauge, HistogramOpts, IntCounter, Registry};

const JOB: &str = "rust job";
const PATH: &str = "/metrics/job/rust%20job/text/gr%C3%B6%C3%9Fe%201/path@base64/L3Zhci90bXA=/none@base64/=";
/// The grouping key in a scrape.
const GROUP: &str = r#"instance="",job="rust job",none="",path="/var/tmp",text="größe 1""#;

fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    write!(stream, "{request} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("a request can be sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response in UTF-8");
    response
}

fn shows(address: &str, line: &str) -> bool {
    http(address, "GET /metrics").lines().any(|shown| shown == line)
}

fn main() {
    let address = std::env::args().nth(1).expect("usage: rust_client HOST:PORT");
    let registry = Registry::new();
    let rows = IntCounter::new("rs_rows_total", "Rows.").expect("a valid counter");
    let kept = Gauge::new("rs_kept", "Kept by an add.").expect("a valid gauge");
    let sizes =
        prometheus::Histogram::with_opts(HistogramOpts::new("rs_sizes", "Sizes.").buckets(vec![1.0, 5.0]))
            .expect("a valid histogram");
    for collector in [
        Box::new(rows.clone()) as Box<dyn prometheus::core::Collector>,
        Box::new(kept.clone()),
        Box::new(sizes.clone()),
    ] {
        registry.register(collector).expect("names are unique");
    }
    rows.inc_by(3);
    kept.set(-0.5);
    sizes.observe(2.0);
    let grouping = || -> HashMap<String, String> {
        [("text", "größe 1"), ("path@base64", "L3Zhci90bXA="), ("none@base64", "=")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };

    prometheus::push_metrics(JOB, grouping(), &address, registry.gather(), None).expect("a push");
    for line in [
        format!("rs_rows_total{{{GROUP}}} 3"),
        format!("rs_kept{{{GROUP}}} -0.5"),
        format!("rs_sizes_bucket{{{GROUP},le=\"5\"}} 1"),
        format!("rs_sizes_bucket{{{GROUP},le=\"+Inf\"}} 1"),
        "# HELP rs_sizes Sizes.".to_owned(),
    ] {
        assert!(shows(&address, &line), "missing after a push: {line}");
    }

    rows.inc();
    prometheus::push_add_collector(JOB, grouping(), &address, vec![Box::new(rows)], None).expect("an add");
    assert!(shows(&address, &format!("rs_rows_total{{{GROUP}}} 4")), "an add replaces its family");
    assert!(shows(&address, &format!("rs_kept{{{GROUP}}} -0.5")), "an add keeps the others");

    let only = Counter::new("rs_only_total", "Alone.").expect("a valid counter");
    prometheus::push_collector(JOB, grouping(), &address, vec![Box::new(only)], None).expect("a push");
    assert!(shows(&address, &format!("rs_only_total{{{GROUP}}} 0")), "a push sends its families");
    assert!(!http(&address, "GET /metrics").contains("rs_kept{"), "a push removes other families");

    let slash = [("path".to_owned(), "/var/tmp".to_owned())].into();
    let rejected = prometheus::push_metrics::<std::collections::hash_map::RandomState>(
        JOB,
        slash,
        &address,
        registry.gather(),
        None,
    );
    assert!(rejected.is_err(), "the crate now accepts values with a slash: use one in this program");

    let response = http(&address, &format!("DELETE {PATH}"));
    assert!(response.contains(" 202 "), "{response}");
    let gone = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        !http(&address, "GET /metrics").contains("rs_only_total")
    });
    assert!(gone, "the deleted group is still there");
    println!("rust client: ok");
}
