//! `process_*`: what the kernel reports about this process, read when metrics are gathered.
//!
//! The values are kept for a second, because reading them takes longer than everything else about a scrape of which nothing has
//! changed. A scraper that comes at most once a second gets values of that moment.
//!
//! If a value cannot be read (no `/proc`, another format, no permission), its family is absent and the scrape continues.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::own_metric::OwnMetric;
use super::recorder::{OwnFamily, OwnSample, OwnValue};

const CPU_SECONDS: OwnMetric =
    OwnMetric::counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
const MAX_FDS: OwnMetric = OwnMetric::gauge("process_max_fds", "Maximum number of open file descriptors.");
const NETWORK_RECEIVED: OwnMetric = OwnMetric::counter(
    "process_network_receive_bytes_total",
    "Number of bytes received by the process over the network.",
);
const NETWORK_SENT: OwnMetric = OwnMetric::counter(
    "process_network_transmit_bytes_total",
    "Number of bytes sent by the process over the network.",
);
const OPEN_FDS: OwnMetric = OwnMetric::gauge("process_open_fds", "Number of open file descriptors.");
const RESIDENT_MEMORY: OwnMetric =
    OwnMetric::gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
const START_TIME: OwnMetric =
    OwnMetric::gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.");
const VIRTUAL_MEMORY: OwnMetric =
    OwnMetric::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.");
const VIRTUAL_MEMORY_MAX: OwnMetric = OwnMetric::gauge(
    "process_virtual_memory_max_bytes",
    "Maximum amount of virtual memory available in bytes.",
);

/// Families about the process, with the names and help of the official program.
pub const METRICS: &[OwnMetric] = &[
    CPU_SECONDS,
    MAX_FDS,
    NETWORK_RECEIVED,
    NETWORK_SENT,
    OPEN_FDS,
    RESIDENT_MEMORY,
    START_TIME,
    VIRTUAL_MEMORY,
    VIRTUAL_MEMORY_MAX,
];

/// How long values are kept.
const KEPT: Duration = Duration::from_secs(1);

/// Returns the families whose values can be read, as they are or were at most a second ago.
pub(super) fn families() -> Vec<OwnFamily> {
    static RECENT: Recent = Recent(Mutex::new(None));
    RECENT.get(Instant::now(), read)
}

/// The last values, and when they were read.
struct Recent(Mutex<Option<(Instant, Vec<OwnFamily>)>>);

impl Recent {
    fn get(&self, now: Instant, read: impl FnOnce() -> Vec<OwnFamily>) -> Vec<OwnFamily> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*recent {
            // Another thread may have read the clock later.
            Some((read_at, families)) if now.saturating_duration_since(*read_at) < KEPT => families.clone(),
            _ => recent.insert((now, read())).1.clone(),
        }
    }
}

fn read() -> Vec<OwnFamily> {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
    let network = fs::read_to_string("/proc/self/net/netstat").ok().and_then(|text| Network::parse(&text));
    // Read once: it never changes, and the file is long on a machine with many processors.
    static BOOT_TIME: OnceLock<Option<u64>> = OnceLock::new();
    let boot_time =
        *BOOT_TIME.get_or_init(|| fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)));
    let ticks = clock_ticks_per_second() as f64;
    // The official program shows the largest number if there is no limit.
    let limit = |resource| Some(getrlimit(resource).current.unwrap_or(u64::MAX) as f64);
    let stat = stat.as_ref();
    let network = network.as_ref();

    [
        (CPU_SECONDS, stat.map(|stat| (stat.user_ticks + stat.system_ticks) as f64 / ticks)),
        (MAX_FDS, limit(Resource::Nofile)),
        (NETWORK_RECEIVED, network.map(|network| network.received_bytes as f64)),
        (NETWORK_SENT, network.map(|network| network.sent_bytes as f64)),
        (OPEN_FDS, open_fds()),
        (RESIDENT_MEMORY, stat.map(|stat| stat.resident_pages as f64 * page_size() as f64)),
        (START_TIME, stat.zip(boot_time).map(|(stat, boot)| boot as f64 + stat.start_ticks as f64 / ticks)),
        (VIRTUAL_MEMORY, stat.map(|stat| stat.virtual_bytes as f64)),
        (VIRTUAL_MEMORY_MAX, limit(Resource::As)),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some(family(metric, value?)))
    .collect()
}

pub(super) fn family(OwnMetric { name, help, kind, .. }: OwnMetric, value: f64) -> OwnFamily {
    let samples = vec![OwnSample { labels: Vec::new(), value: OwnValue::Single(value) }];
    OwnFamily { name, help, kind, samples }
}

/// Since Linux 6.2, the size of the folder is the number of open files. Older kernels need the entries to be counted, which takes
/// milliseconds with thousands of connections.
fn open_fds() -> Option<f64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).map(|metadata| metadata.size()) {
        Ok(count) if count > 0 => Some(count as f64),
        // Reading the folder opens one more file.
        _ => Some(fs::read_dir(folder).ok()?.count().saturating_sub(1) as f64),
    }
}

/// The fields of `/proc/self/stat` that are shown, see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may itself contain spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse().ok();
        Some(Self {
            user_ticks: number(14)?,
            system_ticks: number(15)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

/// The byte counts of `/proc/self/net/netstat`. They belong to the network namespace, so in a container to the whole container.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    received_bytes: u64,
    sent_bytes: u64,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        // The first line has the names, the second the values.
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let value = |wanted: &str| {
            let (_, value) =
                names.split_whitespace().zip(values.split_whitespace()).find(|(name, _)| *name == wanted)?;
            value.parse().ok()
        };
        Some(Self { received_bytes: value("InOctets")?, sent_bytes: value("OutOctets")? })
    }
}

/// Parses the time when the machine was started, in Unix seconds, from `/proc/stat`.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_program_name_may_contain_fields_and_parentheses() {
        let text =
            "7 (a) R 1 (b c) S 1 2 3 4 5 6 7 8 9 10 31 32 15 16 17 18 19 20 42 4096 5 18446744073709551615 1";
        let expected = Stat {
            user_ticks: 31,
            system_ticks: 32,
            start_ticks: 42,
            virtual_bytes: 4096,
            resident_pages: 5,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn finds_byte_counts_and_boot_time_by_name() {
        let text = "TcpExt: InOctets A\nTcpExt: 9 9\nIpExt: X InOctets OutOctets\nIpExt: 1 20 30\n";
        assert_eq!(Network::parse(text), Some(Network { received_bytes: 20, sent_bytes: 30 }));
        assert_eq!(Network::parse("IpExt: X InOctets\nIpExt: 1 2\n"), None);
        assert_eq!(Network::parse("IpExt: InOctets OutOctets\n"), None);
        assert_eq!(boot_time("cpu 1\nbtime 1795476023\nx"), Some(1_795_476_023));
        assert_eq!(boot_time("cpu 1\n"), None);
    }

    #[test]
    fn values_are_kept_for_a_second() {
        let recent = Recent(Mutex::new(None));
        let start = Instant::now();
        let read = |value| move || vec![family(OPEN_FDS, value)];
        assert_eq!(recent.get(start, read(1.0)), read(1.0)());
        assert_eq!(recent.get(start + KEPT - Duration::from_nanos(1), read(2.0)), read(1.0)());
        assert_eq!(recent.get(start + KEPT, read(3.0)), read(3.0)());
        assert_eq!(recent.get(start, read(4.0)), read(3.0)());
    }

    #[test]
    fn the_values_of_this_process_are_plausible() {
        let families = read();
        assert!(families.is_sorted_by(|a, b| a.name < b.name));
        let value = |OwnMetric { name, .. }: OwnMetric| {
            let family =
                families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"));
            match family.samples[0].value {
                OwnValue::Single(value) => value,
                OwnValue::Summary { .. } => panic!("{name} is a summary"),
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((now - value(START_TIME)).abs() < 86_400.0);
        assert!(value(RESIDENT_MEMORY) > 100_000.0);
        assert!(value(VIRTUAL_MEMORY) >= value(RESIDENT_MEMORY));
        assert!(value(OPEN_FDS) >= 3.0);
        assert!(value(MAX_FDS) >= value(OPEN_FDS));
        assert!(value(CPU_SECONDS) >= 0.0);
    }
}
