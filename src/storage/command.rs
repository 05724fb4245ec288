//! `sluicegate storage inspect|verify|migrate`, for stores that no gateway uses.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use jiff::Timestamp;
use sluicegate_engine::{EngineError, OpenOptions, Stats};
use sluicegate_store_tools::{MigrateError, Survey, migrate, survey};

use crate::config::{StorageCommand, StorePlace};

use super::engines::{OpenError, open_existing, open_or_create};
use super::progress::Progress;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine failed to read the store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The groups could not be copied.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The store contains records that are invalid.
    #[error("{}: the store has invalid records: {records}", path.display())]
    BadRecords {
        /// The number of invalid records.
        records: u64,
        /// The store.
        path: PathBuf,
    },
    /// The source and the target are the same folder.
    #[error("{}: the source and the target are the same store", path.display())]
    SameFolder {
        /// The store.
        path: PathBuf,
    },
    /// The summary could not be printed.
    #[error("cannot write the summary: {0}")]
    Output(#[from] io::Error),
}

/// Runs a command and prints a summary to `out`.
///
/// # Errors
/// The store does not exist, is damaged, or is in use, or the engine fails.
pub fn run(command: &StorageCommand, out: &mut dyn Write) -> Result<(), CommandError> {
    match command {
        StorageCommand::Inspect(store) => inspect(store, out),
        StorageCommand::Verify(store) => verify(store, out),
        StorageCommand::Migrate { from, to } => migrate_groups(from, to, out),
    }
}

fn inspect(store: &StorePlace, out: &mut dyn Write) -> Result<(), CommandError> {
    let (survey, stats) = read(store)?;
    write_store(out, store, &survey, &stats)?;
    write_content(out, &survey)?;
    write_warnings(out, &survey)
}

fn verify(store: &StorePlace, out: &mut dyn Write) -> Result<(), CommandError> {
    let (survey, _) = read(store)?;
    write_content(out, &survey)?;
    for bad in &survey.bad {
        writeln!(out, "bad record      {{{}}}: {}", bad.key, bad.error)?;
    }
    write_warnings(out, &survey)?;
    if survey.bad_records > 0 {
        return Err(CommandError::BadRecords { records: survey.bad_records, path: store.path.clone() });
    }
    match survey.restored.warnings.len() {
        0 => writeln!(out, "ok: every checksum and every record is valid")?,
        count => writeln!(out, "every record is valid; warnings: {count}")?,
    }
    Ok(())
}

fn migrate_groups(from: &StorePlace, to: &StorePlace, out: &mut dyn Write) -> Result<(), CommandError> {
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    if canonical(&from.path).is_some_and(|path| canonical(&to.path) == Some(path)) {
        return Err(CommandError::SameFolder { path: to.path.clone() });
    }
    let source = open_existing(from.engine, &from.path)?;
    let target = open_or_create(to.engine, &to.path, OpenOptions::default())?;
    let migrated = {
        let progress = Progress::new(file_bytes(&source.stats()));
        let progress = |phase, bytes| progress.add(phase, bytes);
        migrate(source, target, threads(), &progress)?
    };
    writeln!(out, "copied          {} groups", HumanCount(migrated.written))?;
    writeln!(out, "already there   {} groups", HumanCount(migrated.found))?;
    let total = migrated.total;
    writeln!(out, "in both         {} groups, {}", HumanCount(total.records), HumanBytes(total.bytes))?;
    writeln!(out, "checksum        {:032x}, the same in both", total.sum)?;
    Ok(())
}

/// Reads a whole store. Drops the engine without closing it, so that reading changes nothing.
fn read(store: &StorePlace) -> Result<(Survey, Stats), CommandError> {
    let store = open_existing(store.engine, &store.path)?;
    let progress = Progress::new(file_bytes(&store.stats()));
    let (engine, survey) = survey(store, threads(), &|phase, bytes| progress.add(phase, bytes))?;
    Ok((survey, engine.stats()))
}

fn file_bytes(stats: &Stats) -> u64 {
    stats.log_bytes.unwrap_or_default() + stats.archive_bytes
}

fn threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn write_store(out: &mut dyn Write, store: &StorePlace, survey: &Survey, stats: &Stats) -> io::Result<()> {
    writeln!(out, "store           {} ({})", store.path.display(), store.engine.name)?;
    let state =
        if survey.restored.closed { "closed" } else { "not closed: the gateway was killed or has crashed" };
    writeln!(out, "state           {state}")?;
    writeln!(
        out,
        "batches         {}, known to be on the disk up to {}",
        HumanCount(stats.sequence),
        HumanCount(stats.sequence_on_disk)
    )?;
    let Some(log_bytes) = stats.log_bytes else {
        return writeln!(out, "files           {}", HumanBytes(stats.archive_bytes));
    };
    writeln!(out, "log             {}", HumanBytes(log_bytes))?;
    let age = stats.archive_age_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let age = age.map(|age| format!(", written {} ago", HumanDuration(age))).unwrap_or_default();
    writeln!(out, "archives        {}{age}", HumanBytes(stats.archive_bytes))
}

fn write_content(out: &mut dyn Write, survey: &Survey) -> io::Result<()> {
    writeln!(
        out,
        "groups          {}, {}",
        HumanCount(survey.total.records),
        HumanBytes(survey.total.bytes)
    )?;
    writeln!(out, "families        {}", HumanCount(survey.families))?;
    writeln!(out, "lines           {}", HumanCount(survey.lines))?;
    if let Some((bytes, key)) = &survey.largest {
        writeln!(out, "largest group   {{{key}}}, {}", HumanBytes(*bytes))?;
    }
    if let Some((first, last)) = survey.pushes_seconds {
        writeln!(out, "last pushes     from {} to {}", time_text(first), time_text(last))?;
    }
    writeln!(out, "checksum        {:032x}", survey.total.sum)
}

fn write_warnings(out: &mut dyn Write, survey: &Survey) -> Result<(), CommandError> {
    for warning in &survey.restored.warnings {
        writeln!(out, "warning         {warning}")?;
    }
    Ok(())
}

/// A time in RFC 3339, or the number of seconds if it is out of the range of dates.
fn time_text(unix_seconds: f64) -> String {
    match Timestamp::from_second(unix_seconds as i64) {
        Ok(at) => at.to_string(),
        Err(_) => unix_seconds.to_string(),
    }
}
