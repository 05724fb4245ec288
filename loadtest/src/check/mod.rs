//! The checker: decides whether a correct gateway could have produced a [`History`].
//!
//! Pure: no IO and no clock. For each group, [`group_history`] lists what happened to it, [`linearize`] decides whether one
//! order of the requests explains what the scrapes showed, and [`shrink`] and [`explain`] turn a history without such an
//! order into a short report. [`snapshot`] compares all groups of each scrape.

mod explain;
mod group_history;
mod linearize;
#[cfg(test)]
mod reference;
mod shrink;
mod snapshot;
mod state;

use serde::Serialize;

use crate::history::{History, Operation, Outcome};
use crate::schema::{GroupId, Schema};
use crate::violation::{Violation, ViolationKind};

/// Configurations that the search keeps at a time before it leaves an interval undecided.
const CONFIGURATIONS_MAX: usize = 50_000;
/// Violations that are explained; further ones are counted.
const EXPLAINED_MAX: usize = 20;

/// Result of the checker.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// The first [`EXPLAINED_MAX`] violations.
    pub violations: Vec<Violation>,
    /// Number of all violations.
    pub violations_total: usize,
    /// Scrapes that show a push, but not an earlier push to *another* group that had been acknowledged before. Each group by
    /// itself is correct, so this is a violation only on request.
    pub torn_scrapes: usize,
    /// The first of these scrapes.
    pub torn_scrape: Option<Violation>,
    /// Groups checked.
    pub groups: usize,
    /// Requests checked.
    pub requests: usize,
    /// Scrapes checked.
    pub scrapes: usize,
    /// States of groups in all scrapes.
    pub observations: u64,
    /// Intervals with too many possible orders to decide.
    pub undecided: usize,
}

impl Findings {
    fn add(&mut self, violation: Violation) {
        self.violations_total += 1;
        if self.violations.len() < EXPLAINED_MAX {
            self.violations.push(violation);
        }
    }

    /// Adds the findings about other groups.
    fn merge(&mut self, other: Self) {
        self.violations_total += other.violations_total;
        let space = EXPLAINED_MAX.saturating_sub(self.violations.len());
        self.violations.extend(other.violations.into_iter().take(space));
        self.groups += other.groups;
        self.undecided += other.undecided;
    }
}

/// Checks a whole run on `threads` threads.
pub fn check(history: &History, schema: &Schema, threads: usize) -> Findings {
    let mut findings = Findings {
        requests: history.requests.iter().map(Vec::len).sum(),
        scrapes: history.scrape_logs.iter().map(|log| log.scrapes.len()).sum(),
        ..Findings::default()
    };
    check_scrapes(history, &mut findings);
    check_responses(history, schema, &mut findings);
    let index = group_history::HistoryIndex::new(history);
    for part in check_groups(&index, schema, threads) {
        findings.merge(part);
    }
    snapshot::check(&index, schema, &mut findings);
    findings
}

/// Counts the observations and reports the flaws that were found while reading the scrapes.
fn check_scrapes(history: &History, findings: &mut Findings) {
    for log in &history.scrape_logs {
        let scrapes = log.observations.iter().map(|seen| u64::from(seen.last - seen.first) + 1);
        findings.observations += scrapes.sum::<u64>();
        for flaw in &log.flaws {
            let line = explain::line(flaw.scrape.start, flaw.scrape.end, &format!("scrape: {}", flaw.text));
            findings.add(Violation { kind: flaw.kind, group: None, story: vec![line] });
        }
        findings.violations_total += log.flaws_dropped;
    }
}

/// Reports responses that are wrong whatever the state of the group was.
fn check_responses(history: &History, schema: &Schema, findings: &mut Findings) {
    for (writer, requests) in history.requests.iter().enumerate() {
        for (sequence, request) in requests.iter().enumerate() {
            let must_fail = request.operation.is_invalid();
            let may_conflict = || schema.is_contested(request.group, usize::from(request.shape));
            let kind = match (request.operation, request.outcome) {
                (_, Outcome::Accepted) if must_fail => ViolationKind::InvalidPushAccepted,
                (Operation::Malformed, Outcome::Inconsistent)
                | (Operation::Inconsistent, Outcome::Rejected) => ViolationKind::WrongRejection,
                (_, Outcome::Rejected) if !must_fail => ViolationKind::ValidPushRejected,
                (_, Outcome::Inconsistent) if !must_fail && !may_conflict() => {
                    ViolationKind::ValidPushRejected
                }
                _ => continue,
            };
            let story = vec![explain::request(schema, request, writer, sequence)];
            findings.add(Violation { kind, group: Some(request.group.to_string()), story });
        }
    }
}

/// Checks each group by itself, on several threads.
fn check_groups(index: &group_history::HistoryIndex<'_>, schema: &Schema, threads: usize) -> Vec<Findings> {
    let groups = index.groups();
    let share = groups.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let threads = groups.chunks(share).map(|groups| {
            scope.spawn(move || {
                let mut findings = Findings::default();
                for group in groups {
                    check_group(index, schema, *group, &mut findings);
                }
                findings
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("the checker does not panic")).collect()
    })
}

fn check_group(
    index: &group_history::HistoryIndex<'_>,
    schema: &Schema,
    group: GroupId,
    findings: &mut Findings,
) {
    findings.groups += 1;
    let history = index.group_history(schema, group, findings);
    let initial = linearize::InitialState::Absent;
    match linearize::decide(history.slot_count, &history.actions, initial, CONFIGURATIONS_MAX) {
        linearize::Verdict::Linearizable { undecided } => findings.undecided += undecided,
        linearize::Verdict::Violation { action } => {
            let needed = shrink::shrink(history.slot_count, &history.actions, action);
            findings.add(explain::violation(schema, index.history, group, &history, &needed));
        }
    }
}
