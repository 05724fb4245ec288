//! The real Prometheus scrapes the gateway as users are told to: `honor_labels: true`, once a second.
//!
//! Needs `prometheus` on the PATH: `cargo test --test prometheus -- --ignored`. Without it the test says SKIPPED, but where
//! the variable CI is set it fails.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::http::Connection;
use support::{Gateway, free_port, wait_for};

/// Prometheus, gone when this value goes.
struct Prometheus {
    port: u16,
    child: Child,
    folder: PathBuf,
}

impl Prometheus {
    /// `None` where the program is not installed.
    fn start(target: u16) -> Option<Self> {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of its own");
        let config = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: gateway\n    honor_labels: true\n    \
             static_configs:\n      - targets: ['127.0.0.1:{target}']\n"
        );
        fs::write(folder.join("prometheus.yml"), config).expect("its configuration");
        let log = fs::File::create(folder.join("log")).expect("its log");
        let port = free_port();
        let child = Command::new("prometheus")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => Some(Self { port, child, folder }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("prometheus does not start: {error}"),
        }
    }

    /// The result of a query: each sample's labels and its value.
    fn query(&self, expression: &str) -> Option<Vec<(serde_json::Value, String)>> {
        let escaped = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/api/v1/query?query={escaped}");
        let answer = Connection::open(self.port).ok()?.request("GET", &path, &[], b"").ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let result = answer["data"]["result"].as_array()?.iter();
        Some(
            result
                .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or_default().to_owned()))
                .collect(),
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of Prometheus:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Passes connections on to the gateway and keeps the first bytes of what either side says.
fn listen_in(gateway: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
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
        // The other side may be gone already.
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
fn prometheus_sees_every_pushed_sample() {
    let gateway = Gateway::start(&[]);
    let (port, heads) = listen_in(gateway.port());
    let Some(prometheus) = Prometheus::start(port) else {
        assert!(std::env::var_os("CI").is_none(), "prometheus is not installed");
        println!("SKIPPED prometheus_sees_every_pushed_sample: prometheus is not installed");
        return;
    };
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
        ("h_bucket{job=\"backup\",le=\"1\"}", "1"),
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
        let result = prometheus.query(expression).expect("an answer");
        assert_eq!(result.len(), 1, "{expression}: {result:?}");
        assert_eq!(result[0].1, value, "{expression}");
    }
    // Labels are honoured: nothing of the gateway's own target is on the pushed series.
    for (labels, _) in prometheus.query("{__name__=~\"c|h_sum|s_sum|u\"}").expect("an answer") {
        assert_eq!(labels["job"], "backup");
        assert_eq!(labels.get("instance"), None, "an empty instance is no instance: {labels}");
    }

    let heads = heads.lock().expect("no panic while it was held");
    let asked =
        heads.iter().any(|head| head.starts_with("GET /metrics") && head.contains("Accept-Encoding: gzip"));
    let zipped =
        heads.iter().any(|head| head.to_ascii_lowercase().contains("\r\ncontent-encoding: gzip\r\n"));
    assert!(asked && zipped, "gzip was asked for: {asked}, sent: {zipped}");
    drop(heads);

    // A deleted group is stale at the next scrape.
    assert_eq!(gateway.delete("/metrics/job/many").status, 202);
    wait_for("the group to go", Duration::from_secs(30), || {
        prometheus.query("count(many)").filter(Vec::is_empty).map(|_| ())
    });
}
