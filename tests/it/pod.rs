//! The gateway as the pod of the Helm chart `prometheus-community/prometheus-pushgateway` runs it, with the limits of the chart's own
//! test: user 65534, a read-only root, no capabilities, no new privileges, a seccomp filter without io_uring, 32 MiB, a tenth of a CPU.
//!
//! The test needs root and cgroups (version 1 or 2), and reports a skip without them. What a pod has and this test does not: an
//! image (the root is that of the machine), a network namespace, and the rest of the seccomp profile `RuntimeDefault`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;

use crate::support::gateway::program;
use crate::support::seccomp::without_io_uring;
use crate::support::{Gateway, skip};

const USER: u32 = 65534;
const MEMORY_BYTES: &str = "33554432";
const CGROUPS: &str = "/sys/fs/cgroup";

const CLIENTS: usize = 4;
const PUSHES: usize = 10;
const LINES: usize = 200;

/// Becomes the program in a pod. `$0` is the root of the pod, the first argument its volume, the second the list of cgroups.
const ENTER: &str = r#"
volume=$1; groups=$2; shift 2
for group in $groups; do echo $$ > "$group/cgroup.procs" || exit 1; done
mount --bind / "$0" && mount -o remount,bind,ro "$0" &&
mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && mount --rbind /dev "$0/dev" &&
mount --bind "$volume" "$0$volume" || exit 1
exec chroot "$0" setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"#;

/// Cgroups with the limits of the pod. Dropping them removes them.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    /// The reason if the machine does not allow them.
    fn new() -> Result<Self, String> {
        let name = format!("sluicegate-test-{}", std::process::id());
        let root = Path::new(CGROUPS);
        let limits: &[(PathBuf, &[(&str, &str)])] = if root.join("cgroup.controllers").exists() {
            // Fails if the controllers are enabled already, or cannot be.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu +memory");
            &[(root.join(name), &[("memory.max", MEMORY_BYTES), ("cpu.max", "10000 100000")])]
        } else {
            &[
                (root.join("memory").join(&name), &[("memory.limit_in_bytes", MEMORY_BYTES)]),
                (
                    root.join("cpu").join(&name),
                    &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "10000")],
                ),
            ]
        };
        let mut made = Self(Vec::new());
        for (folder, limits) in limits {
            fs::create_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            made.0.push(folder.clone());
            for (file, limit) in *limits {
                let file = folder.join(file);
                fs::write(&file, limit).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        Ok(made)
    }

    fn words(&self) -> String {
        let paths: Vec<_> = self.0.iter().map(|path| path.display().to_string()).collect();
        paths.join(" ")
    }

    /// How many processes the kernel killed for lack of memory.
    fn kills(&self) -> u64 {
        let text = ["memory.events", "memory.oom_control"]
            .iter()
            .find_map(|file| fs::read_to_string(self.0[0].join(file)).ok())
            .expect("the group counts them");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("the group counts them").parse().expect("a number")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A field of `/proc/PID/status`.
fn status(gateway: &Gateway, field: &str) -> String {
    let text =
        fs::read_to_string(format!("/proc/{}/status", gateway.pid().as_raw_nonzero())).expect("a process");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
}

#[test]
fn the_pod_of_the_helm_chart_serves_and_takes_pushes() {
    if !rustix::process::getuid().is_root() {
        return skip::report("cgroups", "only root may make cgroups and mount file systems");
    }
    let cgroups = match Cgroups::new() {
        Ok(cgroups) => cgroups,
        Err(reason) => return skip::report("cgroups", &format!("no cgroups: {reason}")),
    };
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    let (root, volume) = (folder.path().join("root"), folder.path().join("data"));
    for path in [&root, &volume] {
        fs::create_dir(path).expect("a folder");
    }
    chown(&volume, Some(USER), Some(USER)).expect("root may do that");
    // The path of the real program may not be accessible to the user.
    let copy = folder.path().join("pushgateway");
    fs::copy(program(), &copy).expect("a copy");
    let [root, volume, copy] = [&root, &volume, &copy].map(|path| path.display().to_string());
    let groups = cgroups.words();
    // Replaces the path of the real program, which the wrapper gets as its last argument.
    let run_copy = format!("shift; exec {copy} \"$@\"");
    let wrapper =
        ["unshare", "--mount", "sh", "-c", ENTER, &root, &volume, &groups, "sh", "-c", &run_copy, "sh"];
    let file = format!("--persistence.file={volume}/pushgateway.data");

    let mut gateway = without_io_uring(|| Gateway::start_by(&wrapper, &[&file]));
    let user = USER.to_string();
    assert_eq!(status(&gateway, "Uid").split_whitespace().next(), Some(user.as_str()));
    for (field, value) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
    ] {
        assert_eq!(status(&gateway, field), value, "{field}");
    }
    let body: String = (0..LINES).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (gateway, body) = (&gateway, &body);
            scope.spawn(move || {
                let mut connection = gateway.connect();
                for push in 0..PUSHES {
                    let path = format!("/metrics/job/j{client}-{push}");
                    let response =
                        connection.request("PUT", &path, &[], body.as_bytes()).expect("a response");
                    assert_eq!(response.status, 200, "{}", response.text());
                }
            });
        }
    });
    assert_eq!(gateway.scrape().samples("m").count(), CLIENTS * PUSHES * LINES);
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    assert_eq!(cgroups.kills(), 0);
    gateway.kill();

    let mut gateway = without_io_uring(|| Gateway::start_by(&wrapper, &[&file]));
    assert_eq!(gateway.scrape().samples("m").count(), CLIENTS * PUSHES * LINES, "the volume keeps them");
    assert!(gateway.stop().success(), "{}", gateway.log());
    assert_eq!(cgroups.kills(), 0);

    // The root is read-only.
    let elsewhere = format!("--persistence.file={}/elsewhere", folder.path().display());
    let (exit, log) = without_io_uring(|| Gateway::fails_to_start_by(&wrapper, &[&elsewhere]));
    assert!(!exit.success() && log.contains("Read-only file system"), "{log}");
}
