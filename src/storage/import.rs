//! The persistence file of the official program → records, so that a gateway can take over its groups.
//!
//! Each family goes through the same parser and renderer as a pushed one, so what comes out is what a push of it would have left. The
//! file is only read.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use sluicegate_backend::record::{Family, Record};

use crate::exposition::names::NameRules;
use crate::exposition::protobuf;
use crate::exposition::render::render;
use crate::shard::key::GroupingKey;
use crate::shard::stored::kind_of;
use crate::shard::{FAILURE_TIME, PUSH_TIME};

/// The text of a grouping key, and its encoded record.
pub type Imported = (String, Vec<u8>);

/// What a store shall take over from this file: nothing, if there is no file or the store is not new.
///
/// # Errors
/// The file cannot be read as one of the official program, or it was written after the store: then somebody has to say which of
/// the two counts. In words for the operator.
pub fn records(file: &Path, store: &Path, store_is_new: bool) -> Result<Vec<Imported>, String> {
    let Some(written) = written(file)? else { return Ok(Vec::new()) };
    if !store_is_new {
        return match newest(store).is_some_and(|kept| kept < written) {
            true => Err(format!(
                "{} was written after {}: the official program has run since. Move the one away whose groups shall not count, \
                 and start again",
                file.display(),
                store.display()
            )),
            false => Ok(Vec::new()),
        };
    }
    let in_file = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
    let bytes = fs::read(file).map_err(|error| in_file(&error))?;
    let groups = sluicegate_gob::read(&bytes).map_err(|error| {
        in_file(&format_args!(
            "not a persistence file of the official program, {error}; move it away to start without it"
        ))
    })?;
    groups.iter().map(|group| record(group).map_err(|why| in_file(&why))).collect()
}

/// When a file was written; `None` if it is none.
fn written(file: &Path) -> Result<Option<SystemTime>, String> {
    match fs::metadata(file) {
        Ok(found) if found.is_file() => Ok(found.modified().ok()),
        Ok(_) => Err(format!("{}: not a file", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// When the store was last written.
fn newest(store: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(store).ok()?;
    files.filter_map(|file| file.ok()?.metadata().ok()?.modified().ok()).max()
}

fn record(group: &sluicegate_gob::Group<'_>) -> Result<Imported, String> {
    let key =
        GroupingKey::new(group.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let of_group = |why: &dyn std::fmt::Display| format!("the group {{{}}}: {why}", key.text());
    let mut times = [0.0; 2];
    let mut bodies = Vec::new();
    for (name, family) in &group.families {
        let Some(message) = family.protobuf else {
            return Err(of_group(&format_args!("the family {name} is damaged")));
        };
        let mut body = Vec::with_capacity(message.len() + 4);
        prost::encoding::encode_varint(message.len() as u64, &mut body);
        body.extend_from_slice(message);
        match [PUSH_TIME, FAILURE_TIME].iter().position(|time| time == name) {
            Some(place) => times[place] = time(&body).map_err(|why| of_group(&why))?,
            None => bodies.push((family.push_seconds, body)),
        }
    }
    let (mut rendered, mut pushed) = (Vec::with_capacity(bodies.len()), Vec::new());
    for (push_seconds, body) in &bodies {
        let families = protobuf::parse(body, NameRules::Utf8).map_err(|why| of_group(&why))?;
        let lines = render(&families, &key.labels(), NameRules::Utf8, usize::MAX);
        rendered.push((*push_seconds, lines.map_err(|why| of_group(&why))?));
        pushed.push(*push_seconds);
    }
    let families = rendered.iter().flat_map(|(push_seconds, lines)| {
        lines.families().iter().map(|family| Family {
            name: lines.name(family),
            kind: kind_of(family.kind),
            help: lines.help(family),
            push_seconds: *push_seconds,
            text: lines.text(family),
            exact: lines.exact(family),
        })
    });
    let known = pushed.iter().chain(&times).copied().filter(|seconds| *seconds > 0.0);
    let record = Record {
        revision: 0,
        push_seconds: times[0],
        failure_seconds: times[1],
        created_seconds: known.fold(f64::INFINITY, f64::min).min(f64::MAX),
        expires_seconds: None,
        families: families.collect(),
    };
    let record = match record.created_seconds {
        f64::MAX => Record { created_seconds: 0.0, ..record },
        _ => record,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).map_err(|why| of_group(&why))?;
    Ok((key.text().to_string(), bytes))
}

/// The value of a push-time family.
fn time(body: &[u8]) -> Result<f64, String> {
    let families = protobuf::parse(body, NameRules::Legacy).map_err(|why| why.to_string())?;
    let lines = render(&families, &[], NameRules::Legacy, usize::MAX).map_err(|why| why.to_string())?;
    let line = lines.families().first().map(|family| lines.text(family)).unwrap_or_default();
    let value = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().rsplit_once(' '));
    value.and_then(|(_, value)| value.parse().ok()).ok_or_else(|| "a push time that is no number".to_owned())
}
