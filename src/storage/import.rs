//! The persistence file of the official program → records, so that a gateway takes over what was pushed to the other.
//!
//! The file is read once, into a new store, and never written. If it is newer than a store that has groups already, the official
//! program has run since, and nobody but the operator can say which of the two counts: the start stops.
//!
//! Nothing is lost without a word: a group that this gateway would refuse stops the start, too, with all such groups named.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::encoding::encode_varint;
use sluicegate_engine::record::{Family, Record};
use sluicegate_gob::{GobError, Group};

use crate::config::StoreConfig;
use crate::exposition::model::Value;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf;
use crate::exposition::render::{Rendered, render};
use crate::shard::key::GroupingKey;
use crate::shard::{FAILURE_TIME, PUSH_TIME};

use super::record_writer::kind_of;

/// So many groups that cannot be taken over are named; all are counted.
const NAMED_MAX: usize = 20;

/// Groups by the text of their keys, with their encoded records.
pub type Records = Vec<(String, Vec<u8>)>;

/// Why nothing was taken over. The start must stop: to go on would hide groups.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The verb.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is something else in its place.
    #[error("{}: not a file, so neither a persistence file nor a place for one", file.display())]
    NotAFile {
        /// Its place.
        file: PathBuf,
    },
    /// The official program has run since.
    #[error(
        "{0} was written after the store in {1}, so the official program has run since. If {0} shall count, move {1} away: the \
         file is then taken over anew. If the store shall count, move {0} away",
        file.display(), store.display()
    )]
    Newer {
        /// The persistence file.
        file: PathBuf,
        /// The folder of our store.
        store: PathBuf,
    },
    /// It is no persistence file of a Pushgateway, or a damaged one.
    #[error(
        "{}: not a persistence file of the official program, or damaged: {error}. Put it back from a copy, or move it away to \
         start with nothing",
        file.display()
    )]
    Gob {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and where.
        error: GobError,
    },
    /// It has groups that this gateway refuses.
    #[error(
        "{}: {refused}. Delete these groups in the official program and start again, or move the file away to start with nothing",
        file.display()
    )]
    Groups {
        /// The file.
        file: PathBuf,
        /// The groups, and why.
        refused: Refused,
    },
}

/// Groups that cannot be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The first of them by grouping key, with the reason.
    pub groups: Vec<(String, String)>,
    /// How many there are.
    pub count: usize,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} groups cannot be taken over", self.count)?;
        for (index, (key, why)) in self.groups.iter().enumerate() {
            write!(out, "{} {{{key}}} ({why})", if index == 0 { ":" } else { "," })?;
        }
        if self.count > self.groups.len() {
            write!(out, " and {} more", self.count - self.groups.len())?;
        }
        Ok(())
    }
}

/// A persistence file that may be taken over.
#[derive(Debug)]
pub struct Official {
    /// `None`: there is none, or the store needs none.
    file: Option<PathBuf>,
}

impl Official {
    /// Looks for the file that the configuration names. Before the engine is opened: opening and restoring may write, and then the
    /// file would look older than it is.
    ///
    /// # Errors
    /// It is newer than the store, or cannot be looked at.
    pub fn look_for(store: &StoreConfig) -> Result<Self, ImportError> {
        let Some(file) = &store.import else { return Ok(Self { file: None }) };
        let error = |doing, file: &Path, source| ImportError::Io { file: file.to_owned(), doing, source };
        let found = match fs::metadata(file) {
            Ok(found) => found,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Self { file: None }),
            Err(source) => return Err(error("look at it", file, source)),
        };
        if !found.is_file() {
            return Err(ImportError::NotAFile { file: file.clone() });
        }
        if (store.engine.is_present)(&store.path) {
            let written = found.modified().map_err(|source| error("tell its age", file, source))?;
            let kept = newest(&store.path).map_err(|source| error("tell its age", &store.path, source))?;
            if kept.is_some_and(|kept| written > kept) {
                return Err(ImportError::Newer { file: file.clone(), store: store.path.clone() });
            }
        }
        Ok(Self { file: Some(file.clone()) })
    }

    /// The groups of the file, if the store shall have them. `is_new` says whether nothing was ever committed to it (the
    /// restored sequence is 0); a store whose groups were all deleted is not new. All records must be committed as one batch,
    /// else a crash could leave a part of them, and the store would not be new any more.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has groups that would be refused.
    pub fn records(self, is_new: bool) -> Result<Records, ImportError> {
        let Some(file) = self.file.filter(|_| is_new) else { return Ok(Records::new()) };
        let bytes = fs::read(&file).map_err(|source| ImportError::Io {
            file: file.clone(),
            doing: "read",
            source,
        })?;
        let records = records(&file, &bytes)?;
        tracing::info!(file = %file.display(), groups = records.len(), "taking over the official persistence file");
        Ok(records)
    }
}

/// When the last of the files in a folder was written.
fn newest(folder: &Path) -> io::Result<Option<SystemTime>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        newest = newest.max(Some(entry?.metadata()?.modified()?));
    }
    Ok(newest)
}

/// Makes records of the content of a persistence file; `file` is its name, for errors.
///
/// # Errors
/// It is damaged, or has groups that would be refused.
pub fn records(file: &Path, bytes: &[u8]) -> Result<Records, ImportError> {
    let groups =
        sluicegate_gob::read(bytes).map_err(|error| ImportError::Gob { file: file.to_owned(), error })?;
    let keys: Vec<GroupingKey> = groups.iter().map(key).collect();
    let known: HashSet<&str> = keys.iter().map(|key| &**key.text()).collect();
    let (mut records, mut refused) = (Records::with_capacity(groups.len()), Vec::new());
    for (key, group) in keys.iter().zip(&groups) {
        match record(key, group, &known) {
            Ok(record) => records.push((key.text().to_string(), record)),
            Err(why) => refused.push((key.text().to_string(), why)),
        }
    }
    if refused.is_empty() {
        return Ok(records);
    }
    let count = refused.len();
    refused.sort_unstable();
    refused.truncate(NAMED_MAX);
    Err(ImportError::Groups { file: file.to_owned(), refused: Refused { groups: refused, count } })
}

fn key(group: &Group<'_>) -> GroupingKey {
    GroupingKey::of_sorted(group.labels.iter().map(|(name, value)| (*name, *value)))
}

/// The encoded record of a group, or why it cannot be taken over.
fn record(key: &GroupingKey, group: &Group<'_>, known: &HashSet<&str>) -> Result<Vec<u8>, String> {
    if group.labels.get("job").is_none_or(|job| job.is_empty()) {
        return Err("it has no job".to_owned());
    }
    if let Some(name) = group.labels.keys().find(|name| name.is_empty() || name.starts_with("__")) {
        return Err(format!("improper label name {name:?}"));
    }
    if let Some(variant) = key.empty_instance_variant().filter(|variant| known.contains(&**variant.text())) {
        return Err(format!("it has the same push times as {{{}}}", variant.text()));
    }
    let rendered = rendered(key, group)?;
    let push_seconds = match time(group, PUSH_TIME)? {
        Some(seconds) => seconds,
        // A file without them: the last push that left a family is the last that is known of.
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
        let brought = group.families.get(name).map_or(0.0, |family| family.push_seconds);
        Family {
            name,
            kind: kind_of(family.kind),
            help: rendered.help(family),
            push_seconds: if brought > 0.0 { brought } else { push_seconds },
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
    record.encode(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The families of a group but both push times, as if they were pushed together.
fn rendered(key: &GroupingKey, group: &Group<'_>) -> Result<Rendered, String> {
    let (mut body, mut names) = (Vec::new(), Vec::new());
    for (name, family) in &group.families {
        if [PUSH_TIME, FAILURE_TIME].contains(name) {
            continue;
        }
        let Some(message) = family.protobuf else {
            // The official program passes over it, too: there is nothing in it.
            tracing::warn!(group = %key.text(), family = name, "the family has no content in the persistence file");
            continue;
        };
        encode_varint(message.len() as u64, &mut body);
        body.extend_from_slice(message);
        names.push(*name);
    }
    let families = protobuf::parse(&body, NameRules::Utf8).map_err(|error| error.to_string())?;
    // Of two families of one name only the last would be left.
    if !families.families.iter().map(|family| &*family.name).eq(names.iter().copied()) {
        return Err("a family bears another name than the one it is filed under".to_owned());
    }
    render(&families, &key.labels(), NameRules::Utf8, usize::MAX).map_err(|error| error.to_string())
}

/// The value of a push-time family.
fn time(group: &Group<'_>, name: &str) -> Result<Option<f64>, String> {
    let Some(message) = group.families.get(name).and_then(|family| family.protobuf) else { return Ok(None) };
    let families = protobuf::decode_family(message).map_err(|error| error.to_string())?;
    match families.metrics.first().map(|metric| &metric.value) {
        Some(Value::Single(seconds)) if seconds.is_finite() && *seconds >= 0.0 => Ok(Some(*seconds)),
        _ => Err(format!("{name} is no time")),
    }
}

#[cfg(test)]
mod tests;
