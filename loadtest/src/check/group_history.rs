//! Turns the history of a run into the actions on one group.

use std::collections::HashMap;
use std::ops::Range;

use super::linearize::{Action, Effect};
use super::state::ObservedState;
use super::{Findings, explain};
use crate::history::{
    History, NEVER, Observation, Operation, Outcome, Request, Scrape, pack_slot, unpack_slot,
};
use crate::schema::{GroupId, PushId, Schema};
use crate::violation::{Violation, ViolationKind};

/// Finds the requests and the observations of a group.
pub struct HistoryIndex<'a> {
    /// The indexed history.
    pub history: &'a History,
    requests: HashMap<GroupId, Vec<PushId>>,
    /// Scraper, and index of the observation in its log.
    observations: HashMap<GroupId, Vec<(usize, usize)>>,
}

/// Where an action comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This request.
    Request(PushId),
    /// A scrape by this scraper.
    Scraper(usize),
    /// A kill of the gateway.
    Kill,
}

/// What happened to a group.
pub struct GroupHistory {
    /// Number of slots in its state.
    pub slot_count: usize,
    /// In no particular order.
    pub actions: Vec<Action>,
    /// The source of each action.
    pub sources: Vec<Source>,
}

/// The time from the first request to a group to the end of the last one.
#[derive(Clone, Copy)]
struct RequestSpan {
    begin: u64,
    end: u64,
}

/// An observation that no order of the requests can explain.
struct ImpossibleSlot {
    kind: ViolationKind,
    text: String,
    push: PushId,
}

impl<'a> HistoryIndex<'a> {
    /// Indexes a history.
    pub fn new(history: &'a History) -> Self {
        let mut requests: HashMap<GroupId, Vec<PushId>> = HashMap::new();
        for (writer, sent) in history.requests.iter().enumerate() {
            for (sequence, request) in sent.iter().enumerate() {
                requests.entry(request.group).or_default().push(PushId::new(writer, sequence));
            }
        }
        let mut observations: HashMap<GroupId, Vec<(usize, usize)>> = HashMap::new();
        for (scraper, log) in history.scrape_logs.iter().enumerate() {
            for (at, observation) in log.observations.iter().enumerate() {
                observations.entry(observation.group).or_default().push((scraper, at));
            }
        }
        Self { history, requests, observations }
    }

    /// All groups with a request or an observation, sorted.
    pub fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<_> = self.requests.keys().chain(self.observations.keys()).copied().collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The requests to a group.
    pub fn requests(&self, group: GroupId) -> impl Iterator<Item = (PushId, &'a Request)> {
        let pushes = self.requests.get(&group).map_or(&[][..], Vec::as_slice);
        pushes.iter().map(|push| (*push, self.history.request(*push).expect("it was indexed")))
    }

    /// The observations of a group by one scraper, in order of time.
    fn observations(&self, group: GroupId, scraper: usize) -> Vec<Observation> {
        let log = &self.history.scrape_logs[scraper];
        let indexed = self.observations.get(&group).map_or(&[][..], Vec::as_slice);
        let own = indexed.iter().filter(|(by, _)| *by == scraper);
        let mut observations: Vec<_> = own.map(|(_, at)| log.observations[*at]).collect();
        observations.sort_unstable_by_key(|observation| observation.first);
        observations
    }

    /// All actions on a group. Observations that are impossible in every order become findings and are left out.
    pub fn group_history(&self, schema: &Schema, group: GroupId, findings: &mut Findings) -> GroupHistory {
        let slot_count = schema.class(group).map_or(0, |class| class.slot_count);
        let mut actions = GroupHistory { slot_count, actions: Vec::new(), sources: Vec::new() };
        for (push, request) in self.requests(group) {
            self.add_request(schema, push, request, &mut actions);
        }
        let span = actions.request_span();
        for scraper in 0..self.history.scrape_logs.len() {
            self.add_scrapes(schema, group, scraper, span, &mut actions, findings);
        }
        for kill in self.history.kills.iter().filter(|kill| **kill > span.begin) {
            actions.push_certain(Source::Kill, *kill, *kill, Effect::Kill);
        }
        actions
    }

    fn add_request(&self, schema: &Schema, push: PushId, request: &Request, actions: &mut GroupHistory) {
        let answered = matches!(request.outcome, Outcome::Accepted | Outcome::Inconsistent);
        let end = match request.outcome {
            Outcome::Rejected | Outcome::NotSent => return,
            // A request that was in flight when the process died cannot take effect afterwards.
            Outcome::Lost => {
                let kill = self.history.kills.iter().find(|kill| **kill > request.start);
                kill.map_or(NEVER, |kill| kill - 1)
            }
            Outcome::Accepted if self.history.late_deletes && request.operation == Operation::Delete => {
                self.next_response(request)
            }
            Outcome::Accepted | Outcome::Inconsistent | Outcome::Unknown(_) => request.end,
        };
        let source = Source::Request(push);
        let mut add = |effect| {
            let (optional, acknowledged) = (!answered, answered);
            actions.push(source, Action { start: request.start, end, effect, optional, acknowledged });
        };
        let push_effect = || push_effect(schema, request, push);
        match request.operation {
            Operation::Delete => add(Effect::Delete),
            _ if request.outcome == Outcome::Inconsistent => add(Effect::Reject),
            Operation::Put | Operation::Post => add(push_effect()),
            // The response is already a finding; the content counts as pushed.
            Operation::Malformed | Operation::Inconsistent if answered => add(push_effect()),
            Operation::Malformed => {}
            Operation::Inconsistent => add(Effect::Reject),
        }
        let is_push = matches!(request.operation, Operation::Put | Operation::Post);
        if !answered && is_push && schema.is_contested(request.group, usize::from(request.shape)) {
            // Without a clear response, the gateway may also have rejected it.
            add(Effect::Reject);
        }
    }

    /// When the first response arrived to a push that was sent after the end of this request.
    fn next_response(&self, request: &Request) -> u64 {
        let later = self
            .requests(request.group)
            .filter(|(_, other)| other.start > request.end && other.operation != Operation::Delete);
        let answered =
            later.filter(|(_, other)| matches!(other.outcome, Outcome::Accepted | Outcome::Inconsistent));
        answered.map(|(_, other)| other.end).min().unwrap_or(NEVER)
    }

    /// Adds what one scraper saw of the group, and the scrapes in which the group was absent.
    fn add_scrapes(
        &self,
        schema: &Schema,
        group: GroupId,
        scraper: usize,
        span: RequestSpan,
        actions: &mut GroupHistory,
        findings: &mut Findings,
    ) {
        let log = &self.history.scrape_logs[scraper];
        let mut next = 0;
        for observation in self.observations(group, scraper) {
            self.add_absences(scraper, next..observation.first as usize, span, actions);
            next = observation.last as usize + 1;
            let slots = log.slots(&observation, actions.slot_count);
            if let Some(impossible) = self.impossible_slot(schema, group, slots) {
                let scrape = log.scrapes[observation.first as usize];
                findings.add(self.impossible_violation(schema, group, scrape, impossible));
                continue;
            }
            let state = ObservedState {
                slots: slots.to_vec(),
                pushed: observation.pushed,
                failed: observation.failed,
            };
            let mut add = |at: u32| {
                let Scrape { start, end } = log.scrapes[at as usize];
                let effect = Effect::Observe(Some(state.clone()));
                actions.push_certain(Source::Scraper(scraper), start, end, effect);
            };
            add(observation.first);
            if observation.last != observation.first {
                add(observation.last);
            }
        }
        self.add_absences(scraper, next..log.scrapes.len(), span, actions);
    }

    /// Adds scrapes that did not show the group. After the last request, one of them is enough.
    fn add_absences(
        &self,
        scraper: usize,
        range: Range<usize>,
        span: RequestSpan,
        actions: &mut GroupHistory,
    ) {
        let scrapes = &self.history.scrape_logs[scraper].scrapes[..range.end];
        let from = range.start.max(scrapes.partition_point(|scrape| scrape.end < span.begin));
        for Scrape { start, end } in scrapes.iter().skip(from).copied() {
            actions.push_certain(Source::Scraper(scraper), start, end, Effect::Observe(None));
            if start > span.end {
                break;
            }
        }
    }

    /// The first slot whose value no order of the requests can explain.
    fn impossible_slot(&self, schema: &Schema, group: GroupId, slots: &[u64]) -> Option<ImpossibleSlot> {
        slots.iter().enumerate().find_map(|(slot, value)| {
            let (push, shown) = unpack_slot(*value)?;
            let impossible = |kind, text| Some(ImpossibleSlot { kind, text, push });
            let Some(request) = self.history.request(push) else {
                let text = format!("shows push {push}, which no writer sent");
                return impossible(ViolationKind::PhantomPush, text);
            };
            if request.group != group {
                let text = format!("shows push {push}, which was sent to another group");
                return impossible(ViolationKind::PhantomPush, text);
            }
            let invalid = request.operation.is_invalid() && request.outcome != Outcome::Accepted;
            let rejected =
                matches!(request.outcome, Outcome::Inconsistent | Outcome::Rejected | Outcome::NotSent);
            if invalid || rejected {
                let text = format!("shows push {push}, which was rejected");
                return impossible(ViolationKind::RejectedPushVisible, text);
            }
            match schema.type_in_slot(group, usize::from(request.shape), slot) {
                None => {
                    let text = format!("shows push {push} in a family that it did not carry");
                    impossible(ViolationKind::PhantomPush, text)
                }
                Some(pushed) if pushed != shown => {
                    let (shown, pushed) = (shown.name(), pushed.name());
                    let text = format!("shows push {push} as a {shown}, but it was a {pushed}");
                    impossible(ViolationKind::WrongType, text)
                }
                Some(_) => None,
            }
        })
    }

    fn impossible_violation(
        &self,
        schema: &Schema,
        group: GroupId,
        scrape: Scrape,
        impossible: ImpossibleSlot,
    ) -> Violation {
        let ImpossibleSlot { kind, text, push } = impossible;
        let mut story = Vec::new();
        if let Some(request) = self.history.request(push) {
            let sequence = push.sequence().unwrap_or_default();
            story.push(explain::request(schema, request, push.writer(), sequence));
        }
        story.push(explain::line(scrape.start, scrape.end, &format!("scrape: {group} {text}")));
        Violation { kind, group: Some(group.to_string()), story }
    }
}

impl GroupHistory {
    fn push(&mut self, source: Source, action: Action) {
        self.actions.push(action);
        self.sources.push(source);
    }

    /// Adds an action that happened, whatever the responses say.
    fn push_certain(&mut self, source: Source, start: u64, end: u64, effect: Effect) {
        self.push(source, Action { start, end, effect, optional: false, acknowledged: true });
    }

    fn request_span(&self) -> RequestSpan {
        let begin = self.actions.iter().map(|action| action.start).min().unwrap_or(NEVER);
        let known_end = |action: &Action| if action.end == NEVER { action.start } else { action.end };
        let end = self.actions.iter().map(known_end).max().unwrap_or(0);
        RequestSpan { begin, end }
    }
}

fn push_effect(schema: &Schema, request: &Request, push: PushId) -> Effect {
    let class = &schema.classes[request.group.class()];
    let families = class.shapes[usize::from(request.shape)].iter().map(|at| &class.families[*at]);
    let slots = families.map(|family| (family.slot, pack_slot(push, family.metric_type))).collect();
    Effect::Push { replaces_group: request.operation != Operation::Post, slots }
}
