//! Import of the official persistence file, so that a gateway continues with the groups of the official program.
//!
//! The file is read once, into a new store, and never written. If it is newer than a store that already contains groups, the
//! official program has run since then, and only the operator can decide which of the two to use: the gateway does not start.
//!
//! No group is lost silently: the gateway does not start either if it would reject a group of the file, and lists all such groups.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use prost::encoding::encode_varint;
use sluicegate_engine::record::{Family, Record, RecordError};
use sluicegate_gob::{GobError, Group};

use crate::config::StoreConfig;
use crate::exposition::memory::Unlimited;
use crate::exposition::model::Value;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::{self, ProtobufError};
use crate::exposition::render::{RenderError, Rendered, render};
use crate::shard::key::GroupingKey;
use crate::shard::{FAILURE_TIME, PUSH_TIME};

use super::record_writer::kind_of;

/// How many rejected groups an error lists. It counts all of them.
const LISTED_MAX: usize = 20;

/// Groups by the text of their keys, with their encoded records.
pub type Records = Vec<(String, Vec<u8>)>;

/// Why nothing was imported. The gateway must not start, because the groups of the file would be missing.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An operation of the operating system failed.
    #[error("{}: cannot {doing}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What failed: `read`, …
        doing: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The path is not a file.
    #[error("{}: not a regular file, so it cannot be a persistence file", file.display())]
    NotAFile {
        /// The path.
        file: PathBuf,
    },
    /// The official program has run since the store was written.
    #[error(
        "{0} is newer than the store in {1}, so the official program has run since then. To use the file, move {1} away: the \
         file is then imported again. To use the store, move {0} away",
        file.display(), store.display()
    )]
    Newer {
        /// The persistence file.
        file: PathBuf,
        /// The folder of the store.
        store: PathBuf,
    },
    /// The file is not a persistence file, or is damaged.
    #[error(
        "{}: not a persistence file of the official program, or damaged: {error}. Restore it from a backup, or move it away to \
         start with an empty store",
        file.display()
    )]
    Gob {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        #[source]
        error: GobError,
    },
    /// The file contains groups that this gateway rejects.
    #[error(
        "{}: {rejected}. Delete these groups in the official program and start again, or move the file away to start with an \
         empty store",
        file.display()
    )]
    Groups {
        /// The file.
        file: PathBuf,
        /// The groups and the reasons.
        rejected: RejectedGroups,
    },
}

/// Groups that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedGroups {
    /// The first of them by grouping key, each with the reason.
    pub groups: Vec<(String, String)>,
    /// How many there are.
    pub count: usize,
}

impl fmt::Display for RejectedGroups {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} groups cannot be imported", self.count)?;
        for (index, (key, reason)) in self.groups.iter().enumerate() {
            write!(out, "{} {{{key}}} ({reason})", if index == 0 { ":" } else { "," })?;
        }
        if self.count > self.groups.len() {
            write!(out, " and {} more", self.count - self.groups.len())?;
        }
        Ok(())
    }
}

/// Why a group cannot be imported.
#[derive(Debug, thiserror::Error)]
enum GroupError {
    #[error("no job")]
    NoJob,
    #[error("improper label name {0:?}")]
    LabelName(String),
    #[error("same push times as {{{0}}}")]
    SamePushTimes(Arc<str>),
    #[error("the name of a family differs from its key")]
    FamilyName,
    #[error("{0} is not a time")]
    NotATime(&'static str),
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A persistence file that may be imported.
#[derive(Debug)]
pub(crate) struct OfficialFile {
    /// `None` if the file does not exist or is empty, or the configuration names none.
    file: Option<PathBuf>,
}

impl OfficialFile {
    /// Finds the file that the configuration names. Must be called before the engine is opened: opening and restoring may write,
    /// and then the store would look newer than it is.
    ///
    /// # Errors
    /// The file is newer than the store, or its properties cannot be read.
    pub(crate) fn find(store: &StoreConfig) -> Result<Self, ImportError> {
        let Some(file) = &store.import else { return Ok(Self { file: None }) };
        let error = |doing, file: &Path, source| ImportError::Io { file: file.to_owned(), doing, source };
        let found = match fs::metadata(file) {
            Ok(found) => found,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Self { file: None }),
            Err(source) => return Err(error("read its properties", file, source)),
        };
        if !found.is_file() {
            return Err(ImportError::NotAFile { file: file.clone() });
        }
        // As configuration management creates it for the official program.
        if found.len() == 0 {
            return Ok(Self { file: None });
        }
        if (store.engine.is_present)(&store.path) {
            let written =
                found.modified().map_err(|source| error("read its modification time", file, source))?;
            let stored = newest(&store.path)
                .map_err(|source| error("read its modification time", &store.path, source))?;
            if stored.is_some_and(|stored| written > stored) {
                return Err(ImportError::Newer { file: file.clone(), store: store.path.clone() });
            }
        }
        Ok(Self { file: Some(file.clone()) })
    }

    /// The groups of the file, if the store is new: nothing was ever committed to it, so the restored sequence is 0. A store
    /// whose groups were all deleted is not new. The caller must commit all records as one batch; otherwise a crash could leave
    /// a part of them in a store that is no longer new.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or contains groups that the gateway rejects.
    pub(crate) fn records(self, is_new: bool) -> Result<Records, ImportError> {
        let Some(file) = self.file.filter(|_| is_new) else { return Ok(Records::new()) };
        let bytes = fs::read(&file).map_err(|source| ImportError::Io {
            file: file.clone(),
            doing: "read",
            source,
        })?;
        let records = records(&file, &bytes)?;
        tracing::info!(file = %file.display(), groups = records.len(), "importing the official persistence file");
        Ok(records)
    }
}

/// The latest modification time of a file in a folder.
fn newest(folder: &Path) -> io::Result<Option<SystemTime>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        newest = newest.max(Some(entry?.metadata()?.modified()?));
    }
    Ok(newest)
}

/// Converts the content of a persistence file to records. `file` is its name, for errors.
///
/// # Errors
/// The content is damaged, or contains groups that the gateway rejects.
pub fn records(file: &Path, bytes: &[u8]) -> Result<Records, ImportError> {
    let groups =
        sluicegate_gob::read(bytes).map_err(|error| ImportError::Gob { file: file.to_owned(), error })?;
    let keys: Vec<GroupingKey> = groups.iter().map(key).collect();
    let known: HashSet<&str> = keys.iter().map(|key| &**key.text()).collect();
    let (mut records, mut rejected) = (Records::with_capacity(groups.len()), Vec::new());
    for (key, group) in keys.iter().zip(&groups) {
        match record(key, group, &known) {
            Ok(record) => records.push((key.text().to_string(), record)),
            Err(reason) => rejected.push((key.text().to_string(), reason.to_string())),
        }
    }
    if rejected.is_empty() {
        return Ok(records);
    }
    let count = rejected.len();
    rejected.sort_unstable();
    rejected.truncate(LISTED_MAX);
    Err(ImportError::Groups { file: file.to_owned(), rejected: RejectedGroups { groups: rejected, count } })
}

fn key(group: &Group<'_>) -> GroupingKey {
    GroupingKey::of_sorted(group.labels.iter().map(|(name, value)| (*name, *value)))
}

/// The encoded record of a group. `known` contains the keys of all groups of the file.
fn record(key: &GroupingKey, group: &Group<'_>, known: &HashSet<&str>) -> Result<Vec<u8>, GroupError> {
    if group.labels.get("job").is_none_or(|job| job.is_empty()) {
        return Err(GroupError::NoJob);
    }
    if let Some(name) = group.labels.keys().find(|name| name.is_empty() || name.starts_with("__")) {
        return Err(GroupError::LabelName((*name).to_owned()));
    }
    if let Some(variant) = key.empty_instance_variant().filter(|variant| known.contains(&**variant.text())) {
        return Err(GroupError::SamePushTimes(variant.text().clone()));
    }
    let rendered = rendered(key, group)?;
    let push_seconds = match time(group, PUSH_TIME)? {
        Some(seconds) => seconds,
        // A file without push times: the last known push is the latest one that set a family.
        None => {
            let pushed = group.families.iter().filter(|(name, _)| **name != FAILURE_TIME);
            pushed.map(|(_, family)| family.push_seconds).fold(0.0, f64::max)
        }
    };
    let failure_seconds = time(group, FAILURE_TIME)?.unwrap_or_default();
    let times = group.families.values().map(|family| family.push_seconds);
    let created_seconds =
        times.chain([push_seconds, failure_seconds]).filter(|at| *at > 0.0).reduce(f64::min);
    let families = rendered.families().iter().map(|family| {
        let name = rendered.name(family);
        let set_seconds = group.families.get(name).map_or(0.0, |family| family.push_seconds);
        Family {
            name,
            kind: kind_of(family.kind),
            help: rendered.help(family),
            push_seconds: if set_seconds > 0.0 { set_seconds } else { push_seconds },
            text: rendered.text(family),
            exact: rendered.exact(family),
        }
    });
    let record = Record {
        revision: 0,
        push_seconds,
        failure_seconds,
        created_seconds: created_seconds.unwrap_or_default(),
        expires_seconds: None,
        families: families.collect(),
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes)?;
    Ok(bytes)
}

/// The families of a group except the push times, rendered as if they were pushed together.
fn rendered(key: &GroupingKey, group: &Group<'_>) -> Result<Rendered, GroupError> {
    let (mut body, mut names) = (Vec::new(), Vec::new());
    for (name, family) in &group.families {
        if [PUSH_TIME, FAILURE_TIME].contains(name) {
            continue;
        }
        let Some(message) = family.protobuf else {
            // The official program skips such a family, too.
            tracing::warn!(group = %key.text(), family = name, "skipping a family without content in the persistence file");
            continue;
        };
        encode_varint(message.len() as u64, &mut body);
        body.extend_from_slice(message);
        names.push(*name);
    }
    let families = protobuf::parse_within(&body, NameRules::Utf8, &key.labels(), &mut Unlimited)?;
    // Of two families with one name, only the last would remain.
    if !families.families.iter().map(|family| &*family.name).eq(names.iter().copied()) {
        return Err(GroupError::FamilyName);
    }
    Ok(render(&families, &key.labels(), NameRules::Utf8, usize::MAX)?)
}

/// The value of a push-time family.
fn time(group: &Group<'_>, name: &'static str) -> Result<Option<f64>, GroupError> {
    let Some(message) = group.families.get(name).and_then(|family| family.protobuf) else { return Ok(None) };
    let families = protobuf::decode_family(message)?;
    match families.metrics.first().map(|metric| &metric.value) {
        Some(Value::Single(seconds)) if seconds.is_finite() && *seconds >= 0.0 => Ok(Some(*seconds)),
        _ => Err(GroupError::NotATime(name)),
    }
}

#[cfg(test)]
mod tests;
