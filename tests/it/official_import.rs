//! Import of a persistence file that the official program has just written: the groups are those that it exposed.
//!
//! Needs the official program: `cargo test --test it official_import:: -- --ignored`. It is `prometheus-pushgateway` from the
//! PATH unless `SLUICEGATE_TEST_OFFICIAL` names another program.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::exposition::Exposition;
use crate::support::http_client::Connection;
use crate::support::{free_port, skip, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use sluicegate::storage::import::records;
use sluicegate_engine::record::Record;

const PATIENCE: Duration = Duration::from_secs(20);
const NATIVE_HISTOGRAM: &[u8] = include_bytes!("support/native_histogram.bin");
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A running official program. Dropping it kills the process.
struct Official {
    port: u16,
    child: Child,
}

impl Official {
    /// Starts the official program. `None`, with a reported skip, if it is not installed.
    fn start(file: &Path) -> Option<Self> {
        let program =
            std::env::var("SLUICEGATE_TEST_OFFICIAL").unwrap_or_else(|_| "prometheus-pushgateway".to_owned());
        let port = free_port();
        let child = Command::new(&program)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--persistence.file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skip::report("pushgateway", &format!("{program} is not installed"));
                return None;
            }
            Err(error) => panic!("{program}: {error}"),
        };
        let official = Self { port, child };
        wait_for("the official program to be ready", PATIENCE, || {
            let response = official.request("GET", "/-/ready", &[], b"").ok()?;
            (response.0 == 200).then_some(())
        });
        Some(official)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<(u16, String)> {
        let response = Connection::open(self.port)?.request(method, path, headers, body)?;
        Ok((response.status, response.text()))
    }

    fn push(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8], status: u16) {
        let response = self.request(method, path, headers, body).expect("a response");
        assert_eq!(response.0, status, "{method} {path}: {}", response.1);
    }

    /// Sends SIGTERM and waits for the process to exit; it writes its file before.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("own child");
        wait_for("the official program to exit", PATIENCE, || self.child.try_wait().expect("own child"));
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        // Both fail only if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs the official program"]
fn all_groups_of_the_official_program_are_imported() {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let file = folder.path().join("gob");
    let Some(official) = Official::start(&file) else { return };
    let text = b"# TYPE c counter\n# HELP c With \\\\ and \\n.\nc{a=\"x\\\"\\\\\\n\"} 1e+100\nc NaN\n\
        # TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum -0.5\nh_count 3\n\
        # TYPE s summary\ns{quantile=\"0.5\"} 2\ns_sum 1\ns_count 9007199254740993\n\
        # TYPE g gauge\ng -0\nu 1\n";
    official.push("PUT", "/metrics/job/all/zone/e%20u", &[], text, 200);
    official.push("POST", "/metrics/job/all/zone/e%20u", &[], b"# TYPE g gauge\ng 2\nlater 1\n", 200);
    official.push("PUT", "/metrics/job/native", &[("Content-Type", PROTOBUF)], NATIVE_HISTOGRAM, 200);
    official.push("PUT", "/metrics/job@base64/YS_DvA/instance/i/empty@base64/=", &[], b"u 2\n", 200);
    official.push("PUT", "/metrics/job/nothing", &[], b"", 200);
    official.push("PUT", "/metrics/job/refused", &[], b"u 1 12345\n", 400);
    official.push("PUT", "/metrics/job/gone", &[], b"u 1\n", 200);
    official.push("DELETE", "/metrics/job/gone", &[], b"", 202);
    let shown = official.request("GET", "/metrics", &[], b"").expect("a response").1;
    official.stop();

    let content = std::fs::read(&file).expect("the official program has written its file");
    let records = records(&file, &content).expect("the file can be imported");
    let exposition = Exposition::parse(&shown).expect("a valid exposition");
    let (mut imported, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (key, bytes) in &records {
        let record = Record::decode(bytes).expect("a record");
        for family in &record.families {
            let lines = std::str::from_utf8(family.text).expect("lines are text");
            imported.extend(lines.lines().map(str::to_owned));
            names.insert(family.name.to_owned());
            let shown = exposition.family(family.name).expect("the family was exposed");
            assert_eq!(family.help, shown.help.as_deref().or(family.help.filter(|help| help.is_empty())));
            assert!(family.push_seconds > 0.0 && family.push_seconds <= record.push_seconds, "{key}");
            assert!(record.created_seconds <= family.push_seconds, "{key}");
        }
        for (name, seconds) in [
            ("push_time_seconds", record.push_seconds),
            ("push_failure_time_seconds", record.failure_seconds),
        ] {
            let job = key.split("job=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a job");
            let shown = exposition.value(name, &[("job", job)]).expect("the group was exposed");
            assert_eq!(shown.parse(), Ok(seconds), "{name} of {key}");
        }
    }
    let own = ["push_time_seconds", "push_failure_time_seconds"];
    let of_others = |name: &str| {
        name.starts_with("go_") || name.starts_with("process_") || name.starts_with("pushgateway_")
    };
    let pushed: Vec<_> = exposition.families.iter().map(|family| family.name.as_str()).collect();
    let pushed: BTreeSet<String> = pushed
        .into_iter()
        .filter(|name| !own.contains(name) && !of_others(name))
        .map(str::to_owned)
        .collect();
    assert_eq!(names, pushed);
    let lines: BTreeSet<String> = shown
        .lines()
        .filter(|line| !line.starts_with('#') && !of_others(line))
        .filter(|line| !own.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    assert_eq!(imported, lines);
    assert_eq!(records.len(), 5);
}
