//! The gateway under attack: its process, its memory, and its end.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process};
use tempfile::TempDir;

use crate::attack::Attack;
use crate::scene::exchange_once;
use crate::stream::Target;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the gateway may take to exit after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A gateway process; killed on drop.
pub struct Gateway {
    child: Child,
    folder: TempDir,
    pub target: Target,
}

/// A gateway's command, with `{port}` and `{dir}`.
#[derive(Debug, Clone)]
pub struct GatewayCommand {
    /// The name in reports.
    pub name: String,
    command: String,
}

impl GatewayCommand {
    /// Parses `[NAME=]COMMAND`.
    pub fn parse(text: &str) -> Self {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
        };
        match text.split_once('=') {
            Some((name, command)) if is_name(name) => {
                Self { name: name.to_owned(), command: command.to_owned() }
            }
            _ => Self { name: "gateway".to_owned(), command: text.to_owned() },
        }
    }

    /// Whether the program is sluicegate, which must withstand every attack. Others are only measured.
    pub fn is_sluicegate(&self) -> bool {
        let output = self
            .command
            .split_whitespace()
            .next()
            .map(|program| Command::new(program).arg("--version").output());
        let Some(Ok(output)) = output else { return false };
        output.stdout.starts_with(b"sluicegate")
    }
}

impl Gateway {
    /// Starts the gateway as the attack needs it, and waits until it is ready.
    pub fn start(command: &GatewayCommand, attack: &Attack, is_sluicegate: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-attacks-").tempdir()?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let port = free_port()?;
        let mut words: Vec<String> = command.command.split_whitespace().map(str::to_owned).collect();
        words.push("--web.enable-admin-api".to_owned());
        if attack.needs_store {
            words.push("--persistence.file={dir}/metrics".to_owned());
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = if attack.needs_tls {
            words.push(format!("--web.config.file={}", folder.path().join("web.yml").display()));
            Target::with_tls(address, folder.path())?
        } else {
            Target::plain(address)
        };
        if is_sluicegate {
            words.extend(attack.flags.iter().map(|&flag| flag.to_owned()));
        }
        let fill = |word: &String| {
            word.replace("{port}", &port.to_string()).replace("{dir}", &data.to_string_lossy())
        };
        let words: Vec<String> = words.iter().map(fill).collect();
        let log = File::create(folder.path().join("log"))?;
        let (program, arguments) = words.split_first().context("the command of --gateway is empty")?;
        let mut process = Command::new(program);
        process.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?);
        // A pipe that nobody reads stays open as long as the child is held.
        if attack.stderr_is_unread {
            process.stderr(Stdio::piped())
        } else {
            process.stderr(log)
        };
        let child = with_descriptor_limit(attack.descriptors_max, || process.spawn())
            .with_context(|| format!("cannot start {program}"))?;
        let mut gateway = Self { child, folder, target };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while exchange_once(&self.target, &crate::http::get("/-/ready"), Duration::from_secs(2)).ok()
            != Some(200)
        {
            if let Some(status) = self.exit_status() {
                bail!("the gateway exited during start-up ({status}): {}", self.log());
            }
            if begin.elapsed() > START_MAX {
                bail!("the gateway was not ready after {START_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The exit status, if the process has ended.
    pub fn exit_status(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(600)..]).into_owned()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        resident_bytes(self.id())
    }

    /// The peak of resident memory since [`Gateway::reset_peak`].
    pub fn memory_peak(&self) -> u64 {
        status_bytes(self.id(), "VmHWM:")
    }

    /// Begins a new measurement of the peak.
    pub fn reset_peak(&self) -> Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")
            .context("cannot reset the peak of memory")
    }

    /// User and system time so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }

    /// Sends SIGTERM and waits for the exit. An error says that the gateway did not exit, or not with status 0.
    pub fn stop(mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(|error| error.to_string())?;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(begin.elapsed()),
                Ok(Some(status)) => return Err(format!("after SIGTERM: {status}")),
                Ok(None) if begin.elapsed() < STOP_MAX => std::thread::sleep(Duration::from_millis(5)),
                _ => return Err(format!("still running {STOP_MAX:?} after SIGTERM")),
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process so far, in seconds.
pub fn cpu_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may contain anything, so the fields are counted from its end.
    let fields: Vec<f64> = text
        .rsplit_once(')')
        .map(|(_, rest)| {
            rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect()
        })
        .unwrap_or_default();
    fields.iter().sum::<f64>() / 100.0
}

/// Resident memory of a process, in bytes; 0 if it has ended.
pub fn resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmRSS:")
}

fn status_bytes(process: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Runs `spawn` while this process has a lower limit on descriptors, which the child inherits.
fn with_descriptor_limit<T>(limit: Option<u64>, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(limit) = limit else { return spawn() };
    let own = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: own.maximum })?;
    let child = spawn();
    rustix::process::setrlimit(Resource::Nofile, own)?;
    child
}

/// A free port below the range that the kernel gives to outgoing connections.
fn free_port() -> Result<u16> {
    let from = 12_000 + (std::process::id() % 18_000) as u16;
    let is_free = |port: &u16| {
        // A listener of another process refuses this; a connection attempt would also find one on all interfaces.
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            && TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err()
    };
    (from..from + 2_000).find(is_free).context("no free port")
}
