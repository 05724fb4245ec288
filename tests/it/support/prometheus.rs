//! A real Prometheus that scrapes a gateway with the recommended configuration (`honor_labels: true`), once a second.
//!
//! It is `prometheus` from the PATH unless `SLUICEGATE_TEST_PROMETHEUS` names another program, for example one built from
//! `tests/official`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::http_client::Connection;
use super::{free_port, skip, wait_for};

/// Longer than a start or a scrape takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether Prometheus scrapes native histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// It does not: native histograms arrive without buckets.
    Off,
    /// It does: it scrapes protobuf.
    On,
}

/// A running Prometheus. Dropping it kills the process and deletes its data.
pub struct Prometheus {
    port: u16,
    child: Child,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts Prometheus. `None`, with a reported skip, if it is not installed.
    pub fn start(target: u16, native: Native) -> Option<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let Some(version) = version() else {
            skip::report("prometheus", &format!("{} is not installed", program()));
            return None;
        };
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("prometheus-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a new folder");
        let mut config = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: gateway\n    honor_labels: true\n    \
             static_configs:\n      - targets: ['127.0.0.1:{target}']\n"
        );
        let mut flags = Vec::new();
        match (native, version) {
            (Native::Off, _) => {}
            (Native::On, 2) => flags.push("--enable-feature=native-histograms"),
            (Native::On, _) => config.push_str("    scrape_native_histograms: true\n"),
        }
        fs::write(folder.join("prometheus.yml"), config).expect("a writable folder");
        let log = fs::File::create(folder.join("log")).expect("a log file");
        let port = free_port();
        let child = Command::new(program())
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("a program that printed its version starts");
        Some(Self { port, child, folder })
    }

    /// The result of a query in JSON: series with a sample or a histogram each. `None` if there is no response.
    pub fn query_raw(&self, expression: &str) -> Option<Vec<Value>> {
        let escaped = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let response = self.get(&format!("/api/v1/query?query={escaped}"))?;
        Some(response["data"]["result"].as_array()?.clone())
    }

    /// The result of a query as labels and values. `None` if there is no response.
    pub fn query(&self, expression: &str) -> Option<Vec<(Value, String)>> {
        let result = self.query_raw(expression)?.into_iter();
        Some(
            result
                .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or_default().to_owned()))
                .collect(),
        )
    }

    /// Waits for the end of a scrape that began after this call. Panics if the scrape failed.
    pub fn wait_for_scrape(&self) {
        let last = || {
            let response = self.get("/api/v1/targets")?;
            let target = response["data"]["activeTargets"].as_array()?.first()?.clone();
            let time = target["lastScrape"].as_str().filter(|time| !time.starts_with("0001"))?.to_owned();
            Some((time, target["health"].clone(), target["lastError"].clone()))
        };
        let (before, ..) = wait_for("a first scrape", DEADLINE, last);
        // The next scrape to finish may have begun before this call; the one after it has not.
        let mut seen = before;
        for _ in 0..2 {
            let (time, health, error) =
                wait_for("the next scrape", DEADLINE, || last().filter(|(time, ..)| *time != seen));
            assert_eq!(health, "up", "a scrape failed: {error}");
            seen = time;
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let response = Connection::open(self.port).ok()?.request("GET", path, &[], b"").ok()?;
        serde_json::from_slice(&response.body).ok()
    }

    /// Prometheus's stdout and stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("Prometheus log:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn program() -> String {
    std::env::var("SLUICEGATE_TEST_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned())
}

/// The major version of the program; `None` if it is not installed.
fn version() -> Option<u32> {
    let output = match Command::new(program()).arg("--version").output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{} does not start: {error}", program()),
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let number = text.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
    Some(number.unwrap_or_else(|| panic!("no version in {text:?}")))
}
