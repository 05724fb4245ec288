//! How much memory the process may use, according to cgroups (versions 1 and 2) and the machine, and the return of freed memory.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::system::allocator;
use crate::telemetry::faults;

const MOUNT: &str = "/sys/fs/cgroup";
/// Larger blocks return to the operating system when they are freed.
const LARGE_BLOCK_BYTES: i32 = 1 << 20;
/// How often smaller ones return.
const RETURN_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a return that took long, in multiples of its duration: cores that allocate may wait for it.
const PAUSES: u32 = 4;

/// Lets freed memory return to the operating system, instead of being kept for later by the C library.
///
/// # Errors
/// If the thread that returns small blocks cannot be started.
pub(crate) fn return_freed() -> io::Result<()> {
    allocator::set_return_bytes(LARGE_BLOCK_BYTES);
    faults::spawn("memory", || {
        loop {
            let begin = Instant::now();
            allocator::trim();
            sleep((begin.elapsed() * PAUSES).max(RETURN_INTERVAL));
        }
    })?;
    Ok(())
}

/// The smallest limit of memory that applies to the process, in bytes; `None` if none can be read.
pub(crate) fn available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    smallest_limit(&groups, Path::new(MOUNT)).into_iter().chain(machine).min()
}

/// The smallest limit in the hierarchies that `/proc/self/cgroup` lists. Groups without a limit have `max`, or a number beyond any machine.
fn smallest_limit(groups: &str, mount: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of(line, mount)).min()
}

/// The smallest limit of one line (`number:controllers:path`) and the groups above it.
fn limit_of(line: &str, mount: &Path) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (root, file) = if controllers.is_empty() {
        (mount.to_owned(), "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (mount.join(controllers), "memory.limit_in_bytes")
    } else {
        return None;
    };
    // In a container the path may be that on the host, which does not exist here; then only the root has a file.
    let folder = root.join(path.trim_start_matches('/'));
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(&root));
    folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

/// `MemTotal` of `/proc/meminfo` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("the file is in a folder")).expect("the folder is writable");
        fs::write(path, text).expect("the folder is writable");
    }

    #[test]
    fn the_smallest_limit_of_the_hierarchy_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path();
        write(root, "a/memory.max", "536870912\n");
        write(root, "a/b/memory.max", "max\n");
        write(root, "memory/memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "memory/c/memory.limit_in_bytes", "1048576\n");
        let limit = |groups: &str| smallest_limit(groups, root);
        assert_eq!(limit("0::/a/b\n"), Some(512 << 20));
        assert_eq!(limit("0::/a/missing/b\n"), Some(512 << 20));
        assert_eq!(limit("4:memory:/c\n3:cpu:/a\n0::/a\n"), Some(1 << 20));
        assert_eq!(limit("4:memory:/unseen/path\n"), Some(9_223_372_036_854_771_712));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("nonsense\n:\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
