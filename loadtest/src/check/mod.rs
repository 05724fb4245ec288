//! Is what the gateway showed true? Takes a [`History`] and gives [`Findings`].
//!
//! PURE: no IO, no clock. For each group by itself: [`group_history`] makes the list of what happened to it, [`linearize`] decides
//! whether one order explains it, [`shrink`] finds the smallest part that still shows what is wrong. [`snapshot`] looks at each
//! scrape over all groups.

mod explain;
mod group_history;
mod linearize;
#[cfg(test)]
mod reference;
mod shrink;
mod snapshot;

use serde::Serialize;

use crate::history::{Answer, Ask, History};
use crate::schema::{Group, Layout};

/// Ways that the engine follows at a time before it gives up on a stretch.
const WAYS_MAX: usize = 50_000;
/// Violations that are explained; the others are counted.
const EXPLAINED_MAX: usize = 20;

/// Something that cannot be true of a correct gateway.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which kind: `lost push`, `stale`, `revived group`, `half a push`, `two types`, `push time`, `refused push shown`,
    /// `phantom`, `bad push taken`, `good push refused`, `lost in a kill`, `torn scrape`.
    pub kind: &'static str,
    /// Of which group.
    pub group: Option<String>,
    /// The smallest history that shows it, a line for each request or scrape, in the order of time.
    pub story: Vec<String>,
}

/// What the checker found.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// The first ones, explained.
    pub violations: Vec<Violation>,
    /// How many there are.
    pub violations_total: usize,
    /// Scrapes that showed a push but not one that had been answered before that push was sent, to *another* group. Each
    /// group by itself was true. A gateway need not promise more.
    pub torn_scrapes: usize,
    /// The first of them, explained.
    pub torn_scrape: Option<Violation>,
    /// Groups looked at.
    pub groups: usize,
    /// Requests looked at.
    pub requests: usize,
    /// Scrapes looked at.
    pub scrapes: usize,
    /// Times that a group was seen.
    pub sights: u64,
    /// Stretches with too much at once to be decided.
    pub undecided: usize,
}

impl Findings {
    fn add(&mut self, violation: Violation) {
        self.violations_total += 1;
        if self.violations.len() < EXPLAINED_MAX {
            self.violations.push(violation);
        }
    }

    fn merge(&mut self, other: Self) {
        self.violations_total += other.violations_total;
        let room = EXPLAINED_MAX.saturating_sub(self.violations.len());
        self.violations.extend(other.violations.into_iter().take(room));
        self.groups += other.groups;
        self.undecided += other.undecided;
    }
}

/// Checks a whole run on `threads` threads.
pub fn check(history: &History, layout: &Layout, threads: usize) -> Findings {
    let mut findings = Findings {
        requests: history.requests.iter().map(Vec::len).sum(),
        scrapes: history.scrapes.iter().map(|scrapes| scrapes.times.len()).sum(),
        ..Findings::default()
    };
    for scrapes in &history.scrapes {
        let seen = |sight: &crate::history::Sight| u64::from(sight.last - sight.first) + 1;
        findings.sights += scrapes.sights.iter().map(seen).sum::<u64>();
        for flaw in &scrapes.flaws {
            let story =
                vec![explain::line(flaw.scrape.start, flaw.scrape.end, &format!("scrape: {}", flaw.text))];
            findings.add(Violation { kind: flaw.kind, group: None, story });
        }
        findings.violations_total += scrapes.flaws_dropped;
    }
    answers(history, layout, &mut findings);
    let index = group_history::Index::new(history);
    let groups = index.groups();
    let share = groups.len().div_ceil(threads.max(1)).max(1);
    let parts: Vec<Findings> = std::thread::scope(|scope| {
        let index = &index;
        let work = groups.chunks(share).map(|groups| {
            scope.spawn(move || {
                let mut findings = Findings::default();
                for group in groups {
                    check_group(index, layout, *group, &mut findings);
                }
                findings
            })
        });
        let work: Vec<_> = work.collect();
        work.into_iter().map(|part| part.join().expect("the checker does not panic")).collect()
    });
    for part in parts {
        findings.merge(part);
    }
    snapshot::check(&index, layout, &mut findings);
    findings
}

/// Answers that are wrong by themselves.
fn answers(history: &History, layout: &Layout, findings: &mut Findings) {
    for (writer, requests) in history.requests.iter().enumerate() {
        for (sequence, request) in requests.iter().enumerate() {
            let bad = matches!(request.ask, Ask::Garbage | Ask::Inconsistent);
            let contested = || {
                layout.class(request.group).is_some_and(|class| class.contested(usize::from(request.shape)))
            };
            let kind = match (request.ask, request.answer) {
                (_, Answer::Done) if bad => "bad push taken",
                (Ask::Garbage, Answer::Refused) => "bad push misunderstood",
                (Ask::Inconsistent, Answer::Rejected) => "bad push misunderstood",
                (_, Answer::Rejected) if !bad => "good push refused",
                (_, Answer::Refused) if !bad && !contested() => "good push refused",
                _ => continue,
            };
            let story = vec![explain::request(layout, request, writer, sequence)];
            findings.add(Violation { kind, group: Some(request.group.to_string()), story });
        }
    }
}

fn check_group(index: &group_history::Index<'_>, layout: &Layout, group: Group, findings: &mut Findings) {
    findings.groups += 1;
    let gathered = index.gather(layout, group, findings);
    match linearize::decide(gathered.slots, &gathered.actions, linearize::Beginning::Nothing, WAYS_MAX) {
        linearize::Verdict::Fine { undecided } => findings.undecided += undecided,
        linearize::Verdict::Wrong { action } => {
            let small = shrink::shrink(gathered.slots, &gathered.actions, action);
            findings.add(explain::violation(layout, index.history, group, &gathered, &small));
        }
    }
}
