//! The real Prometheus, scraping a gateway as users are told to: `honor_labels: true`, once a second.
//!
//! `SLUICEGATE_TEST_PROMETHEUS` names another program than the `prometheus` on the PATH, for example one built from
//! `tests/official`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::http_client::Connection;
use super::{free_port, wait_for};

/// Longer than any scrape or start on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether native histograms are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// As they are without their buckets.
    Off,
    /// In protobuf, with their buckets.
    On,
}

/// A running Prometheus. Its process and data go with this value.
pub struct Prometheus {
    port: u16,
    child: Child,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts it. `None`, with a line that says so, where the program is not installed; where the variable CI is set that is
    /// a failure.
    pub fn start(target: u16, native: Native) -> Option<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let Some(version) = version() else {
            assert!(std::env::var_os("CI").is_none(), "{} is not installed", program());
            println!("SKIPPED: {} is not installed", program());
            return None;
        };
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("prometheus-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of its own");
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
        fs::write(folder.join("prometheus.yml"), config).expect("its configuration");
        let log = fs::File::create(folder.join("log")).expect("its log");
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
            .expect("a program that told its version starts");
        Some(Self { port, child, folder })
    }

    /// The result of a query: a sample or a histogram each, with its labels. `None` as long as it does not answer.
    pub fn query_raw(&self, expression: &str) -> Option<Vec<Value>> {
        let escaped = percent_encoding::utf8_percent_encode(expression, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.get(&format!("/api/v1/query?query={escaped}"))?;
        Some(answer["data"]["result"].as_array()?.clone())
    }

    /// The same for samples: each one's labels and its value.
    pub fn query(&self, expression: &str) -> Option<Vec<(Value, String)>> {
        let result = self.query_raw(expression)?.into_iter();
        Some(
            result
                .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or_default().to_owned()))
                .collect(),
        )
    }

    /// Waits for a whole scrape that began after this call; it must have gone well.
    pub fn wait_for_scrape(&self) {
        let last = || {
            let answer = self.get("/api/v1/targets")?;
            let target = answer["data"]["activeTargets"].as_array()?.first()?.clone();
            let time = target["lastScrape"].as_str().filter(|time| !time.starts_with("0001"))?.to_owned();
            Some((time, target["health"].clone(), target["lastError"].clone()))
        };
        let (before, ..) = wait_for("a first scrape", DEADLINE, last);
        // The one after the next one began after it.
        let mut seen = before;
        for _ in 0..2 {
            let (time, health, error) =
                wait_for("the next scrape", DEADLINE, || last().filter(|(time, ..)| *time != seen));
            assert_eq!(health, "up", "a scrape failed: {error}");
            seen = time;
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let answer = Connection::open(self.port).ok()?.request("GET", path, &[], b"").ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// What it has written.
    pub fn log(&self) -> String {
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

fn program() -> String {
    std::env::var("SLUICEGATE_TEST_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned())
}

/// The major version; `None` where there is no such program.
fn version() -> Option<u32> {
    let told = match Command::new(program()).arg("--version").output() {
        Ok(told) => told,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{} does not start: {error}", program()),
    };
    let told = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    let number = told.split("version ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
    Some(number.unwrap_or_else(|| panic!("no version in {told:?}")))
}
