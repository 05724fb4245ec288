//! The gateway under load: its address, its process if the load test started it, and the resources it uses.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use thiserror::Error;

use crate::exposition::plain_value;
use crate::http::Client;

/// Clock ticks per second in `/proc/PID/stat`; Linux fixes this value for user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a failed restart is repeated.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// How long a start may take until the gateway is ready.
const START_MAX: Duration = Duration::from_secs(120);
/// How long the gateway may take to exit after SIGTERM before it is killed.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Lines of the gateway's log that an error shows.
const LOG_LINES: usize = 5;

/// Why a gateway cannot be used.
#[derive(Debug, Error)]
pub enum GatewayError {
    #[error("invalid target {0}: expected http://HOST:PORT")]
    InvalidTarget(String),
    #[error("{host} does not resolve to an address")]
    Unresolved { host: String, source: Option<io::Error> },
    #[error("{0} is on another machine; confirm with --target-is-mine that you may put load on it")]
    Unconfirmed(String),
    #[error("the command of --gateway is empty")]
    EmptyCommand,
    #[error("cannot start {program}")]
    Spawn { program: String, source: io::Error },
    #[error("the gateway exited during start-up ({status}): {log}")]
    Exited { status: ExitStatus, log: String },
    #[error("the gateway was not ready after {START_MAX:?}")]
    NotReady,
    #[error("no free port from {from} to {to}")]
    NoPort { from: u16, to: u16 },
    #[error("cannot create a folder or a log file for the gateway")]
    Folder(#[source] io::Error),
    #[error("cannot signal the gateway or wait for it")]
    Process(#[from] io::Error),
}

/// Address of a gateway.
#[derive(Debug, Clone)]
pub struct Target {
    /// Socket address.
    pub address: SocketAddr,
    /// Value of the `Host` header.
    pub host: String,
    /// Prefix of all paths, without a trailing slash.
    pub prefix: String,
}

impl Target {
    /// Parses `http://HOST:PORT/PREFIX`. An address other than loopback requires `is_confirmed`.
    pub fn parse(url: &str, is_confirmed: bool) -> Result<Self, GatewayError> {
        let rest = url.strip_prefix("http://").ok_or_else(|| GatewayError::InvalidTarget(url.to_owned()))?;
        let (host, prefix) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| {
            (host, format!("/{path}").trim_end_matches('/').to_owned())
        });
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
        let unresolved = |source| GatewayError::Unresolved { host: host.to_owned(), source };
        let addresses = with_port.to_socket_addrs().map_err(|error| unresolved(Some(error)))?;
        let address = addresses.min_by_key(|address| !address.ip().is_loopback());
        let address = address.ok_or_else(|| unresolved(None))?;
        if !address.ip().is_loopback() && !is_confirmed {
            return Err(GatewayError::Unconfirmed(url.to_owned()));
        }
        Ok(Self { address, host: host.to_owned(), prefix })
    }

    /// A client for requests that are not part of the load.
    pub fn client(&self) -> Client {
        Client::new(self.address, &self.host, Duration::from_secs(30))
    }

    /// Whether `/-/ready` returns 200.
    pub fn is_ready(&self) -> bool {
        let mut client = Client::new(self.address, &self.host, Duration::from_secs(2));
        client.get(&format!("{}/-/ready", self.prefix)).is_ok_and(|response| response.status == 200)
    }

    /// CPU time that the gateway reports, in seconds.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let mut client = self.client();
        let response = client.get(&format!("{}/metrics", self.prefix)).ok()?;
        plain_value(response.body, "process_cpu_seconds_total")
    }
}

/// A temporary folder for the data and the log of a gateway; removed on drop.
pub struct GatewayFolder(TempDir);

impl GatewayFolder {
    /// Creates it in the system's folder for temporary files.
    pub fn new() -> Result<Self, GatewayError> {
        let folder = tempfile::Builder::new().prefix("sluicegate-loadtest-").tempdir();
        let folder = Self(folder.map_err(GatewayError::Folder)?);
        fs::create_dir(folder.data()).map_err(GatewayError::Folder)?;
        Ok(folder)
    }

    /// The folder that replaces `{dir}` in the command.
    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// The file that receives stdout and stderr.
    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }
}

/// A gateway process that the load test started; killed on drop.
pub struct Gateway<'f> {
    /// With `{port}` and `{dir}`.
    command: String,
    /// Its address.
    pub target: Target,
    folder: &'f GatewayFolder,
    child: Child,
    /// CPU time of earlier processes of this gateway, which were killed.
    cpu_seconds_before: f64,
    /// Restarts that failed and were repeated.
    pub starts_failed: usize,
}

impl<'f> Gateway<'f> {
    /// Starts the command, with `{port}` and `{dir}` replaced, and waits until the gateway is ready.
    pub fn start(command: &str, folder: &'f GatewayFolder) -> Result<Self, GatewayError> {
        let port = free_port()?;
        let target = Target::parse(&format!("http://127.0.0.1:{port}"), false)?;
        let mut gateway = Self {
            command: command.to_owned(),
            target,
            folder,
            child: spawn(command, port, folder)?,
            cpu_seconds_before: 0.0,
            starts_failed: 0,
        };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// Starts it again with the same port and data, after [`Gateway::kill`] or [`Gateway::stop`], and returns the time until
    /// it was ready.
    ///
    /// A start that fails is repeated, as a supervisor would do: the system may hold the port or a lock for a moment after a
    /// process was killed. [`Gateway::starts_failed`] counts these.
    pub fn restart(&mut self) -> Result<Duration, GatewayError> {
        let first = Instant::now();
        loop {
            let begin = Instant::now();
            self.child = spawn(&self.command, self.target.address.port(), self.folder)?;
            match self.wait_until_ready() {
                Ok(()) => return Ok(begin.elapsed()),
                Err(error) if first.elapsed() > RESTART_MAX => return Err(error),
                Err(_) => self.starts_failed += 1,
            }
            self.kill_if_alive();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill_if_alive(&mut self) {
        // Both fail only if the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) -> Result<(), GatewayError> {
        let used = self.cpu_seconds();
        self.child.kill()?;
        self.child.wait()?;
        self.cpu_seconds_before = used;
        Ok(())
    }

    /// Sends SIGTERM and waits for the exit; sends SIGKILL after [`STOP_MAX`].
    pub fn stop(&mut self) -> Result<(), GatewayError> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(io::Error::from)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > STOP_MAX {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// CPU time of all processes of this gateway so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_seconds_before + process_cpu_seconds(&self.child.id().to_string()).unwrap_or(0.0)
    }

    /// Resident memory.
    pub fn memory_bytes(&self) -> Option<u64> {
        process_memory_bytes(self.child.id())
    }

    /// Space that the files in its data folder occupy.
    pub fn disk_bytes(&self) -> u64 {
        folder_bytes(&self.folder.data())
    }

    fn wait_until_ready(&mut self) -> Result<(), GatewayError> {
        let begin = Instant::now();
        while !self.target.is_ready() {
            if let Some(status) = self.child.try_wait()? {
                return Err(GatewayError::Exited { status, log: self.end_of_log() });
            }
            if begin.elapsed() > START_MAX {
                return Err(GatewayError::NotReady);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.folder.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        self.kill_if_alive();
    }
}

/// A free port below the range that the kernel gives to outgoing connections. While the gateway is down, a connection of the
/// load test could otherwise get the gateway's port, and even connect to itself.
fn free_port() -> Result<u16, GatewayError> {
    let from = 12_000 + (std::process::id() % 18_000) as u16;
    let to = from + 2_000;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (from..to).find(is_free).ok_or(GatewayError::NoPort { from, to })
}

fn spawn(command: &str, port: u16, folder: &GatewayFolder) -> Result<Child, GatewayError> {
    let (port, data) = (port.to_string(), folder.data());
    let words = command
        .split_whitespace()
        .map(|word| word.replace("{port}", &port).replace("{dir}", &data.to_string_lossy()));
    let words: Vec<String> = words.collect();
    let (program, arguments) = words.split_first().ok_or(GatewayError::EmptyCommand)?;
    let log = File::options().create(true).append(true).open(folder.log()).map_err(GatewayError::Folder)?;
    let stdout = log.try_clone().map_err(GatewayError::Folder)?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .spawn()
        .map_err(|source| GatewayError::Spawn { program: program.clone(), source })
}

/// User and system time of a process; `self` is this process.
pub fn process_cpu_seconds(pid: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so the fields are counted from its end.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn process_memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Space that the files in a folder occupy.
fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
