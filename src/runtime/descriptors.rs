//! The limit of open descriptors, and how many connections fit below it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of the program itself: logs, signals, and the files of a store, also while it is compacted or restored.
const PROGRAM_DESCRIPTORS: usize = 40;
/// Descriptors of a core without its listeners: the driver's, and files that a thread of its own may open.
const CORE_DESCRIPTORS: usize = 6;
/// A listener has one descriptor to accept through the driver, and one to accept without it.
const LISTENER_DESCRIPTORS: usize = 2;
/// With fewer connections the gateway is of no use.
const CONNECTIONS_MIN: usize = 16;

/// The limit of open descriptors is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, but at least {needed} are needed; raise it (ulimit -n, LimitNOFILE=)"
)]
pub struct TooFewDescriptors {
    limit: usize,
    needed: usize,
}

/// Raises the soft limit to the hard limit. Returns the limit that applies then; `None` if there is none.
pub(crate) fn raise_limit() -> Option<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Without permission, the gateway runs with the present limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The most connections that the descriptors allow, besides those of the program, of `cores` cores with `addresses` listeners each, and
/// of connections that are about to close.
///
/// # Errors
/// If hardly any are left.
pub(crate) fn connections_max(
    limit: usize,
    cores: usize,
    addresses: usize,
) -> Result<usize, TooFewDescriptors> {
    let program = PROGRAM_DESCRIPTORS + cores * (CORE_DESCRIPTORS + addresses * LISTENER_DESCRIPTORS);
    let left = limit.saturating_sub(program);
    // Connections that wait for room, are rejected, or are about to close for others.
    let closing = left / 4;
    let connections = left - closing;
    if connections < CONNECTIONS_MIN {
        return Err(TooFewDescriptors { limit, needed: program + CONNECTIONS_MIN * 4 / 3 + 1 });
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_keeps_descriptors_of_its_own() {
        assert_eq!(connections_max(1024, 2, 1), Ok((1024 - 40 - 16) * 3 / 4));
        let error = connections_max(64, 2, 1).expect_err("the program needs more");
        assert_eq!(connections_max(error.needed, 2, 1).map(|max| max >= CONNECTIONS_MIN), Ok(true));
        assert!(connections_max(error.needed - 2, 2, 1).is_err());
    }
}
