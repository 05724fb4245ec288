//! Checks whether each scrape is a consistent snapshot over all groups. A scrape may be correct for each group by itself and
//! still show a push to one group, but not an earlier push to another group that had been acknowledged before.

use std::collections::HashMap;

use super::group_history::HistoryIndex;
use super::{Findings, explain};
use crate::history::{NEVER, Observation, Operation, Outcome, Request, unpack_slot};
use crate::schema::{GroupId, PushId, Schema};
use crate::violation::{Violation, ViolationKind};

/// The requests to a group, sorted by start.
type Requests<'a> = Vec<(PushId, &'a Request)>;

/// Bounds on the time of a snapshot, each with the push that proves it.
#[derive(Clone, Copy, Default)]
struct SnapshotTime {
    /// The snapshot is not earlier than the start of this push, which it shows.
    earliest: Option<(u64, PushId)>,
    /// The snapshot is not later than the response to this request, whose effect it does not show.
    latest: Option<(u64, PushId)>,
}

impl SnapshotTime {
    fn limit_latest(&mut self, latest: Option<(u64, PushId)>) {
        self.latest = match (self.latest, latest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Counts the scrapes that are no consistent snapshot, and explains the first of them.
pub fn check(index: &HistoryIndex<'_>, schema: &Schema, findings: &mut Findings) {
    let mut requests: HashMap<GroupId, Requests<'_>> = HashMap::new();
    for (scraper, log) in index.history.scrape_logs.iter().enumerate() {
        let mut times = vec![SnapshotTime::default(); log.scrapes.len()];
        for observation in &log.observations {
            let requests = requests.entry(observation.group).or_insert_with(|| {
                let mut requests: Vec<_> = index.requests(observation.group).collect();
                requests.sort_unstable_by_key(|(_, request)| request.start);
                requests
            });
            let slots = schema
                .class(observation.group)
                .map(|class| log.slots(observation, class.slot_count))
                .unwrap_or_default();
            let own = time_of_observation(index, schema, observation, slots, requests);
            for time in &mut times[observation.first as usize..=observation.last as usize] {
                time.earliest = time.earliest.max(own.earliest);
                time.limit_latest(own.latest);
            }
        }
        for (at, time) in times.iter().enumerate() {
            let (Some(earliest), Some(latest)) = (time.earliest, time.latest) else { continue };
            if earliest.0 > latest.0 {
                findings.torn_scrapes += 1;
                if findings.torn_scrape.is_none() {
                    findings.torn_scrape =
                        Some(explain_torn(index, schema, scraper, at, earliest.1, latest.1));
                }
            }
        }
    }
}

/// The bounds that one observation gives to its scrapes.
fn time_of_observation(
    index: &HistoryIndex<'_>,
    schema: &Schema,
    observation: &Observation,
    slots: &[u64],
    requests: &Requests<'_>,
) -> SnapshotTime {
    let mut time = SnapshotTime::default();
    for (slot, value) in slots.iter().enumerate() {
        let Some((push, _)) = unpack_slot(*value) else { continue };
        let Some(shown) = index.history.request(push).filter(|shown| shown.group == observation.group) else {
            continue;
        };
        time.earliest = time.earliest.max(Some((shown.start, push)));
        if shown.end == NEVER {
            continue;
        }
        let from = requests.partition_point(|(_, request)| request.start <= shown.end);
        for (later, request) in &requests[from..] {
            if time.latest.is_some_and(|(end, _)| end <= request.start) {
                break;
            }
            if request.outcome == Outcome::Accepted && overwrites(schema, request, slot) {
                time.limit_latest(Some((request.end, *later)));
            }
        }
    }
    time
}

/// Whether an accepted request replaces or removes the content of a slot.
fn overwrites(schema: &Schema, request: &Request, slot: usize) -> bool {
    match request.operation {
        Operation::Put | Operation::Delete => true,
        Operation::Post => schema.type_in_slot(request.group, usize::from(request.shape), slot).is_some(),
        Operation::Malformed | Operation::Inconsistent => false,
    }
}

fn explain_torn(
    index: &HistoryIndex<'_>,
    schema: &Schema,
    scraper: usize,
    scrape: usize,
    shown: PushId,
    missing: PushId,
) -> Violation {
    let line = |push: PushId| {
        let request = index.history.request(push).expect("it was indexed");
        explain::request(schema, request, push.writer(), push.sequence().unwrap_or_default())
    };
    let scrape = index.history.scrape_logs[scraper].scrapes[scrape];
    let text = format!("scrape: shows push {shown}, but not the effect of request {missing}");
    let story = vec![line(missing), line(shown), explain::line(scrape.start, scrape.end, &text)];
    Violation { kind: ViolationKind::TornScrape, group: None, story }
}
