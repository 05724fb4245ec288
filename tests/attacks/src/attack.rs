//! What an attack is. `attacks/` contains them all.

use anyhow::Result;

use crate::scene::Scene;

/// The attack itself: runs until [`Scene::is_over`], then closes its connections.
pub type Play = Box<dyn FnOnce(&Scene) + Send>;

/// One attack. The constructor's arguments are what each attack must have; the other methods declare exceptions.
pub struct Attack {
    /// For `--only`, unique.
    pub name: &'static str,
    /// What the attacker does, in a few words.
    pub what: &'static str,
    /// Builds the requests and stores what the attack needs. Not measured.
    pub prepare: fn(&Scene) -> Result<Play>,
    /// Upper bound of what the attack may leave stored, in MiB of memory.
    pub stores_mib: u64,
    /// Runs with `--persistence.file`.
    pub needs_store: bool,
    /// The gateway encrypts, and all clients use TLS.
    pub needs_tls: bool,
    /// Further flags for sluicegate.
    pub flags: &'static [&'static str],
    /// The reason why the official program is left out.
    pub sluicegate_only: Option<&'static str>,
    /// The attack deletes the groups of well-behaved clients, so scrapes may miss them.
    pub may_delete: bool,
    /// The gateway's limit on open descriptors.
    pub descriptors_max: Option<u64>,
    /// The gateway's stderr is a pipe that nobody reads.
    pub stderr_is_unread: bool,
}

impl Attack {
    /// An attack that stores nothing.
    pub const fn new(name: &'static str, what: &'static str, prepare: fn(&Scene) -> Result<Play>) -> Self {
        Self {
            name,
            what,
            prepare,
            stores_mib: 0,
            needs_store: false,
            needs_tls: false,
            flags: &[],
            sluicegate_only: None,
            may_delete: false,
            descriptors_max: None,
            stderr_is_unread: false,
        }
    }

    pub const fn stores_mib(self, stores_mib: u64) -> Self {
        Self { stores_mib, ..self }
    }

    pub const fn with_store(self) -> Self {
        Self { needs_store: true, ..self }
    }

    pub const fn with_tls(self) -> Self {
        Self { needs_tls: true, ..self }
    }

    pub const fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    pub const fn sluicegate_only(self, reason: &'static str) -> Self {
        Self { sluicegate_only: Some(reason), ..self }
    }

    pub const fn may_delete(self) -> Self {
        Self { may_delete: true, ..self }
    }

    pub const fn descriptors_max(self, limit: u64) -> Self {
        Self { descriptors_max: Some(limit), ..self }
    }

    pub const fn stderr_is_unread(self) -> Self {
        Self { stderr_is_unread: true, ..self }
    }
}
