//! `process_*`: what the kernel tells of this process, read when metrics are gathered.
//!
//! What cannot be read (no `/proc`, another format, no right) makes its family absent; it never fails a scrape.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::metrics::{OwnFamily, OwnSample, OwnValue};
use super::names;

/// The families that can be told, sorted by name.
pub(super) fn families() -> Vec<OwnFamily> {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
    let network = fs::read_to_string("/proc/self/net/netstat").ok().and_then(|text| Network::parse(&text));
    // Never changes, and the file is long where there are many processors.
    static BOOT_TIME: OnceLock<Option<u64>> = OnceLock::new();
    let boot_time =
        *BOOT_TIME.get_or_init(|| fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)));
    let ticks = clock_ticks_per_second() as f64;
    // As in the official program, no limit is shown as the largest number.
    let limit = |resource| Some(getrlimit(resource).current.unwrap_or(u64::MAX) as f64);
    let stat = stat.as_ref();
    let network = network.as_ref();

    [
        (names::PROCESS_CPU, stat.map(|stat| (stat.user_ticks + stat.system_ticks) as f64 / ticks)),
        (names::PROCESS_MAX_FDS, limit(Resource::Nofile)),
        (names::PROCESS_NETWORK_RECEIVED, network.map(|network| network.received_bytes as f64)),
        (names::PROCESS_NETWORK_SENT, network.map(|network| network.sent_bytes as f64)),
        (names::PROCESS_OPEN_FDS, open_fds()),
        (names::PROCESS_RESIDENT_MEMORY, stat.map(|stat| stat.resident_pages as f64 * page_size() as f64)),
        (
            names::PROCESS_START_TIME,
            stat.zip(boot_time).map(|(stat, boot)| boot as f64 + stat.start_ticks as f64 / ticks),
        ),
        (names::PROCESS_VIRTUAL_MEMORY, stat.map(|stat| stat.virtual_bytes as f64)),
        (names::PROCESS_VIRTUAL_MEMORY_MAX, limit(Resource::As)),
    ]
    .into_iter()
    .filter_map(|(name, value)| family(name, value?))
    .collect()
}

fn family(name: &'static str, value: f64) -> Option<OwnFamily> {
    let &names::Description { name, help, kind } = names::describe(name)?;
    let samples = vec![OwnSample { labels: Vec::new(), value: OwnValue::Single(value) }];
    Some(OwnFamily { name, help, kind, samples })
}

/// Since Linux 6.2 the size of the folder is the number of open files. To count the entries, as one must before, takes
/// milliseconds where there are thousands of connections.
fn open_fds() -> Option<f64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).map(|metadata| metadata.size()) {
        Ok(count) if count > 0 => Some(count as f64),
        // The folder that is read is open itself.
        _ => Some(fs::read_dir(folder).ok()?.count().saturating_sub(1) as f64),
    }
}

/// The parts of `/proc/self/stat` that are shown, see proc_pid_stat(5).
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
        // The second field is the name of the program in parentheses. It may contain blanks and parentheses.
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

/// The bytes of `/proc/self/net/netstat`. They are those of the network namespace: in a container, of the container.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    received_bytes: u64,
    sent_bytes: u64,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        // Two lines, first names, then values.
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

/// When the machine was started, in seconds since 1970, from `/proc/stat`.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_program_name_may_look_like_fields() {
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
    fn bytes_are_found_by_name() {
        let text = "TcpExt: InOctets A\nTcpExt: 9 9\nIpExt: X InOctets OutOctets\nIpExt: 1 20 30\n";
        assert_eq!(Network::parse(text), Some(Network { received_bytes: 20, sent_bytes: 30 }));
        assert_eq!(Network::parse("IpExt: X InOctets\nIpExt: 1 2\n"), None);
        assert_eq!(Network::parse("IpExt: InOctets OutOctets\n"), None);
        assert_eq!(boot_time("cpu 1\nbtime 1795476023\nx"), Some(1_795_476_023));
        assert_eq!(boot_time("cpu 1\n"), None);
    }

    #[test]
    fn this_process_is_plausible() {
        let families = families();
        assert!(families.is_sorted_by(|a, b| a.name < b.name));
        let value = |name: &str| {
            let family =
                families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"));
            match family.samples[0].value {
                OwnValue::Single(value) => value,
                OwnValue::Summary { .. } => panic!("a summary"),
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((now - value(names::PROCESS_START_TIME)).abs() < 86_400.0);
        assert!(value(names::PROCESS_RESIDENT_MEMORY) > 100_000.0);
        assert!(value(names::PROCESS_VIRTUAL_MEMORY) >= value(names::PROCESS_RESIDENT_MEMORY));
        assert!(value(names::PROCESS_OPEN_FDS) >= 3.0);
        assert!(value(names::PROCESS_MAX_FDS) >= value(names::PROCESS_OPEN_FDS));
        assert!(value(names::PROCESS_CPU) >= 0.0);
    }
}
