//! The gateway under load: where it is, what it uses, and, if the harness started it, its process.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::exposition::plain_value;
use crate::http::Client;

/// Ticks of `/proc/PID/stat` in a second: fixed on Linux for what programs see.
const TICKS: f64 = 100.0;
/// How long a start is tried again after a kill.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(120);

/// Where a gateway listens.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// As the `Host` header says it.
    pub host: String,
    /// In front of all paths; without a slash at its end.
    pub prefix: String,
}

impl Target {
    /// Reads `http://host:port/prefix`. What is not loopback must be `confirmed`.
    pub fn parse(url: &str, confirmed: bool) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("a target is http://HOST:PORT")?;
        let (host, prefix) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| {
            (host, format!("/{path}").trim_end_matches('/').to_owned())
        });
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let addresses = with_port.to_socket_addrs().with_context(|| format!("no address for {host}"))?;
        let address = addresses.min_by_key(|address| !address.ip().is_loopback()).context("no address")?;
        if !address.ip().is_loopback() && !confirmed {
            bail!("{url} is not this machine; confirm with --target-is-mine that you may load it");
        }
        Ok(Self { address, host: host.to_owned(), prefix })
    }

    /// A client beside the load.
    pub fn client(&self) -> Client {
        Client::new(self.address, &self.host, Duration::from_secs(30))
    }

    /// Whether `/-/ready` says so.
    pub fn is_ready(&self) -> bool {
        let mut client = Client::new(self.address, &self.host, Duration::from_secs(2));
        client.get(&format!("{}/-/ready", self.prefix)).is_ok_and(|answer| answer.status == 200)
    }

    /// CPU that the gateway says it used, in seconds.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let mut client = self.client();
        let answer = client.get(&format!("{}/metrics", self.prefix)).ok()?;
        plain_value(answer.body, "process_cpu_seconds_total")
    }
}

/// A gateway process of our own. It ends with this value.
pub struct Gateway {
    template: String,
    /// Where it listens.
    pub target: Target,
    folder: PathBuf,
    child: Child,
    /// CPU of earlier processes, which were killed.
    cpu_before: f64,
    /// Starts after a kill that did not succeed.
    pub starts_failed: usize,
}

impl Gateway {
    /// Starts it by a command in which `{port}` and `{dir}` are replaced, and waits until it is ready. The folder must exist.
    pub fn start(template: &str, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let target = Target::parse(&format!("http://127.0.0.1:{port}"), false)?;
        fs::create_dir_all(folder.join("data"))?;
        let child = spawn(template, port, folder)?;
        let mut gateway = Self {
            template: template.to_owned(),
            target,
            folder: folder.to_owned(),
            child,
            cpu_before: 0.0,
            starts_failed: 0,
        };
        gateway.becomes_ready()?;
        Ok(gateway)
    }

    /// Starts it again, after [`Gateway::kill`] or [`Gateway::stop`], in the same folder. Gives the time until it was ready.
    ///
    /// A start that fails is tried again, as whoever supervises it would: the system may hold on to the port or to a lock
    /// for a moment after a process was killed. [`Gateway::starts_failed`] counts them.
    pub fn start_again(&mut self) -> Result<Duration> {
        let first = Instant::now();
        loop {
            let begin = Instant::now();
            self.child = spawn(&self.template, self.target.address.port(), &self.folder)?;
            match self.becomes_ready() {
                Ok(()) => return Ok(begin.elapsed()),
                Err(error) if first.elapsed() > RESTART_MAX => return Err(error),
                Err(_) => self.starts_failed += 1,
            }
            self.kill_if_alive();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill_if_alive(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let used = self.cpu_seconds();
        self.child.kill()?;
        self.child.wait()?;
        self.cpu_before = used;
        Ok(())
    }

    /// SIGTERM, and SIGKILL if that does not help.
    pub fn stop(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > Duration::from_secs(60) {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// CPU of all its processes so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_before + process_cpu_seconds(&self.child.id().to_string()).unwrap_or(0.0)
    }

    /// Resident memory now.
    pub fn memory_bytes(&self) -> Option<u64> {
        memory_bytes(self.child.id())
    }

    /// What lies in its data folder.
    pub fn disk_bytes(&self) -> u64 {
        folder_bytes(&self.folder.join("data"))
    }

    fn becomes_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.target.is_ready() {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                bail!(
                    "the gateway ended ({status}): {}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            if begin.elapsed() > START_MAX {
                bail!("the gateway did not get ready in {START_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill_if_alive();
    }
}

/// A port below those that the system gives to clients: while the gateway is down, one of our own connections could
/// otherwise get its port, and even connect to itself.
fn free_port() -> Result<u16> {
    let begin = 12_000 + (std::process::id() % 18_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (begin..begin + 2_000).find(free).context("no port is free")
}

fn spawn(template: &str, port: u16, folder: &Path) -> Result<Child> {
    let data = folder.join("data");
    let words = template
        .split_whitespace()
        .map(|word| word.replace("{port}", &port.to_string()).replace("{dir}", &data.to_string_lossy()));
    let words: Vec<String> = words.collect();
    let (program, arguments) = words.split_first().context("an empty command")?;
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {program}"))
}

/// User and system time of a process, `self` for this one.
pub fn process_cpu_seconds(pid: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS)
}

/// Resident memory of a process.
pub fn memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Bytes that the files below a folder occupy.
pub fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// A folder that goes away with this value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one, below the system's folder for such things.
    pub fn new() -> Result<Self> {
        for number in 0..1000 {
            let path =
                std::env::temp_dir().join(format!("sluicegate-loadtest-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context("no folder for the gateway's data"),
            }
        }
        bail!("no name is free for a folder in {}", std::env::temp_dir().display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
